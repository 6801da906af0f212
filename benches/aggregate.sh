#!/usr/bin/env bash
# What an aggregate costs beside the same calls proxied one by one, in processor time, and how much later it answers than
# its slowest part: with two, five and twenty parts. Prints tables in Markdown.
#
#   benches/aggregate.sh [TABLE…]      cpu latency; both without arguments
#   ROUNDS=15 SECONDS_EACH=2 benches/aggregate.sh
#   GATEHOUSE=path/to/gatehouse benches/aggregate.sh      # one that is built already
#
# The gateway has one worker on the first core; load (wrk) and origins share the second. Every round measures everything once, in
# turn, so that what is compared was measured side by side; shown are the medians over the rounds of the ratio and of the difference within
# each. It needs two idle cores, and of Debian's packages: wrk python3. Where others use them as well, `chrt -f 1 benches/aggregate.sh latency`
# has the better of them; processor times bear it.
set -euo pipefail
cd "$(dirname "$0")/.."

export LC_ALL=C
rounds=${ROUNDS:-9}
seconds=${SECONDS_EACH:-2}
connections=${CONNECTIONS:-8}
tables=" ${*:-cpu latency} "
. benches/setup.sh wrk taskset python3

base=$((20000 + RANDOM % 20000))
fast=$base slow=$((base + 1)) http=$((base + 2))
counts=(2 5 20)

# The answer of every part: what a user or an order looks like, 300 bytes of JSON.
cat >"$work/origin.yaml" <<YAML
workers: 1
listeners: [{ name: http, bind: '127.0.0.1:$fast', limits: { idle_timeout: 600s } }]
observability: { access_log: { output: off } }
routes:
  - name: all
    match: { prefix: / }
    respond:
      json: { id: 4711, name: Ada Lovelace, email: ada@example.com, active: true, roles: [admin, author],
              address: { street: "12 St James's Square", city: London, country: GB, postcode: SW1Y 4JH },
              created: "2026-11-22T08:31:00Z", balance: 1204.50, tags: [early, mathematics], note: "the first of her kind" }
YAML
taskset -c 1 "$gatehouse" run -c "$work/origin.yaml" 2>"$work/origin.log" &
started+=($!)

# Answers after exactly five milliseconds: they are waited for with the clock, not slept through.
cat >"$work/slow.py" <<'PY'
import asyncio, sys, time
async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            due = time.perf_counter() + 0.005
            await asyncio.sleep(0.0035)
            while time.perf_counter() < due: pass
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{\"slow\":1}")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server: await server.serve_forever()
asyncio.run(main())
PY
taskset -c 1 python3 "$work/slow.py" $slow &
started+=($!)

{
    cat <<YAML
workers: 1
listeners: [{ name: http, bind: '127.0.0.1:$http', limits: { idle_timeout: 600s } }]
observability: { access_log: { output: off } }
services:
  fast: { instances: ['http://127.0.0.1:$fast'] }
  slow: { instances: ['http://127.0.0.1:$slow'] }
routes:
  - { name: one, match: { path: '/one/{id}' }, forward: { service: fast, rewrite: '/users/{id}' } }
  - { name: late, match: { path: '/late/{id}' }, forward: { service: slow } }
YAML
    for count in "${counts[@]}"; do
        for kind in all late; do
            echo "  - name: $kind-$count"
            echo "    match: { path: '/$kind/$count/{id}' }"
            echo "    aggregate:"
            echo "      parts:"
            for ((part = 1; part <= count; part++)); do
                service=fast
                [ $kind-$part != late-1 ] || service=slow
                echo "        p$part: { service: $service, path: '/users/{id}' }"
            done
        done
    done
} >"$work/gateway.yaml"
taskset -c 0 "$gatehouse" run -c "$work/gateway.yaml" 2>"$work/gateway.log" &
gateway=$!
started+=($gateway)
for _ in $(seq 100); do
    if python3 -c "import socket; [socket.create_connection(('127.0.0.1', p)).close() for p in ($fast, $slow, $http)]" \
        2>/dev/null; then break; fi
    sleep 0.1
