#!/bin/bash
# Inside the guest: browsers register and sign in at examples/relying-party with a passkey of the device.
# Usage: browsers.sh FOLDER BROWSER, where the programs are, and chromium or firefox. Says each claim that holds.
set -euo pipefail

programs=$1 browser=$2
export HOME=/tmp/home
mkdir -p $HOME
cd $HOME

echo 493817205 >pin
"$programs/passhold" --vault vault --pin-fd 3 setup 3<pin >setup.log 2>&1
"$programs/passholdd" --vault vault --prompt auto --pin-fd 3 3<pin >daemon.log 2>&1 &
"$programs/relying-party" --port 8080 >site.log 2>&1 &
page=http://localhost:8080/#alice
case $browser in
chromium) chromium --headless --no-sandbox --disable-gpu --disable-background-networking --user-data-dir=$HOME/profile "$page" ;;
firefox) firefox-esr --headless --new-instance --profile "$(mktemp -d)" "$page" ;;
esac >browser.log 2>&1 &

claim() { # claim WHAT LINE: the site says so
    for _ in $(seq 1200); do
        if grep -q "$2" site.log; then
            echo "$1"
            return
        fi
        sleep 0.1
    done
    echo "NOT: $1: $(cat site.log daemon.log setup.log; tail -n 20 browser.log)"
    exit 1
}
claim "$browser registers" 'registered: "alice"'
claim "$browser signs in" 'signed in: "alice"'
