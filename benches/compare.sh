#!/usr/bin/env bash
# Gatehouse beside nginx and HAProxy, as far as they are installed, on the same work: what a request costs each of
# them in processor time. Prints a table in Markdown.
#
#   benches/compare.sh [SCENARIO…]      plain full tls h2 conn; all of them without arguments
#   ROUNDS=7 SECONDS_EACH=3 benches/compare.sh plain
#
# Each proxy has one worker on the first core; the load generators (wrk, and h2load for h2) and three origins share the
# second. Rounds alternate between the proxies, and medians are shown. Less than about 15 % apart in a short run is a
# tie. It needs two idle cores, and of Debian's packages: wrk nghttp2-client openssl, nginx-light, haproxy.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-3}
scenarios=("${@:-plain}")
[ $# -gt 0 ] || scenarios=(plain full tls h2 conn)
proxies=(gatehouse)
for proxy in nginx haproxy; do if command -v $proxy >/dev/null; then proxies+=("$proxy"); fi; done
. benches/setup.sh wrk taskset openssl

secret=a-secret-for-comparisons-of-more-than-32-bytes
base=$((20000 + RANDOM % 20000))
origin_ports=($((base + 1)) $((base + 2)) $((base + 3)))
http=$((base + 10)) https=$((base + 11))

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout "$work/key.pem" -out "$work/cert.pem" \
    2>/dev/null
cat "$work/cert.pem" "$work/key.pem" >"$work/both.pem"

# Origins that answer at once: the gateway itself, with a route that needs no service.
origins() {
    local port
    for port in "${origin_ports[@]}"; do
        cat >"$work/origin-$port.yaml" <<YAML
workers: 1
listeners: [{ name: http, bind: '127.0.0.1:$port', limits: { idle_timeout: 600s } }]
observability: { access_log: { output: off } }
routes:
  - name: all
    match: { prefix: / }
    respond: { status: 200, json: { id: 1, name: Ada, roles: [admin, author] } }
YAML
        taskset -c 1 "$gatehouse" run -c "$work/origin-$port.yaml" 2>"$work/origin.log" &
        started+=($!)
    done
    for port in "${origin_ports[@]}"; do await "$port"; done
}

await() {
    local _
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo "compare.sh: nothing listens on port $1" >&2
    tail -n 5 "$work/log" "$work/origin.log" >&2 2>/dev/null || true
    exit 1
}

configure_gatehouse() { # SCENARIO
    local policies='' more=''
    if [ "$1" = full ]; then
        policies='authenticate: { with: [all] }, rate_limits: [per-client], '
        more="authenticators: { all: { jwt: { issuer: compare, algorithms: [HS256], keys: [{ secret: $secret }], claim_headers: { sub: x-user-id } } } }
rate_limits: { per-client: { key: 'claim:sub', rate: 1000000/s, burst: 1000000 } }"
    fi
    cat >"$work/gatehouse.yaml" <<YAML
workers: 1
listeners:
  - { name: http, bind: '127.0.0.1:$http', limits: { idle_timeout: 600s } }
  - name: https
    bind: '127.0.0.1:$https'
    tls: { certificates: [{ certificate: $work/cert.pem, private_key: $work/key.pem }] }
observability: { access_log: { output: off } }
services: { api: { instances: [$(printf "'http://127.0.0.1:%s', " "${origin_ports[@]}")] } }
routes: [{ name: api, match: { prefix: /api }, ${policies}forward: { service: api } }]
$more
YAML
    command=("$gatehouse" run -c "$work/gatehouse.yaml")
}

configure_nginx() {
    # The packaged one verifies no tokens.
    [ "$1" != full ] || return 1
    cat >"$work/nginx.conf" <<CONF
daemon off; worker_processes 1; pid $work/nginx.pid; error_log stderr crit;
events { worker_connections 16000; }
http {
  access_log off; keepalive_timeout 600s; keepalive_requests 1000000000; server_tokens off;
  client_body_temp_path $work/nginx-body; proxy_temp_path $work/nginx-proxy; fastcgi_temp_path $work/nginx-fastcgi;
  uwsgi_temp_path $work/nginx-uwsgi; scgi_temp_path $work/nginx-scgi;
  upstream api { $(printf 'server 127.0.0.1:%s; ' "${origin_ports[@]}") keepalive 128; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$http; listen 127.0.0.1:$https ssl http2;
    ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem;
    location /api { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host \$host;
      proxy_set_header X-Forwarded-For \$remote_addr; proxy_set_header X-Request-Id \$request_id; }
  }
}
CONF
    command=(nginx -p "$work" -c "$work/nginx.conf")
}

configure_haproxy() {
    local policies=''
    if [ "$1" = full ]; then
        policies="http-request set-var(txn.token) http_auth_bearer
  http-request deny deny_status 401 unless { var(txn.token),jwt_verify(HS256,\"$secret\") 1 }
  http-request set-header x-user-id %[var(txn.token),jwt_payload_query('\$.sub')]
  http-request track-sc0 hdr(x-user-id) table limits
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }"
    fi
    cat >"$work/haproxy.cfg" <<CONF
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 60s
  timeout http-keep-alive 600s
backend limits
  stick-table type string len 32 size 100k expire 10m store http_req_rate(1s)
frontend all
  bind 127.0.0.1:$http
  bind 127.0.0.1:$https ssl crt $work/both.pem alpn h2,http/1.1
  unique-id-format %{+X}o%ci%cp%Ts%rt
  unique-id-header x-request-id
  option forwardfor
  $policies
  default_backend api
backend api
  balance roundrobin
  http-reuse always
$(for port in "${origin_ports[@]}"; do echo "  server s$port 127.0.0.1:$port"; done)
CONF
    command=(haproxy -db -f "$work/haproxy.cfg")
}

# Processor time of a process and its children so far, in clock ticks.
ticks() {
    local pid total=0 stat
    for pid in "$1" $(pgrep -P "$1"); do
        stat=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
        stat=${stat##*) }
        # shellcheck disable=SC2086 # words are what is wanted
        set -- $stat
        total=$((total + ${12} + ${13}))
    done
    echo "$total"
}

# Prints how many requests were answered with 200 in the time.
load() { # SCENARIO
    local header=()
    [ "$1" != full ] || header=(-H "Authorization: Bearer $token")
    [ "$1" != conn ] || header=(-H "Connection: close")
    case $1 in
    h2)
        taskset -c 1 h2load -c8 -m8 -D "$seconds" --warm-up-time=0 "https://127.0.0.1:$https/api/users/1" |
            awk '/^status codes:/ { print $3 }'
        ;;
    tls) wrk_to "https://127.0.0.1:$https/api/users/1" ;;
    *) wrk_to "http://127.0.0.1:$http/api/users/1" "${header[@]}" ;;
    esac
}