done

ticks() { awk '{ print $14 + $15 }' "/proc/$gateway/stat"; }
hz=$(getconf CLK_TCK)

# load CONNECTIONS SECONDS URL: microseconds of the gateway's processor time a request, and its p50 in milliseconds.
load() {
    local before after out
    before=$(ticks)
    out=$(taskset -c 1 wrk -t1 -c"$1" -d"$2"s --latency "$3")
    after=$(ticks)
    if grep -q 'Non-2xx\|Socket errors' <<<"$out"; then echo "aggregate.sh: $3: $out" >&2; exit 1; fi
    awk -v spent=$((after - before)) -v hz="$hz" '
        / requests in / { count = $1 }
        $1 == "50%" { p50 = $2 + 0; if ($2 ~ /us$/) p50 /= 1000; else if ($2 !~ /ms$/) p50 *= 1000 }
        END { printf "%.3f %.4f\n", spent / hz * 1e6 / count, p50 }' <<<"$out"
}

at() { echo "http://127.0.0.1:$1/$2"; }
load "$connections" 1 "$(at $http one/1)" >/dev/null
for count in "${counts[@]}"; do load "$connections" 1 "$(at $http "all/$count/1")" >/dev/null; done
for ((round = 1; round <= rounds; round++)); do
    echo "round 0 0"
    for count in "${counts[@]}"; do
        if [[ $tables == *" cpu "* ]]; then
            echo "one-$count $(load "$connections" "$seconds" "$(at $http one/1)")"
            echo "cpu-$count $(load "$connections" "$seconds" "$(at $http "all/$count/1")")"
        fi
        if [[ $tables == *" latency "* ]]; then
            echo "direct-$count $(load 1 "$seconds" "$(at $slow users/1)")"
            echo "proxied-$count $(load 1 "$seconds" "$(at $http late/1)")"
            echo "late-$count $(load 1 "$seconds" "$(at $http "late/$count/1")")"
        fi
    done
    echo "aggregate.sh: round $round of $rounds" >&2
done >"$work/measured"
[ -z "${KEEP:-}" ] || cp "$work/measured" "$KEEP"

echo "$(date +%F), $(nproc) processors, Linux $(uname -r), $rounds rounds of $seconds s, $connections connections"
echo
python3 - "$work/measured" "${counts[@]}" <<'PY'
import statistics, sys
rounds = []
for line in open(sys.argv[1]):
    name, cpu, p50 = line.split()
    if name == "round": rounds.append({})
    else: rounds[-1][name] = (float(cpu), float(p50))
median = lambda values: statistics.median(list(values))
each = lambda kind, count, what: [r[f"{kind}-{count}"][what] for r in rounds]
if "one-" + sys.argv[2] in rounds[0]:
    print("| parts | processor time of the aggregate | of the same calls proxied one by one | ratio |")
    print("|---|---|---|---|")
    for count in sys.argv[2:]:
        ones = [cpu * int(count) for cpu in each("one", count, 0)]
        cpus = each("cpu", count, 0)
        ratio = median(cpu / one for cpu, one in zip(cpus, ones))
        print(f"| {count} | {median(cpus):.0f} µs | {median(ones):.0f} µs | {ratio:.2f} |")
    print()
if "late-" + sys.argv[2] in rounds[0]:
    print("| parts | an aggregate comes later than its slowest part, p50 | a forwarded call than the same |")
    print("|---|---|---|")
    for count in sys.argv[2:]:
        direct = each("direct", count, 1)
        added = median(late - plain for late, plain in zip(each("late", count, 1), direct))
        proxied = median(late - plain for late, plain in zip(each("proxied", count, 1), direct))
        print(f"| {count} | {added:.2f} ms | {proxied:.2f} ms |")
PY
