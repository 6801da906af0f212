#!/usr/bin/env bash
# A service that gets three times the requests that it can do, behind Gatehouse with `concurrency: { max: adaptive }` and, as far as
# they are installed, other proxies: how much gets done, and how long it takes. Prints a table in Markdown.
#
#   benches/overload.sh
#   OVERLOAD=5 LENGTH=60 PATIENCE=1 benches/overload.sh
#   GATEHOUSE=path/to/gatehouse benches/overload.sh    instead of a release build of what is here
#   ENVOY=path/to/envoy benches/overload.sh            where it is not in the path
#
# nginx and HAProxy have their usual settings, which limit nothing, and once more a limit of twice the requests that the service works on at a
# time, which has to be known; Envoy has its adaptive concurrency filter. It needs python3, and of Debian's packages nginx-light, haproxy.
set -euo pipefail
cd "$(dirname "$0")/.."
ulimit -n 16384 2>/dev/null || true

ENVOY=${ENVOY:-envoy}
if [ -z "${GATEHOUSE:-}" ]; then
    cargo build --release --locked --quiet
    GATEHOUSE=$PWD/target/release/gatehouse
fi
work=$(mktemp -d)
chmod 755 "$work"
trap 'wait; rm -rf "$work"' EXIT
base=$((20000 + RANDOM % 10000))
service=$((base + 1))
http=$((base + 2))
limit=16

configure_gatehouse() {
    cat >"$work/gatehouse.yaml" <<YAML
workers: 2
listeners: [{ name: http, bind: '127.0.0.1:$http' }]
observability: { access_log: { output: off } }
services: { api: { instances: ['http://127.0.0.1:$service'], concurrency: { max: adaptive } } }
routes: [{ name: api, match: { prefix: / }, forward: { service: api } }]
YAML
    command=("$GATEHOUSE" run -c "$work/gatehouse.yaml")
}

# With a number: at most so many connections at a time, and a 503 for the others.
configure_nginx() {
    local limits=
    [ -z "$1" ] || limits="limit_conn all $1;"
    cat >"$work/nginx.conf" <<CONF
daemon off; worker_processes 2; pid $work/nginx.pid; error_log /dev/null crit; worker_rlimit_nofile 16384;
events { worker_connections 8000; }
http {
  access_log off;
  client_body_temp_path $work/nginx-body; proxy_temp_path $work/nginx-proxy; fastcgi_temp_path $work/nginx-fastcgi;
  uwsgi_temp_path $work/nginx-uwsgi; scgi_temp_path $work/nginx-scgi;
  limit_conn_zone \$server_name zone=all:1m;
  upstream api { server 127.0.0.1:$service; keepalive 128; }
  server {
    listen 127.0.0.1:$http backlog=4096; server_name all; $limits
    location / { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
CONF
    command=(nginx -p "$work" -c "$work/nginx.conf")
}

# With a number: at most so many requests at a time, and a short wait for the others.
configure_haproxy() {
    local limits='' queue=
    [ -z "$1" ] || limits="maxconn $1" queue="timeout queue 100ms"
    cat >"$work/haproxy.cfg" <<CONF
global
  nbthread 2
  maxconn 7000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
frontend all
  bind 127.0.0.1:$http
  default_backend api
backend api
  $queue
  server one 127.0.0.1:$service $limits
CONF
    command=(haproxy -db -f "$work/haproxy.cfg")
}

configure_envoy() {
    cat >"$work/envoy.yaml" <<YAML
static_resources:
  listeners:
  - name: http
    address: { socket_address: { address: 127.0.0.1, port_value: $http } }
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          http_filters:
          - name: adaptive
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency
              gradient_controller_config:
                sample_aggregate_percentile: { value: 90 }
                concurrency_limit_params: { concurrency_update_interval: 0.1s }
                min_rtt_calc_params: { interval: 60s, request_count: 50, jitter: { value: 10 } }
          - { name: router, typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }
          route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [{ match: { prefix: / }, route: { cluster: api } }] }] }
  clusters:
  - name: api
    type: STATIC
    connect_timeout: 1s
    circuit_breakers: { thresholds: [{ max_connections: 7000, max_pending_requests: 7000, max_requests: 7000 }] }
    load_assignment: { cluster_name: api, endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: $service } } } }] }] }
YAML
    command=("$ENVOY" -c "$work/envoy.yaml" --concurrency 2 --disable-hot-restart -l error)
}

measure() {
    "configure_$1" "$2"
    if ! measured=$(python3 benches/overload/run.py "$http" "$service" "$work/log" -- "${command[@]}"); then
        tail -n 5 "$work/log" >&2
        exit 1
    fi
    echo "| $1$3 | ${measured//$'\t'/ | } |"
}

echo "| proxy | usual p99 ms | good answers, % of capacity | p50 ms | p99 ms | p99, times the usual |"
echo "|---|---|---|---|---|---|"
measure gatehouse "" ", adaptive"
for proxy in nginx haproxy; do
    command -v $proxy >/dev/null || continue
    measure $proxy "" ""
    measure $proxy $limit ", limit of $limit"
done
! command -v "$ENVOY" >/dev/null || measure envoy "" ", adaptive"
