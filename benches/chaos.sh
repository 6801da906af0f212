#!/usr/bin/env bash
# Gatehouse beside nginx and HAProxy, as far as they are installed, in front of three instances that fail in turn: which
# requests fail, how long they take, and how often instances are asked. Prints a table in Markdown.
#
#   benches/chaos.sh [FAULT…]      kill stop slow cut mix; all of them without arguments
#   RATE=500 ROUNDS=12 benches/chaos.sh stop
#   GATEHOUSE=path/to/gatehouse benches/chaos.sh    instead of a release build of what is here
#
# All have the same job: GETs, at most three attempts, one second to connect, five for an answer, and, where the proxy can, a
# health check every second. The rest is what each has by default. It needs python3, and of Debian's packages nginx-light, haproxy.
set -euo pipefail
cd "$(dirname "$0")/.."

faults=("$@")
[ $# -gt 0 ] || faults=(kill stop slow cut mix)
proxies=(gatehouse)
for proxy in nginx haproxy; do if command -v $proxy >/dev/null; then proxies+=("$proxy"); fi; done
command -v python3 >/dev/null || { echo "chaos.sh: python3 is missing" >&2; exit 1; }

if [ -z "${GATEHOUSE:-}" ]; then
    cargo build --release --locked --quiet
    GATEHOUSE=$PWD/target/release/gatehouse
fi
work=$(mktemp -d)
proxy_pid=
stop_all() {
    if [ -n "$proxy_pid" ]; then kill "$proxy_pid" 2>/dev/null || true; fi
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap stop_all EXIT

base=$((20000 + RANDOM % 10000))
ports=($((base + 1)) $((base + 2)) $((base + 3)))
http=$((base + 10))

configure_gatehouse() {
    cat >"$work/gatehouse.yaml" <<YAML
workers: 2
listeners: [{ name: http, bind: '127.0.0.1:$http' }]
observability: { access_log: { output: off } }
services:
  api:
    instances: [$(printf "'http://127.0.0.1:%s', " "${ports[@]}")]
    health_check: { path: /health, interval: 1s }
    timeouts: { connect: 1s, response: 5s }
    retries: { attempts: 2 }
routes: [{ name: api, match: { prefix: / }, forward: { service: api } }]
YAML
    command=("$GATEHOUSE" run -c "$work/gatehouse.yaml")
}

# It has no health checks; an instance that failed is left alone for a while.
configure_nginx() {
    cat >"$work/nginx.conf" <<CONF
daemon off; worker_processes 2; pid $work/nginx.pid; error_log /dev/null crit;
events { worker_connections 4000; }
http {
  access_log off;
  client_body_temp_path $work/nginx-body; proxy_temp_path $work/nginx-proxy; fastcgi_temp_path $work/nginx-fastcgi;
  uwsgi_temp_path $work/nginx-uwsgi; scgi_temp_path $work/nginx-scgi;
  upstream api { zone api 256k; $(printf 'server 127.0.0.1:%s max_fails=3 fail_timeout=5s; ' "${ports[@]}") keepalive 128; }
  server {
    listen 127.0.0.1:$http;
    location / {
      proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_connect_timeout 1s; proxy_read_timeout 5s;
      proxy_next_upstream error timeout http_502 http_503 http_504; proxy_next_upstream_tries 3;
    }
  }
}
CONF
    command=(nginx -p "$work" -c "$work/nginx.conf")
}

configure_haproxy() {
    cat >"$work/haproxy.cfg" <<CONF
global
  nbthread 2
  maxconn 4000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 5s
  timeout check 1s
  retries 2
  option redispatch 1
  retry-on conn-failure empty-response response-timeout junk-response 502 503 504
frontend all
  bind 127.0.0.1:$http
  default_backend api
backend api
  balance roundrobin
  option httpchk GET /health
  default-server check inter 1s fall 3 rise 2 observe layer7 error-limit 5 on-error mark-down
$(n=0; for port in "${ports[@]}"; do n=$((n + 1)); echo "  server s$n 127.0.0.1:$port"; done)
CONF
    command=(haproxy -db -f "$work/haproxy.cfg")
}

echo "| fault | proxy | requests | failed | p50 ms | p99 ms | longest ms | attempts a request |"
echo "|---|---|---|---|---|---|---|---|"
for fault in "${faults[@]}"; do
    for proxy in "${proxies[@]}"; do
        "configure_$proxy"
        "${command[@]}" >/dev/null 2>"$work/log" &
        proxy_pid=$!
        if ! measured=$(python3 benches/chaos/run.py "$fault" "$http" "$work" "${ports[@]}"); then
            tail -n 5 "$work/log" >&2
            exit 1
        fi
        echo "| $fault | $proxy | ${measured//$'\t'/ | } |"
        kill "$proxy_pid"
        wait "$proxy_pid" 2>/dev/null || true
        proxy_pid=
    done
done
