#!/bin/sh
# Installs the Debian packages that the tests need: where it is root and they are missing; otherwise it names them.
# With CI=true, what is missing in the end is an error.
set -eu

# command:package
PARTS="
named:bind9
tmux:tmux
setpriv:util-linux
"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

missing() {
    for part in $PARTS; do
        command -v "${part%%:*}" >/dev/null 2>&1 || printf '%s\n' "${part#*:}"
    done | sort -u | tr '\n' ' '
}

packages=$(missing)
[ -n "$packages" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing what the tests need: $packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    # Tests start their own servers; RUNLEVEL=1 keeps the packages from starting theirs.
    # shellcheck disable=SC2086 # one word a package
    { apt-get -qq update && RUNLEVEL=1 apt-get -qq install -y --no-install-recommends $packages >/dev/null; } || true
    packages=$(missing)
    [ -n "$packages" ] || exit 0
fi

echo "the tests need packages that are missing here: $packages" >&2
echo "  next: as root, apt-get install --no-install-recommends $packages" >&2
[ "${CI:-}" != true ] || exit 1
