#!/usr/bin/env bash
# What memory Gatehouse keeps: for connections that idle, and after minutes of mixed load.
#
#   benches/memory.sh idle      bytes a connection, after one request each: plain, TLS, HTTP/2 over TLS
#   benches/memory.sh load      resident memory each 10 s under some 2,000 requests a second of every kind; fails when
#                               the last minute holds more than the second one
#   benches/memory.sh           both
#
# CONNECTIONS=10000 MINUTES=10 are what it takes without being told; GATEHOUSE names another binary than the release
# build that it would make. Needs Rust, and of Debian's packages: wrk nghttp2-client openssl.
set -euo pipefail
cd "$(dirname "$0")/.."

connections=${CONNECTIONS:-10000}
minutes=${MINUTES:-10}
[ "$minutes" -ge 3 ] || { echo "memory.sh: MINUTES is at least 3, for the second one is compared with the last" >&2; exit 1; }
. benches/setup.sh wrk h2load openssl rustc
gateway=''

base=$((20000 + RANDOM % 10000))
http=$base https=$((base + 1)) origins=($((base + 2)) $((base + 3)))
secret=a-secret-for-comparisons-of-more-than-32-bytes

configure() { # NUMBER: what a reload changes
    cat >"$work/new.yaml" <<YAML
workers: 1
listeners:
  - { name: http, bind: '127.0.0.1:$http', limits: &limits { idle_timeout: 600s, header_timeout: 60s } }
  - name: https
    bind: '127.0.0.1:$https'
    limits: *limits
    tls: { certificates: [{ certificate: $work/cert.pem, private_key: $work/key.pem }] }
observability: { access_log: { output: /dev/null } }
services: { api: { instances: ['http://127.0.0.1:${origins[0]}', 'http://127.0.0.1:${origins[1]}'] } }
authenticators: { all: { jwt: { issuer: memory, algorithms: [HS256], keys: [{ secret: $secret }], claim_headers: { sub: x-user-id } } } }
rate_limits: { each: { key: 'header:x-caller', rate: 1000/s, burst: $((1000 + $1)) } }
routes:
  - { name: private, match: { prefix: /private }, authenticate: { with: [all] }, forward: { service: api } }
  - { name: limited, match: { prefix: /limited }, rate_limits: [each], forward: { service: api } }
  - { name: all, match: { prefix: / }, response_headers: { set: { x-configuration: "$1" } }, forward: { service: api } }
YAML
    mv "$work/new.yaml" "$work/gatehouse.yaml"
}

await() {
    local _
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo "memory.sh: nothing listens on port $1" >&2
    tail -n 5 "$work/log" >&2 2>/dev/null || true
    exit 1
}

start_gateway() {
    configure 0
    "$gatehouse" run -c "$work/gatehouse.yaml" >"$work/log" 2>&1 &
    gateway=$!
    started+=("$gateway")
    await "$http"
    await "$https"
}

stop_gateway() {
    kill "$gateway"
    wait "$gateway" 2>/dev/null || true
}

resident() { awk '/^VmRSS/ { print $2 }' "/proc/$gateway/status"; } # KiB

background() { # NAME COMMAND…
    "${@:2}" >"$work/$1.out" 2>&1 &
    started+=($!)
}

# --- idle connections ---

# Processor time of the gateway so far, in clock ticks.
ticks() {
    local stat
    stat=$(cat "/proc/$gateway/stat")
    # shellcheck disable=SC2086 # words are what is wanted
    set -- ${stat##*) }
    echo $((${12} + ${13}))
}

# Returns when the gateway has done next to nothing for three seconds.
await_quiet() {
    local before now _
    before=$(ticks)
    for _ in $(seq 40); do
        sleep 3
        now=$(ticks)
        if [ $((now - before)) -le 2 ]; then return; fi
        before=$now
    done
    echo "memory.sh: the gateway does not come to rest" >&2
    exit 1
}

idle() { # KIND
    local before load held _
    start_gateway
    # What the first requests of a process make for all that follow.
    wrk -t1 -c4 -d1s "http://127.0.0.1:$http/" >/dev/null
    wrk -t1 -c4 -d1s "https://127.0.0.1:$https/" >/dev/null
    h2load -c4 -n100 "https://127.0.0.1:$https/" >/dev/null
    sleep 2
    before=$(resident)
    # One request on each connection; the second ones would be due after two minutes.
    local asks=(-c"$connections" -m1 -n$((2 * connections)) --rps 0.008)
    case $1 in
    plain) background idle h2load --h1 "${asks[@]}" "http://127.0.0.1:$http/" ;;
    tls) background idle h2load --h1 "${asks[@]}" "https://127.0.0.1:$https/" ;;
    h2) background idle h2load "${asks[@]}" "https://127.0.0.1:$https/" ;;
    esac
    load=$!
    await_quiet
    held=$(find "/proc/$gateway/fd" -lname 'socket:*' | wc -l)
    [ "$held" -ge "$connections" ] || { echo "memory.sh: only $held sockets are open (see ulimit -n)" >&2; exit 1; }
    # The allocator gives back what a burst of them took within ten seconds.
    sleep 12
    echo "| $1 | $((($(resident) - before) * 1024 / connections)) |"
    kill "$load"
    wait "$load" 2>/dev/null || true
    stop_gateway
}