wrk_to() {
    taskset -c 1 wrk -t1 -c64 -d "${seconds}s" "${@:2}" "$1" |
        awk '/requests in/ { answered = $1 } /Non-2xx|Socket errors/ { wrong = 1 } END { print wrong ? 0 : answered }'
}

# Microseconds of processor time a request, or nothing when the proxy can't do the scenario.
measure() { # PROXY SCENARIO
    local pid before after answered
    "configure_$1" "$2" || return 0
    taskset -c 0 "${command[@]}" >"$work/log" 2>&1 &
    pid=$!
    started+=("$pid")
    await "$http"
    seconds=1 load "$2" >/dev/null
    before=$(ticks "$pid")
    answered=$(load "$2")
    after=$(ticks "$pid")
    kill "$pid"
    wait "$pid" 2>/dev/null || true
    [ "${answered%,}" != 0 ] || { echo "compare.sh: $1 answered wrongly in $2" >&2; return 0; }
    awk -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" -v answered="${answered%,}" \
        'BEGIN { printf "%.2f\n", ticks / hertz * 1e6 / answered }'
}

median() { sort -n | awk '{ value[NR] = $1 } END { if (NR) printf "%.1f", value[int((NR + 1) / 2)]; else printf "–" }'; }

token=$("$gatehouse" token --secret "$secret" --claim iss=compare --sub user-1 --expires-in 1h 2>/dev/null | tail -1) || token=''
origins
echo "$(date +%F), $(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo), $rounds rounds of ${seconds}s;" \
    "$("$gatehouse" --version)$(command -v nginx >/dev/null && nginx -v 2>&1 | sed 's/.*nginx\//, nginx /')$(command -v haproxy >/dev/null && haproxy -v | awk 'NR == 1 { print ", HAProxy " $3 }')"
echo
echo "| µs of processor time a request | $(printf '%s | ' "${proxies[@]}")"
echo "|---|$(printf -- '---|%.0s' "${proxies[@]}")"
for scenario in "${scenarios[@]}"; do
    if [ "$scenario" = h2 ] && ! command -v h2load >/dev/null; then
        echo "compare.sh: h2load is missing: h2 is left out" >&2
        continue
    fi
    for _ in $(seq "$rounds"); do
        for proxy in "${proxies[@]}"; do measure "$proxy" "$scenario" >>"$work/$scenario.$proxy"; done
    done
    echo "| $scenario | $(for proxy in "${proxies[@]}"; do printf '%s | ' "$(median <"$work/$scenario.$proxy")"; done)"
done
