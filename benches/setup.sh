# Read by the benches, in the project's directory: what they need is there, the gateway is built, and what they start ends with them.
#
#   . benches/setup.sh TOOL…
for tool in "$@"; do
    command -v "$tool" >/dev/null || { echo "$(basename "$0"): $tool is missing" >&2; exit 1; }
done

# The gateway to measure: that of GATEHOUSE, or else a release build of what is here.
gatehouse=${GATEHOUSE:-}
if [ -z "$gatehouse" ]; then
    cargo build --release --locked --quiet
    gatehouse=$PWD/target/release/gatehouse
fi

work=$(mktemp -d)
# The ids of the processes that were started.
started=()
stop_all() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop_all EXIT
