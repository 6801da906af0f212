//! Callers by the names in their certificates.

use rcgen::{CertificateParams, SanType};

use super::clients::{Authority, Shown, showing};
use super::*;
use crate::support::Origin;
use crate::support::tokens::{self, secret_authenticator};

/// A certificate with these names of hosts and this URI.
fn named(authority: &Authority, hosts: &[&str], uri: Option<&str>) -> Shown {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names");
    params.distinguished_name.push(rcgen::DnType::CommonName, "spiffe://shop/admin");
    if let Some(uri) = uri {
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("ASCII")));
    }
    authority.sign(&params)
}

async fn start(authority: &Authority, origin: &Origin) -> (Gateway, Certificate) {
    let directory = tempfile::tempdir().expect("a directory");
    let own = issue(directory.path(), "c", &["a.example"]);
    replace(directory.path(), "ca.crt", &authority.pem());
    // The test's own authenticators follow those of the tokens, in the same block.
    let configuration = format!(
        "listeners:\n\
         \x20 - {{ name: http, bind: \"127.0.0.1:0\", tls: {{ certificates: [{{ certificate: c.crt, private_key: c.key }}], client_certificates: {{ trust: ca.crt, mode: optional }} }} }}\n\
         \x20 - {{ name: plain, bind: \"127.0.0.1:0\" }}\n\
         {}\x20 mesh: {{ client_certificate: {{ subjects: [\"spiffe://shop/*\", \"*.clients.example\"], header: X-Client-Name }} }}\n\
         services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: mesh, match: {{ path: /mesh }}, authenticate: {{ with: [mesh] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: some, match: {{ path: /some }}, authenticate: {{ with: [mesh] }}, authorize: {{ claims: {{ sub: spiffe://shop/orders }} }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: both, match: {{ path: /both }}, authenticate: {{ with: [shop, mesh] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: open, match: {{ path: /open }}, forward: {{ service: all }} }}\n",
        secret_authenticator(),
        origin.url()
    );
    (Gateway::start_in(directory, &configuration, &[]), own)
}

/// The answer to a request with these fields.
async fn ask(gateway: &Gateway, connector: &TlsConnector, path: &str, fields: &str) -> String {
    let mut stream = handshake(gateway, connector, "a.example").await.expect("it is let in");
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it ends with a close_notify");
    answer
}

#[tokio::test]
async fn the_name_decides_and_is_told_to_the_service() {
    let origin = Origin::text("ok").await;
    let authority = Authority::new("ours");
    let (gateway, own) = start(&authority, &origin).await;
    let orders = named(&authority, &[], Some("spiffe://shop/orders"));
    let host = named(&authority, &["one.CLIENTS.example"], None);
    let foreign = named(&authority, &["one.example", "*.clients.example"], Some("spiffe://shopping/orders"));
    for (shown, path, status, told) in [
        (Some(&orders), "/mesh", "200", Some("spiffe://shop/orders")),
        (Some(&orders), "/some", "200", Some("spiffe://shop/orders")),
        (Some(&host), "/mesh", "200", Some("one.clients.example")),
        (Some(&host), "/some", "403", None),
        (Some(&foreign), "/mesh", "403", None),
        (Some(&foreign), "/both", "401", None),
        (Some(&foreign), "/open", "200", None),
        (None, "/mesh", "403", None),
        (None, "/open", "200", None),
        (Some(&orders), "/open", "200", None),
        (Some(&orders), "/both", "200", Some("spiffe://shop/orders")),
    ] {
        let before = origin.count();
        let fields = "X-Client-Name: spiffe://shop/me\r\nX-Forwarded-Client-Cert: URI=spiffe://shop/me\r\n";
        let answer = ask(&gateway, &showing(&own, shown, ALL), path, fields).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        if status == "200" {
            let seen = origin.seen().pop().expect("it came through");
            let name = seen.headers.get("x-client-name").map(|name| name.to_str().expect("text"));
            assert_eq!(name, told, "{path}");
            assert!(!seen.headers.contains_key("x-forwarded-client-cert"));
        } else {
            assert_eq!(origin.count(), before, "{path}");
        }
        if path == "/mesh" && status == "403" {
            let code = if shown.is_some() { "certificate_denied" } else { "certificate_missing" };
            assert!(answer.contains(code), "{answer}");
        }
    }
    gateway.log_entry(|entry| entry["subject"] == "spiffe://shop/orders" && entry["route"] == "mesh");
}

#[tokio::test]
async fn a_token_suffices_where_it_is_asked_for_too() {
    let origin = Origin::text("ok").await;
    let authority = Authority::new("ours");
    let (gateway, own) = start(&authority, &origin).await;
    let bearer = format!("Authorization: Bearer {}\r\n", tokens::hs256(serde_json::json!({})));
    let without = showing(&own, None, ALL);
    assert!(ask(&gateway, &without, "/both", &bearer).await.starts_with("HTTP/1.1 200 "));
    assert!(ask(&gateway, &without, "/mesh", &bearer).await.starts_with("HTTP/1.1 403 "));
    assert!(ask(&gateway, &without, "/both", "").await.contains("token_missing"));
    // Where nobody is asked for a certificate, nobody has one.
    let plain = crate::support::Client::new(gateway.address("plain"));
    let reply = plain.header("x-client-name", "spiffe://shop/orders").get("/mesh").await;
    assert_eq!(reply.code(), "certificate_missing");
}
