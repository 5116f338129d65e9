#!/bin/bash
# Inside a Debian that its own systemd has booted, with swtpm behind /dev/tpmrm0 and everything else the machine's own: udev, logind,
# each user's systemd. The package as whoever installs it has it.
# Usage: systemd.sh FOLDER install PACKAGE, and after a reboot of the same disk and TPM: systemd.sh FOLDER again. Of the folder of the
# programs nothing is used. Says each claim that holds; the first that does not ends it.
set -euo pipefail
. "$(dirname "$0")/claims.sh"

when=$2
pin=493817205
export HOME=/root/lab
mkdir -p $HOME
cd $HOME
trap '[ $? = 0 ] || journalctl --no-pager --boot --lines=40 _TRANSPORT=stdout + _PID=1 >&2' EXIT

soon() { # soon COMMAND...: within a minute
    local end=$((SECONDS + 60))
    until "$@"; do
        ((SECONDS < end)) || return
        sleep 0.2
    done
}
log_in() { # log_in USER TERMINAL: at the machine
    systemctl start "getty@$2" && soon sits "$1" && soon systemctl --quiet is-active "user@$(id -u "$1")"
}
sits() { # sits USER: his session is the one before the screen
    local session
    session=$(loginctl list-sessions --no-legend | awk -v user="$1" '$3 == user && $5 != "" { print $1 }')
    [ -n "$session" ] && loginctl activate "$session" && loginctl show-session "$session" --property Active --property Seat >about &&
        grep -qx Active=yes about && grep -qx Seat=seat0 about
}
hers() { as alice env HOME=/home/alice XDG_RUNTIME_DIR="/run/user/$(id -u alice)" "$@"; }
passhold() { hers passhold --pin-fd 3 "$@" 3<<<$pin; }
# What gnome-session and its like do.
desktop() {
    hers systemctl --user start desktop.target && soon hers systemctl --user --quiet is-active passhold-prompt
}
has_device() {
    device=$(echo /dev/hidraw*)
    [ "$(stat -c '%U %G %a' "$device")" = "alice root 600" ] && [ -z "$(getfacl --skip-base "$device" 2>/dev/null)" ]
}
signs() {
    passhold sign --origin https://example.org --options get.json >signed.json && [ "$(id_in signed.json)" = "$(id_in made.json)" ]
}
id_in() { grep -o '"id": *"[^"]*"' "$1"; }
running() { systemctl --quiet is-active passholdd && [ -S /run/passhold/socket ]; }
has_nodes() {
    [ "$(stat -c '%U %G %a' /dev/uhid)" = "root passhold 660" ] && getfacl -c /dev/tpmrm0 | grep -qx group:passhold:rw-
}
untold() { # neither the PIN nor the recovery code
    [ -s code ] && journalctl --no-pager --all --output=export >journal && grep -q passholdd journal && ! grep -e "$pin" -e "$(cat code)" journal
}

if [ "$when" = install ]; then
    logs_in() { # logs_in USER TERMINAL: once it is started
        useradd --create-home --user-group --shell /bin/bash "$1"
        local about=/etc/systemd/system/getty@$2.service.d
        mkdir -p "$about"
        printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin %s %%I linux\n' "$1" >"$about/lab.conf"
    }
    logs_in alice tty2
    logs_in bob tty3
    chmod 755 /root $HOME
    printf '[Unit]\nBindsTo=graphical-session.target\n' >/etc/systemd/user/desktop.target
    answers_with $pin /usr/local/bin/pinentry
    cat >create.json <<'J'
{"rp": {"id": "example.org", "name": "Example"}, "user": {"id": "dXNlcg", "name": "alice", "displayName": "Alice"},
 "challenge": "Y2hhbGxlbmdl", "pubKeyCredParams": [{"type": "public-key", "alg": -7}]}
