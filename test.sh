#!/usr/bin/env bash
# Runs all tests. Arguments go to `cargo test`: ./test.sh --test front_door
#
# The tests need Rust, a C compiler, curl, Python, valgrind, etcd, Consul and nothing else: they start every server themselves, on
# ports that are free, and use the loopback interface only. What is missing of Debian's packages is installed here.
# A test whose needs are not met fails; none is skipped, but for those of Consul where that can't be had.
set -euo pipefail
cd "$(dirname "$0")"

# need COMMAND PACKAGE: installs a Debian package when its command isn't there.
need() {
    command -v "$1" >/dev/null && return
    echo "test.sh: $1 is missing: installing the package $2" >&2
    command -v apt-get >/dev/null || { echo "test.sh: there is no apt-get: please install $1" >&2; exit 1; }
    local as_root=()
    if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
    if [ -z "${updated:-}" ]; then
        "${as_root[@]}" apt-get update -qq
        updated=1
    fi
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$2" >/dev/null
    command -v "$1" >/dev/null || { echo "test.sh: the package $2 brought no $1" >&2; exit 1; }
}

need cc gcc    # aws-lc-rs and jemalloc are compiled from C
need make make # jemalloc's build
need curl curl # the sessions that the documents show
need valgrind valgrind # counts what a request costs
need python3 python3 # runs the client of docs/registry.md
need etcd etcd-server  # a source of instances
command -v cargo >/dev/null || { echo "test.sh: cargo is missing: please install Rust" >&2; exit 1; }

# Consul is a source of instances too, but no package of today's Debian.
without_consul() {
    echo "!!! CONSUL CAN'T BE HAD (SET GATEHOUSE_CONSUL TO WHERE IT IS): ITS TESTS SAY NOTHING !!!" >&2
}
if [ -z "${GATEHOUSE_CONSUL:-}" ] && ! GATEHOUSE_CONSUL=$(command -v consul || tests/consul.sh target/consul); then
    without_consul
    export GATEHOUSE_WITHOUT_CONSUL=1
    trap without_consul EXIT
else
    GATEHOUSE_CONSUL=$(realpath "$GATEHOUSE_CONSUL")
    export GATEHOUSE_CONSUL
fi

cargo test --locked --no-fail-fast "$@"
# Its counts are of a release build, which takes some minutes; whoever asks for certain tests doesn't wait for it.
if [ $# = 0 ]; then cargo test --locked --test cost; fi
