#!/bin/bash
# Inside the guest: passholdd on /dev/tpmrm0 and /dev/uhid, used by libfido2's own tools and by OpenSSH.
# Usage: device.sh FOLDER, where the programs are. Says each claim that holds; the first that does not ends it.
set -euo pipefail
. "$(dirname "$0")/claims.sh"

programs=$1
pin=493817205
export HOME=/tmp/home
mkdir -p $HOME/.ssh
cd $HOME
chmod 700 .ssh

says() { # says WHAT PATTERN: the last command said so
    grep -q -- "$2" output || { echo "NOT: $1: $(cat output)"; exit 1; }
    echo "$1"
}
# Types lines into a program that asks for a PIN. Without a terminal libfido2's tools read standard input.
typing() { # typing LINES COMMAND...
    local lines=$1
    shift
    printf '%b' "$lines" | setsid --wait "$@"
}

echo $pin >pin
"$programs/passholdd" --vault vault --prompt auto --pin-fd 3 3<pin >daemon.log 2>&1 &
daemon=$!
listed() { fido2-token -L | grep -q 'vendor=0x1209'; }
for _ in $(seq 100); do listed && break; sleep 0.1; done
claim "libfido2 lists the device" listed
device=$(fido2-token -L | cut -d: -f1)
claim "and reads what it is" fido2-token -I "$device"
says "a software TPM's AAGUID" "aaguid: 629a178903544613a1bc14b825aa2162"
says "no PIN yet" noclientPin
claim "fido2-token sets the PIN" typing "$pin\n$pin\n" fido2-token -S "$device"
claim "which shows" fido2-token -I "$device"
says "as clientPin" ", clientPin"

hash=$(echo data | openssl sha256 -binary | base64)
printf '%s\nexample.org\nalice\nYWxpY2U=\n' "$hash" >cred.in
claim "fido2-cred makes a discoverable credential, with the PIN" typing "$pin\n" fido2-cred -M -r -v -i cred.in -o cred.out "$device"
claim "and verifies it" fido2-cred -V -v -i cred.out -o cred.pub
head -1 cred.pub >id
tail -n +2 cred.pub >key.pem
{ echo "$hash"; echo example.org; cat id; } >assert.in
claim "fido2-assert signs in with it" typing "$pin\n" fido2-assert -G -v -i assert.in -o assert.out "$device"
claim "and verifies the signature" fido2-assert -V -v -i assert.out key.pem es256
head -2 assert.in >discover.in
claim "and without naming it" typing "$pin\n" fido2-assert -G -r -v -i discover.in -o assert.out "$device"
claim "fido2-token lists the sites" typing "$pin\n" fido2-token -L -r "$device"
says "of which there is one site" example.org
claim "and its credentials" typing "$pin\n" fido2-token -L -k example.org "$device"
says "of which there is one, by its user's ID" "YWxpY2U="
claim "it deletes one" typing "$pin\n" fido2-token -D -i "$(cat id)" "$device"
refused "which then signs no more" FIDO_ERR_NO_CREDENTIALS typing "$pin\n" fido2-assert -G -v -i assert.in -o assert.out "$device"

printf '%s\nexample.org\nbob\nYm9i\n' "$hash" >secret.in
claim "fido2-cred makes one with hmac-secret" typing "$pin\n" fido2-cred -M -h -v -i secret.in -o secret.out "$device"
fido2-cred -V -h -v -i secret.out -o secret.pub
{ echo "$hash"; echo example.org; head -1 secret.pub; echo salt | openssl sha256 -binary | base64; } >salt.in
claim "fido2-assert gets its secret for a salt" typing "$pin\n" fido2-assert -G -h -v -i salt.in -o salt.1 "$device"
claim "and gets it again" typing "$pin\n" fido2-assert -G -h -v -i salt.in -o salt.2 "$device"
secret=$(tail -1 salt.1)
claim "which is the same" [ "${#secret} $secret" = "44 $(tail -1 salt.2)" ]

cat >askpass <<A
#!/bin/sh
echo $pin
A
chmod 700 askpass
export SSH_ASKPASS=$HOME/askpass SSH_ASKPASS_REQUIRE=force
claim "ssh-keygen makes a resident key" ssh-keygen -q -t ecdsa-sk -O resident -O verify-required -N '' -f .ssh/id_ecdsa_sk
cp .ssh/id_ecdsa_sk.pub .ssh/authorized_keys
ssh-keygen -q -t ed25519 -N '' -f host_key
mkdir -p /run/sshd
cat >sshd_config <<C
Port 2222
ListenAddress 127.0.0.1
HostKey $HOME/host_key
AuthorizedKeysFile $HOME/.ssh/authorized_keys
PubkeyAuthOptions verify-required
PasswordAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
C
/usr/sbin/sshd -f sshd_config -E sshd.log
login() { ssh -F none -i "$1" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p 2222 root@127.0.0.1 echo logged in; }
claim "and logs in to sshd with it" login .ssh/id_ecdsa_sk
says "as itself" "logged in"
mkdir elsewhere
download() (cd elsewhere && ssh-keygen -q -K -N '')
claim "ssh-keygen -K brings it to another machine" download
claim "where it logs in too" login elsewhere/id_ecdsa_sk_rk

claim "fido2-token resets" fido2-token -R "$device"
refused "and the key logs in no more" "Permission denied" login .ssh/id_ecdsa_sk
kill $daemon
claim "passholdd ends when asked" wait $daemon
gone() { [ -z "$(fido2-token -L)" ]; }
claim "and the device with it" gone
