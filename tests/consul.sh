#!/usr/bin/env bash
# Puts Consul into a folder without installing it, and says where: tests/consul.sh DIR
#
# It is the package of Debian 11 (Consul 1.8), since later releases of Debian have none; its one dependency is the C
# library. Needs apt-get, dpkg-deb and a mirror, which is the one that this machine's apt uses already.
set -euo pipefail

dir=${1:?usage: tests/consul.sh DIR}
program=$dir/usr/bin/consul
if [ -x "$program" ]; then
    echo "$program"
    exit 0
fi

# Of deb822 files first ("URIs: …"), then of the older form ("deb [options] URI suite …").
mirror=$(sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -m1 debian || true)
[ -n "$mirror" ] || mirror=$(grep -hom1 'https\?://[^ ]*debian[^ ]*' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | head -1 || true)
[ -n "$mirror" ] || { echo "tests/consul.sh: apt knows no mirror of Debian" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt drops its rights while it downloads.
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$dir"
echo "deb $mirror bullseye main" >"$work/bullseye.list"
apt() {
    apt-get -qq -o Dir::Etc::SourceList="$work/bullseye.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update >&2
(cd "$work" && apt download consul >&2)
dpkg-deb -x "$work"/consul_*.deb "$dir"
echo "$program"
