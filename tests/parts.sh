#!/bin/sh
# Installs the Debian packages that the tests need: where it is root and they are missing; otherwise it names them.
# With CI=true, what is missing in the end is an error.
set -eu

# command:package, or /a/file/of/it:package
PARTS="
gdnsd:gdnsd
haproxy:haproxy
knotd:knot
named:bind9
nsupdate:bind9-dnsutils
pdns_server:pdns-server
/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql:pdns-backend-sqlite3
prometheus:prometheus
setpriv:util-linux
sqlite3:sqlite3
tmux:tmux
unbound:unbound
"
HERE=$(cd "$(dirname "$0")/.." && pwd)
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$HERE/.parts/usr/bin"

missing() {
    for part in $PARTS; do
        case $part in
        /*) [ -e "${part%%:*}" ] ;;
        *) command -v "${part%%:*}" >/dev/null 2>&1 ;;
        esac || printf '%s\n' "${part#*:}"
    done | sort -u | tr '\n' ' '
}

install_packages() {
    echo "installing what the tests need: $*" >&2
    export DEBIAN_FRONTEND=noninteractive
    # Tests start their own servers; RUNLEVEL=1 keeps the packages from starting theirs.
    apt-get -qq update && RUNLEVEL=1 apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

# Debian 12 has no consul and Debian 11 has: from this machine's own mirror, its program alone, into .parts.
unpack_consul() (
    uri=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "bookworm" && $2 == "main" { print $3; exit }')
    [ -n "$uri" ] || exit 1
    echo "unpacking consul from Debian 11 into .parts" >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/root"
    echo "deb $uri bullseye main" >"$work/sources.list"
    set -- -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$work/lists" -o "APT::Sandbox::User=$(id -un)"
    cd "$work"
    apt-get "$@" update && apt-get "$@" download consul && dpkg-deb -x consul_*.deb root
    mkdir -p "$HERE/.parts/usr/bin"
    mv root/usr/bin/consul "$HERE/.parts/usr/bin/consul"
)

packages=$(missing)
if [ -n "$packages" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    # shellcheck disable=SC2086 # one word a package
    install_packages $packages || true
    packages=$(missing)
fi
if ! command -v consul >/dev/null 2>&1; then
    { command -v apt-get >/dev/null 2>&1 && unpack_consul; } || packages="$packages consul"
fi
[ -n "$packages" ] || exit 0

echo "the tests need packages that are missing here: $packages" >&2
echo "  next: as root, apt-get install --no-install-recommends $packages" >&2
[ "${CI:-}" != true ] || exit 1
