#!/bin/sh
# Usage: install.sh DIR
# Installs the verifiers' pinned libraries in DIR: a Python venv and node_modules. Does nothing when they are there.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?usage: install.sh DIR}"
cd "$1"

# Tests start side by side; one of them installs.
exec 9>.lock
flock 9

wanted=$({ python3 --version; node --version; cat "$here/requirements.txt" "$here/package-lock.json"; } | sha256sum)
if [ -f .installed ] && [ "$(cat .installed)" = "$wanted" ]; then
    exit 0
fi

rm -f .installed
python3 -m venv --clear venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
cp "$here/package.json" "$here/package-lock.json" .
npm ci --silent --no-audit --no-fund --ignore-scripts
echo "$wanted" >.installed
