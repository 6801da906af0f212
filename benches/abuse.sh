#!/usr/bin/env bash
# Clients that are slow on purpose, in front of them one that isn't: slowhttptest in its four modes (heads, bodies, ranges, reading),
# a thousand connections each, while a well-behaved client keeps asking. Tells how many of its requests failed, and how much memory the
# gateway came to. Prints a table in Markdown.
#
#   benches/abuse.sh [MODE…]       heads bodies ranges reading; all of them without arguments
#   CONNECTIONS=300 SECONDS_EACH=10 benches/abuse.sh reading
#   GATEHOUSE=path/to/gatehouse benches/abuse.sh    instead of a release build of what is here
#
# It needs python3, and of Debian's packages slowhttptest and nginx-light (the service behind). Floods of frames are tests: tests/front_door/abuse.
set -euo pipefail
cd "$(dirname "$0")/.."

modes=("$@")
[ $# -gt 0 ] || modes=(heads bodies ranges reading)
connections=${CONNECTIONS:-1000}
seconds=${SECONDS_EACH:-20}
. benches/setup.sh python3 nginx slowhttptest

base=$((20000 + RANDOM % 10000))
origin=$base
http=$((base + 1))
mkdir "$work/www"
chmod 755 "$work" "$work/www"
printf ok >"$work/www/small"
head -c 2000000 /dev/zero >"$work/www/big"
cat >"$work/nginx.conf" <<CONF
daemon off; worker_processes 1; pid $work/pid; error_log $work/error.log;
events { worker_connections 8192; }
http {
    access_log off; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi; uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
    server { listen 127.0.0.1:$origin backlog=4096; root $work/www; error_page 405 =200 /small; }
}
CONF
cat >"$work/gateway.yaml" <<YAML
listeners:
  - name: http
    bind: 127.0.0.1:$http
    limits: { header_timeout: 5s, idle_timeout: 5s, min_upload_rate: 1KiB/s, min_download_rate: 1KiB/s }
services: { files: { instances: ["http://127.0.0.1:$origin"], pool: { max_connections: 4096 } } }
routes: [{ name: files, match: { prefix: / }, forward: { service: files } }]
YAML
nginx -c "$work/nginx.conf" 2>/dev/null &
started+=($!)
"$gatehouse" run -c "$work/gateway.yaml" >"$work/log" 2>&1 &
gateway=$!
started+=("$gateway")

declare -A arguments=(
    [heads]="-H -i 1 -t GET -x 24"
    [bodies]="-B -i 1 -t POST -s 8192 -x 10"
    [ranges]="-R -a 10 -b 3000 -t HEAD"
    [reading]="-X -w 10 -y 20 -n 1 -z 32 -k 1"
)
echo "| slow in | connections | requests of the good client | failed | slowest | memory |"
echo "|---|---|---|---|---|---|"
failed=0
for mode in "${modes[@]}"; do
    python3 benches/abuse/client.py "$http" "$seconds" >"$work/good" &
    good=$!
    # shellcheck disable=SC2086 # they are words
    slowhttptest -c "$connections" -r 300 -l "$seconds" -p 5 -u "http://127.0.0.1:$http/big" \
        ${arguments[$mode]} >"$work/slow" 2>&1 || true
    wait "$good" || failed=1
    memory=$(awk '/VmHWM/ { printf "%d MiB", $2 / 1024 }' "/proc/$gateway/status")
    echo "| $mode | $connections | $(cat "$work/good") | $memory |"
done
exit $failed
