#!/bin/bash
# Inside the guest, with udev: an ordinary user's browser registers and signs in at examples/relying-party, with a passkey of that
# user's daemon.
# Usage: browser.sh FOLDER BROWSER PICTURE, where the programs are, chromium or firefox, and the file that gets a picture of the
# page at its end. Says each claim that holds; the first that does not ends it.
set -euo pipefail
. "$(dirname "$0")/claims.sh"

programs=$1 browser=$2 picture=$3
user=nobody
page=http://localhost:8080/#alice
export HOME=/tmp/home
mkdir -p $HOME/profile
chown -R $user $HOME
cd $HOME

as_user() { as $user "$@"; }

# In logind's place, which gives what has this tag to who sits at the machine.
echo "TAG==\"uaccess\", OWNER=\"$user\"" >/etc/udev/rules.d/99-lab.rules
udevadm control --reload
chown $user /dev/uhid /dev/tpmrm0

echo 493817205 >pin
claim "an ordinary user sets up" as_user "$programs/passhold" --vault vault --pin-fd 3 setup 3<pin
as_user "$programs/passholdd" --vault vault --prompt auto --pin-fd 3 3<pin >daemon.log 2>&1 &
is_given() {
    udevadm wait --timeout=20 --initialized=true /dev/hidraw0
    [ "$(stat -c %U /dev/hidraw0)" = $user ]
}
claim "udev's own rules give them the device" is_given

# Chromium is asked on a descriptor of its own for what it shows.
chromium_starts() {
    mkfifo asked answered
    exec {asked}<>asked {answered}<>answered
    # On a busy machine its processes take longer to find each other than the 15 seconds after which they give up; without its
    # network process the page comes to nothing.
    as_user chromium --headless --disable-gpu --ipc-connection-timeout=240 --user-data-dir=profile --remote-debugging-pipe "$page" \
        3<&"$asked" 4>&"$answered" >browser.log 2>&1 &
}
chromium_answers() { # chromium_answers NUMBER MEMBERS: the answer to a DevTools command is in $answer
    printf '{"id":%s,%s}\0' "$1" "$2" >&"$asked"
    # Between answers it tells of events.
    until [[ ${answer-} == "{\"id\":$1,"* ]]; do read -r -t 120 -d '' -u "$answered" answer || return; done
}
chromium_shows() { # the page as base64, in $answer
    # Its own menus are targets too.
    chromium_answers 1 '"method": "Target.getTargets", "params": {"filter": [{"type": "page"}]}'
    local target=${answer##*\"targetId\":\"}
    chromium_answers 2 "\"method\": \"Target.attachToTarget\", \"params\": {\"targetId\": \"${target%%\"*}\", \"flatten\": true}"
    local session=${answer##*\"sessionId\":\"}
    chromium_answers 3 "\"sessionId\": \"${session%%\"*}\", \"method\": \"Page.captureScreenshot\""
    answer=${answer##*\"data\":\"}
}

firefox_starts() {
    as_user firefox-esr --headless --marionette --profile profile "$page" >browser.log 2>&1 &
}
firefox_says() { # its next Marionette message is in $answer
    local length
    read -r -t 120 -d : -u "$marionette" length || return
    answer=$(head -c "$length" <&"$marionette")
}
firefox_answers() { # firefox_answers COMMAND
    printf '%s:%s' ${#1} "$1" >&"$marionette"
    firefox_says
}
firefox_shows() { # the page as base64, in $answer
    exec {marionette}<>/dev/tcp/127.0.0.1/2828
    # It greets.
    firefox_says
    firefox_answers '[0, 1, "WebDriver:NewSession", {}]'
    firefox_answers '[0, 2, "WebDriver:TakeScreenshot", {"full": false}]'
    answer=${answer##*\"value\":\"}
}

exec {site}< <("$programs/relying-party")
site_says() {
    read -r -t 240 -u "$site" line
    echo "It says: $line"
    [ "$line" = "$1" ]
}
takes_picture() {
    # The page hears a moment later than the log that it was accepted.
    sleep 2
    "${browser}_shows"
    base64 -d <<<"${answer%%\"*}" >"$picture"
}
claim "a site waits for them" site_says "listening on http://localhost:8080"
"${browser}_starts"
claim "$browser registers there" site_says 'registered: "alice"'
claim "$browser signs in" site_says 'signed in: "alice"'
claim "and shows it" takes_picture