# --- mixed load ---

# Requests of each connection come every MILLISECONDS.
script() { # NAME MILLISECONDS LUA
    printf 'function delay() return %s end\n%s\n' "$2" "$3" >"$work/$1.lua"
}

load() {
    local seconds=$((minutes * 60)) token second tokens='' _
    for _ in $(seq 20); do
        token=$("$gatehouse" token --secret "$secret" --claim iss=memory --sub "user-$RANDOM" --expires-in 2h 2>/dev/null | tail -1)
        tokens+="'$token', "
    done
    head -c 65536 /dev/zero | tr '\0' x >"$work/body"
    script limited 80 "function request() return wrk.format('GET', '/limited/items', { ['x-caller'] = 'caller-' .. math.random(1000000000) }) end"
    script private 50 "local tokens = { $tokens }
function request() return wrk.format('GET', '/private/items', { Authorization = 'Bearer ' .. tokens[math.random(#tokens)] }) end"
    script kept 50 ''
    script closing 50 "wrk.headers['Connection'] = 'close'"
    script bodies 100 "wrk.method = 'POST'; wrk.body = string.rep('x', 65536); wrk.path = '/large'"

    start_gateway
    local for_long=(-t1 -d"${seconds}s")
    background limited wrk "${for_long[@]}" -c40 -s "$work/limited.lua" "http://127.0.0.1:$http/"
    background private wrk "${for_long[@]}" -c20 -s "$work/private.lua" "https://127.0.0.1:$https/"
    background kept wrk "${for_long[@]}" -c10 -s "$work/kept.lua" "https://127.0.0.1:$https/"
    background once wrk "${for_long[@]}" -c10 -s "$work/closing.lua" "http://127.0.0.1:$http/"
    background once-tls wrk "${for_long[@]}" -c4 -s "$work/closing.lua" "https://127.0.0.1:$https/"
    background bodies wrk "${for_long[@]}" -c10 -s "$work/bodies.lua" "http://127.0.0.1:$http/"
    background bodies-tls wrk "${for_long[@]}" -c5 -s "$work/bodies.lua" "https://127.0.0.1:$https/"
    background h2 h2load -c10 -m4 --rps 40 -D "$seconds" "https://127.0.0.1:$https/"
    background h2-bodies h2load -c2 -m4 --rps 25 -D "$seconds" -d "$work/body" "https://127.0.0.1:$https/large"

    : >"$work/samples"
    echo "| after | resident KiB |"
    echo "|---|---|"
    for second in $(seq 10 10 $((seconds - 5))); do
        sleep 10
        echo "$second $(resident)" >>"$work/samples"
        tail -1 "$work/samples" | awk '{ print "| " $1 " s | " $2 " |" }'
        if [ $((second % 60)) = 0 ]; then
            configure "$((second / 60))"
            kill -HUP "$gateway"
        fi
    done
    sleep 10
    judge "$seconds"
}

# What was answered wrongly, and whether the last minute holds more than the second one.
judge() { # SECONDS
    local file wrong=0
    for file in limited private kept once once-tls bodies bodies-tls; do
        awk -v name="$file" '/requests in/ { print name ": " $1 " requests" }' "$work/$file.out"
        if grep -E 'Non-2xx|Socket errors' "$work/$file.out"; then wrong=1; fi
    done
    for file in h2 h2-bodies; do
        awk -v name="$file" '/^requests:/ { print name ": " $8 " requests" }' "$work/$file.out"
        if grep -E '[1-9][0-9]* (3xx|4xx|5xx)|[1-9][0-9]* errored' "$work/$file.out"; then wrong=1; fi
    done
    [ "$wrong" = 0 ] || { echo "memory.sh: not every request was answered well" >&2; exit 1; }
    # A twentieth and 2 MiB are for what an allocator keeps at one moment and not at another.
    awk -v seconds="$1" '
        $1 > 60 && $1 <= 120 { early += $2; earlies++ }
        $1 > seconds - 70 { late += $2; lates++ }
        END {
            early /= earlies; late /= lates
            printf "on average: %d KiB in the second minute, %d KiB in the last\n", early, late
            exit late > early * 1.05 + 2048
        }' "$work/samples" || { echo "memory.sh: memory has grown" >&2; exit 1; }
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
rustc --edition 2024 -O -o "$work/origin" benches/memory/origin.rs
background origin "$work/origin" "${origins[@]}"
for port in "${origins[@]}"; do await "$port"; done
case ${1:-both} in
idle | both)
    echo "| idle | bytes a connection |"
    echo "|---|---|"
    for kind in plain tls h2; do idle "$kind"; done
    ;;&
load | both) load ;;
esac
