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

# What clients may show: an authority, a certificate of it, and a list of what it has revoked.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Gatehouse development clients" \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout client-ca.key -out client-ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=orders" -keyout client.key -out client.csr
openssl x509 -req -in client.csr -CA client-ca.crt -CAkey client-ca.key -days 3650 -out client.crt \
    -extfile <(printf 'subjectAltName=URI:spiffe://shop/orders\nextendedKeyUsage=clientAuth\n')
work=$(mktemp -d)
touch "$work/index.txt"
echo 1000 >"$work/number"
cat >"$work/ca.conf" <<CONF
[ca]
default_ca = it
[it]
database = $work/index.txt
crlnumber = $work/number
crl_extensions = extensions
default_md = sha256
default_crl_days = 3650
[extensions]
authorityKeyIdentifier = keyid:always
CONF
openssl ca -config "$work/ca.conf" -gencrl -cert client-ca.crt -keyfile client-ca.key -out client-ca.crl

# What the issuer of localhost.crt, which is itself, says about it.
printf 'V\t%s\t\t%s\tunknown\t/CN=localhost\n' "$(openssl x509 -in localhost.crt -noout -enddate -dateopt iso_8601 | sed 's/notAfter=..//; s/[-: ]//g')" \
    "$(openssl x509 -in localhost.crt -noout -serial | sed 's/serial=//')" >"$work/index.txt"
openssl ocsp -index "$work/index.txt" -CA localhost.crt -rsigner localhost.crt -rkey localhost.key \
    -issuer localhost.crt -cert localhost.crt -ndays 3650 -respout localhost.ocsp
rm -r "$work" client.csr client-ca.key