J
    echo '{"challenge": "Y2hhbGxlbmdl", "rpId": "example.org"}' >get.json

    claim "dpkg installs it on a running machine" env DEBIAN_FRONTEND=noninteractive dpkg --install "$3"
    claim "where the service runs at once" soon running
    claim "and at each start from then on" systemctl --quiet is-enabled passholdd
    pid=$(systemctl show --property MainPID --value passholdd)
    is() { grep -qP "^$1:\t$2\$" "/proc/$pid/status"; }
    own() { local id && id=$(id -u passhold) && is Uid "$id\t$id\t$id\t$id" && is CapEff 0+ && is CapBnd 0+ && is NoNewPrivs 1; }
    claim "as a user of its own, with no privilege" own
    claim "whose group has the TPM and uhid" has_nodes
    # The same unit with another program has the filters of systemd.
    filters() {
        sed -e '/Directory/d' -e 's,^ExecStart=.*,ExecStart=/bin/grep Seccomp_filters /proc/self/status,' \
            -e 's,^Type=.*,Type=oneshot,' /lib/systemd/system/passholdd.service >/run/systemd/system/filters.service
        local theirs ours
        systemctl start filters || return
        theirs=$(journalctl --unit filters --output cat | grep -oP 'Seccomp_filters:\t\K.*')
        ours=$(grep -oP 'Seccomp_filters:\t\K.*' "/proc/$pid/status")
        echo "$theirs of systemd, $ours in all"
        is Seccomp 2 && ((ours > theirs))
    }
    claim "it has filters of system calls of its own, beside systemd's" filters
    without() { # without CALLS: as started by its unit where the kernel had none of these
        systemd-run --quiet --pipe --wait --property User=passhold --property RuntimeDirectory=without \
            --property LimitMEMLOCK=infinity --property SystemCallErrorNumber=ENOSYS --property "SystemCallFilter=~$1" \
            passholdd --system --state /run/without/state --socket /run/without/socket
    }
    refused "without landlock it does not run" "cannot be kept from other files" without landlock_create_ruleset
    refused "nor without seccomp" "cannot give up system calls" without seccomp
    claim "systemd finds little to expose it" systemd-analyze security --no-pager --threshold=15 passholdd.service

    claim "Alice logs in at the machine" log_in alice tty2
    claim "and is in no group but hers" [ "$(id -nG alice)" = alice ]
    refused "she may not use the TPM" "Permission denied" as alice sh -c 'exec 3<>/dev/tpmrm0'
    refused "nor make devices" "Permission denied" as alice sh -c 'exec 3<>/dev/uhid'
    sets_up() {
        passhold setup >setup.txt 2>&1 && grep -oE '([A-Z0-9]{4}-){6}[A-Z0-9]{4}' setup.txt >code
    }
    claim "by the service she sets up" sets_up
    enrolls() { passhold enroll --origin https://example.org --options create.json >made.json; }
    claim "and enrolls" enrolls
    claim "and signs" signs
    claim "her desktop starts what asks her" desktop
    warned() { journalctl _COMM=passholdd --output cat | grep "gdbus does not run"; }
    claim "where it finds no gdbus, which it says" soon warned
    claim "so that she has a device, and she alone" soon has_device
    claim "which she opens" as alice sh -c "exec 3<>$device"
    claim "Bob logs in, and sits before the screen" log_in bob tty3
    refused "he does not open it" "Permission denied" as bob sh -c "exec 3<>$device"
    sound() {
        local line
        hers passhold --json doctor >doctor.json || true
        for line in tpm srk daemon uhid group udev-rule hidraw; do
            grep -q "\"id\":\"$line\",\"level\":\"ok\"" doctor.json || { echo "$line: $(cat doctor.json)" && return 1; }
        done
    }
    claim "doctor finds all of it as it should be" sound

    echo data | openssl sha256 -binary | base64 >hash
    { cat hash; printf 'example.net\nalice\nYWxpY2U=\n'; } >cred.in
    registers() {
        echo $pin | hers setsid --wait fido2-cred -M -r -v -i $HOME/cred.in "$device" >cred.out &&
            fido2-cred -V -v -i cred.out -o cred.pub
    }
    claim "libfido2 registers there for her" registers

    systemctl restart passholdd
    claim "restarted, it has her vault" soon signs
    claim "and she her device" soon has_device
    systemctl kill --signal KILL passholdd
    claim "killed, it comes back, and signs" soon signs
    claim "and she has her device again" soon has_device
    claim "the journal tells no PIN and no recovery code" untold
    echo 'KERNEL=="tpmrm0", PROGRAM="/bin/sleep 20"' >/etc/udev/rules.d/60-late.rules
else
    at_once() { soon has_nodes && soon running && [ "$(systemctl show --property NRestarts --value passholdd)" = 0 ]; }
    claim "the TPM was late at this start; the service waited, and runs by itself" at_once
    claim "Alice logs in" log_in alice tty2
    claim "her passkey signs" signs
    claim "her desktop starts what asks her" desktop
    claim "so that she has a device" soon has_device
    { cat hash; echo example.net; head -1 cred.pub; } >assert.in
    tail -n +2 cred.pub >key.pem
    signs_in() {
        echo $pin | hers setsid --wait fido2-assert -G -v -i $HOME/assert.in "$device" >assert.out &&
            fido2-assert -V -v -i assert.out key.pem es256
    }
    claim "by which libfido2 signs in, and finds the signature good" signs_in
    claim "the journal still tells no PIN and no recovery code" untold
fi
