#!/bin/bash
# Inside the guest, with udev: passholdd as a system service on /dev/tpmrm0 and /dev/uhid, for users who may use neither.
# Usage: service.sh FOLDER, where the programs are. Says each claim that holds; the first that does not ends it.
set -euo pipefail
. "$(dirname "$0")/claims.sh"

programs=$1
lab=$(dirname "$0")
pin=493817205
alice=31001 bob=31002 daemon_user=31000
export HOME=/tmp/home
mkdir -p $HOME
cd $HOME

printf '%s:x:%s:%s::/tmp:/bin/sh\n' alice $alice $alice bob $bob $bob >>/etc/passwd
# What the package does: a user, and the rule that gives his group, which nobody else is in, the TPM and uhid.
printf 'passhold:x:%s:%s::/nonexistent:/usr/sbin/nologin\n' $daemon_user $daemon_user >>/etc/passwd
echo "passhold:x:$daemon_user:" >>/etc/group
cp "$lab/../../dist/udev/72-passhold.rules" /etc/udev/rules.d/
# In logind's place, which gives what has this tag to who sits at the machine: Bob.
echo 'TAG=="uaccess", OWNER="31002", MODE="0666"' >/etc/udev/rules.d/73-lab.rules
udevadm control --reload
udevadm trigger --settle --sysname-match=tpmrm0 --sysname-match=uhid
install -d -o $daemon_user -m 755 /run/passhold
install -d -o $daemon_user -m 700 /var/lib/passhold
setpriv --reuid $daemon_user --regid $daemon_user --clear-groups "$programs/passholdd" --system >daemon.log 2>&1 &
daemon=$!
up() { for _ in $(seq 100); do [ -S /run/passhold/socket ] && return; sleep 0.1; done; false; }
claim "the service comes up" up

passhold() { # passhold USER ARGUMENTS...
    local user=$1
    shift
    as "$user" "$programs/passhold" --pin-fd 3 "$@" 3<<<$pin
}
refused "its user's TPM is not Alice's" "no permission" passhold $alice --vault /tmp/hers --tpm device:/dev/tpmrm0 setup
claim "by its socket, which passhold finds, she sets up" passhold $alice setup
claim "and so does Bob" passhold $bob setup

mkdir programs
answers_with $pin programs/pinentry
install -o $alice -m 600 /dev/null programs/pinentry.asked
# Who asks her, in her session.
setpriv --reuid $alice --regid $alice --clear-groups env PATH=$HOME/programs "$programs/passholdd" prompt /run/passhold/socket 2>prompt.log &
asker=$!
hers() {
    udevadm wait --timeout=20 --initialized=true /dev/hidraw0
    [ "$(stat -c '%u %a' /dev/hidraw0)" = "$alice 600" ]
}
claim "while somebody asks her she has a device, and she alone" hers
refused "Bob does not open it" "Permission denied" as $bob sh -c 'exec 3<>/dev/hidraw0'
claim "libfido2 lists it for her" as $alice sh -c 'fido2-token -L | grep -q vendor=0x1209'
claim "and reads her vault's" as $alice sh -c 'fido2-token -I /dev/hidraw0 | grep -q clientPin'

found() { # found USER LINE LEVEL ARGUMENTS... What doctor found.
    local user=$1 line=$2 level=$3
    shift 3
    { as "$user" "$programs/passhold" --json "$@" doctor || true; } | grep -o "\"id\":\"$line\",\"level\":\"$level\",\"mend\":\(null\|\"[^\"]*\"\)"
}
sound() { for line in tpm srk daemon uhid group udev-rule hidraw; do found $alice $line ok || return; done; }
claim "doctor finds all of it as it should be" sound

mkdir -m 700 key
chown $alice key
claim "ssh-keygen makes a key on it" as $alice env HOME=$HOME/key ssh-keygen -q -t ecdsa-sk -N '' -f $HOME/key/id
claim "and was told by whom it was asked for" grep -q 'Create a passkey at ssh: .* The device is open in "ssh-sk-helper"' programs/pinentry.asked
counted() { [ "$(passhold "$1" --json list 2>/dev/null | grep -o '"id"' | wc -l)" = "$2" ]; }
claim "which her terminal lists" counted $alice 1
claim "and Bob's does not" counted $bob 0

kill $asker
gone() { for _ in $(seq 50); do [ -e /dev/hidraw0 ] || return 0; sleep 0.1; done; false; }
claim "the device goes when nobody asks her any more" gone
kill $daemon
ends() { wait $daemon; }
claim "asked to end, the service ends" ends

setfacl -b /dev/tpmrm0
direct="--vault /tmp/hers --tpm device:/dev/tpmrm0"
mend=$(found $alice tpm-device problem $direct | cut -d'"' -f12)
mended() {
    # Whoever runs this is root already.
    eval "${mend//sudo /}"
    setpriv --reuid alice --regid $alice --init-groups "$programs/passhold" --json $direct doctor >doctor.log || true
    grep -q '"id":"tpm-device","level":"ok"' doctor.log
}
claim "without it Alice gets at the TPM by what doctor prints" mended
