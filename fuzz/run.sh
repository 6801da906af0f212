#!/usr/bin/env bash
# Runs every fuzz target for some seconds (default: 10 each), with a stable compiler: coverage is what libFuzzer goes by, and
# the sanitizers, which need a nightly one, have little to find in code without `unsafe`.
#
#   fuzz/run.sh [SECONDS] [TARGET...]
#
# Inputs that were found interesting are kept in the build folder and read again by the next run; one that makes a target fail
# is written to fuzz/artifacts/TARGET.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-10}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

build=${CARGO_TARGET_DIR:-../target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cp ../Cargo.lock Cargo.lock
# With a target of its own, so that build scripts and macros are built without the instrumentation.
RUSTFLAGS=${coverage//$'\n'/ } cargo build --release --target "$host" --target-dir "$build"

for target in "${targets[@]}"; do
    found=$build/found/$target
    mkdir -p "$found" "artifacts/$target"
    seeds=()
    if [ -d "corpus/$target" ]; then seeds+=("corpus/$target"); fi
    echo "$target: $seconds s"
    "$build/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" "$found" "${seeds[@]}" 2>&1 | tail -n 8
    rmdir --ignore-fail-on-non-empty "artifacts/$target"
done
rmdir --ignore-fail-on-non-empty artifacts
