#!/bin/bash
# Inside the guest: the first registration of an ordinary user, who has no vault yet. Chromium's own window asks for the PIN.
# Usage: dialog.sh FOLDER PICTURE, where the programs are, and the file that gets a picture of the window. Says each claim that
# holds; the first that does not ends it.
set -euo pipefail
. "$(dirname "$0")/claims.sh"

programs=$1 picture=$2
user=nobody
pin=493817205
export HOME=/tmp/home DISPLAY=:9
mkdir -p $HOME
chown $user $HOME
cd $HOME

as_user() { as $user "$@"; }

chown $user /dev/uhid /dev/tpmrm0
echo $pin >pin
as_user "$programs/passholdd" --vault vault --prompt auto --pin-fd 3 3<pin >daemon.log 2>&1 &
for _ in $(seq 100); do [ -e /dev/hidraw0 ] && break; sleep 0.1; done
chown $user /dev/hidraw0
exec {site}< <("$programs/relying-party")
site_says() {
    read -r -t 240 -u "$site" line
    echo "It says: $line"
    [ "$line" = "$1" ]
}
claim "a site waits for them" site_says "listening on http://localhost:8080"
Xvfb $DISPLAY -ac -screen 0 1000x700x24 >screen.log 2>&1 &
for _ in $(seq 100); do [ -S /tmp/.X11-unix/X9 ] && break; sleep 0.1; done
# browser.sh says why it is to be patient. Only its log knows which dialog it shows.
as_user chromium --disable-gpu --no-first-run --ipc-connection-timeout=240 --user-data-dir=profile --window-position=0,0 \
    --window-size=1000,700 --enable-logging=stderr --vmodule='device_event_log*=1' http://localhost:8080/#alice >browser.log 2>&1 &
asks_for_new_pin() { timeout 240 sh -c 'until grep -q "UI step: kClientPinSetup" browser.log; do sleep 1; done'; }
claim "Chromium asks them to choose a PIN" asks_for_new_pin
# The dialog is drawn.
sleep 5
types_pin() {
    xdotool type --delay 200 $pin
    xdotool key Tab
    xdotool type --delay 200 $pin
    sleep 2
    scrot "$picture"
    xdotool key Return
}
claim "which they type" types_pin
claim "it registers" site_says 'registered: "alice"'
# The daemon has its own copy of the PIN for this, which is the vault's by now.
claim "and signs in" site_says 'signed in: "alice"'
