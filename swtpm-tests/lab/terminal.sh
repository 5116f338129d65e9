#!/bin/bash
# Inside the guest: the terminal on real device nodes, and what it says where it cannot use them.
# Usage: terminal.sh FOLDER, where the programs are. Says each claim that holds; the first that does not ends it.
set -euo pipefail

passhold=$1/passhold
export HOME=/tmp/home
mkdir -p $HOME
cd $HOME
echo 493817205 >pin
cat >create.json <<'J'
{"rp": {"id": "example.org", "name": "Example"}, "user": {"id": "dXNlcg", "name": "alice", "displayName": "Alice"},
 "challenge": "Y2hhbGxlbmdl", "pubKeyCredParams": [{"type": "public-key", "alg": -7}]}
J
echo '{"challenge": "Y2hhbGxlbmdl", "rpId": "example.org"}' >get.json

succeeds() { # succeeds WHAT ARGS...
    local what=$1
    shift
    "$passhold" --pin-fd 3 "$@" 3<pin >output 2>&1 || { echo "NOT: $what: $(cat output)"; exit 1; }
    echo "$what"
}
refused() { # refused WHAT MESSAGE COMMAND...: with exit code 7
    local what=$1 message=$2 code=0
    shift 2
    "$@" >output 2>&1 || code=$?
    if [ $code != 7 ] || ! grep -qxF "passhold: $message" output; then
        echo "NOT: $what: exit $code: $(cat output)"
        exit 1
    fi
    echo "$what"
}
succeeds "set-up finds /dev/tpmrm0 by itself" setup
succeeds "enrol on it" enroll --origin https://example.org --options create.json
succeeds "sign on it" sign --origin https://example.org --options get.json
succeeds "the same vault on /dev/tpm0" --tpm device:/dev/tpm0 sign --origin https://example.org --options get.json
refused "another one is missing" "no TPM at /dev/tpmrm9" "$passhold" --tpm device:/dev/tpmrm9 status
exec 9<>/dev/tpm0
refused "/dev/tpm0 has one user at a time" "/dev/tpm0 is held by another process" "$passhold" --tpm device:/dev/tpm0 status
succeeds "/dev/tpmrm0 has many" status
exec 9<&-
succeeds "and /dev/tpm0 the next one" --tpm device:/dev/tpm0 status
mkdir -m 777 nobody
refused "an ordinary user may use neither" "no permission to use /dev/tpmrm0" \
    setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp/home/nobody "$passhold" status --vault nobody
