#!/usr/bin/env bash
# Makes the development certificate and token keys of this directory anew. They are harmless: everyone has
# them, so they protect nothing. Never use them where it matters.
set -euo pipefail
cd "$(dirname "$0")"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -subj "/CN=localhost" -addext "subjectAltName=DNS:localhost,DNS:*.localhost,IP:127.0.0.1,IP:::1" \
    -addext "extendedKeyUsage=serverAuth" -keyout localhost.key -out localhost.crt

openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out jwt.key
openssl pkey -in jwt.key -pubout -out jwt.pub
