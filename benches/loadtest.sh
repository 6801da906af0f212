#!/usr/bin/env bash
# Whether `gatehouse loadtest` tells the truth: beside wrk at the same server, and at a server whose latencies are known.
# Prints a table in Markdown, and fails when a rate is off by more than 1 % or a percentile by more than 2 %.
#
#   benches/loadtest.sh
#   SECONDS_EACH=10 ROUNDS=5 benches/loadtest.sh
#
# The server has the first core, the load generators the second. It needs an idle machine, and of Debian's packages: wrk python3.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${SECONDS_EACH:-10}
rounds=${ROUNDS:-3}
. benches/setup.sh wrk taskset python3

base=$((20000 + RANDOM % 20000))
fast=$base known=$((base + 1))
cat >"$work/fast.yaml" <<YAML
workers: 1
listeners: [{ name: http, bind: '127.0.0.1:$fast' }]
observability: { access_log: { output: off } }
routes: [{ name: all, match: { prefix: / }, respond: { json: { id: 1 } } }]
YAML
taskset -c 0 "$gatehouse" run -c "$work/fast.yaml" 2>"$work/fast.log" &
started+=($!)

# Of a hundred answers, in turn, seventy-eight take 20 ms, twenty take 50 ms and two 200 ms, so that each percentile that is
# compared lies well within one of these. They are waited for with the clock, not slept through. What the server takes besides, to wake up and to
# write, is measured by a client that does nothing but look: those are the latencies that are known.
cat >"$work/known.py" <<'PY'
import asyncio, sys, time
number = 0
async def serve(reader, writer):
    global number
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            begun = time.perf_counter()
            turn, number = number % 100, number + 1
            due = begun + (0.2 if turn in (49, 99) else 0.05 if turn % 5 == 2 else 0.02)
            await asyncio.sleep(due - begun - 0.001)
            while time.perf_counter() < due:
                await asyncio.sleep(0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()
asyncio.run(main())
PY
taskset -c 0 python3 "$work/known.py" "$known" &
started+=($!)
for port in "$fast" "$known"; do
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.05; done
done

value() { python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); print(eval(sys.argv[2], {"d": d}))' "$1" "$2"; }
failed=0
# line WHAT EXPECTED MEASURED ALLOWED
line() {
    python3 - "$@" <<'PY' || failed=1
import sys
what, expected, measured, allowed = sys.argv[1], *map(float, sys.argv[2:5])
off = (measured / expected - 1) * 100
print(f"| {what} | {expected:.2f} | {measured:.2f} | {off:+.2f} % |")
sys.exit(abs(off) > allowed)
PY
}

echo "| | expected | measured | off by |"
echo "|---|---|---|---|"
cat >"$work/look.py" <<'PY'
import socket, sys, time
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
server.setblocking(False)
took = []
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    server.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    while True:
        try:
            if server.recv(4096):
                break
        except BlockingIOError:
            pass
    took.append((time.perf_counter() - begun) * 1000)
    time.sleep(0.005)
took.sort()
print(*(took[min(len(took) - 1, int(len(took) * share))] for share in (0.5, 0.9, 0.99)))
PY
read -r p50 p90 p99 < <(taskset -c 1 python3 "$work/look.py" "$known" 200)
taskset -c 1 "$gatehouse" loadtest "http://127.0.0.1:$known/" --rate 50 --warmup 1s --duration "${seconds}s" --json \
    >"$work/known.json" 2>/dev/null
line "rate, a second" 50 "$(value "$work/known.json" 'd["rate"]')" 1
line "p50, ms" "$p50" "$(value "$work/known.json" 'd["latency"]["quantiles"]["p50"]["value"]')" 2
line "p90, ms" "$p90" "$(value "$work/known.json" 'd["latency"]["quantiles"]["p90"]["value"]')" 2
line "p99, ms" "$p99" "$(value "$work/known.json" 'd["latency"]["quantiles"]["p99"]["value"]')" 2

# Closed loops, in turn: what one connection sees of a server that answers at once. No verdict: wrk is cheaper for the machine.
echo
echo "| round | wrk, a second | loadtest, a second | wrk, p50 | loadtest, p50 |"
echo "|---|---|---|---|---|"
for round in $(seq "$rounds"); do
    taskset -c 1 wrk -t1 -c8 -d"${seconds}s" --latency "http://127.0.0.1:$fast/" >"$work/wrk.txt"
    taskset -c 1 "$gatehouse" loadtest "http://127.0.0.1:$fast/" --threads 1 --connections 8 --duration "${seconds}s" --json \
        >"$work/fast.json" 2>/dev/null
    echo "| $round | $(awk '/Requests.sec/ { print $2 }' "$work/wrk.txt") | $(value "$work/fast.json" 'round(d["rate"])')" \
        "| $(awk '/ 50%/ { print $2 }' "$work/wrk.txt") | $(value "$work/fast.json" 'round(d["latency"]["quantiles"]["p50"]["value"] * 1000)')us |"
done
exit $failed
