#!/usr/bin/env bash
# How the cost of a request changes with the number of routes, instances, rate-limit keys, connections and workers:
# instructions under valgrind, processor time and throughput under wrk, and what it takes to start with many routes.
# Prints tables in Markdown, and takes about ten minutes.
#
#   benches/scale.sh [TABLES…]      counts times starts; all of them without arguments
#
# It needs Rust, and of Debian's packages: valgrind wrk util-linux. The processor times want two idle cores; where there
# are more than two, gateway and load don't share any.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in cargo valgrind callgrind_control wrk taskset; do
    command -v "$tool" >/dev/null || { echo "scale.sh: $tool is missing" >&2; exit 1; }
done
# Ten thousand connections have two ends each. Who may not raise the limit gets as many as it allows.
ulimit -n 40000 2>/dev/null || ulimit -n "$(ulimit -Hn)"

echo "$(date +%F), $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo), $(nproc) processors," \
    "Linux $(uname -r), $(ulimit -n) descriptors"
cargo test --locked --quiet --test cost -- "${@:-scale}"
