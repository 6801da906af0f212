//! Sources over TLS: who is trusted is what the system trusts, or what `SSL_CERT_FILE` holds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::support::source::answers;
use crate::support::{Client, Consul, Etcd, Gateway, Origin};

/// Writes NAME.crt and NAME.key for this machine.
fn issue(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("an address");
    let (certificate, key) = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
    std::fs::write(&certificate, made.cert.pem()).expect("writable");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writable");
    (certificate, key)
}

fn start(discovery: &str, trusted: &Path) -> Gateway {
    let configuration = format!(
        "services: {{ users: {{ discovery: {discovery} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    );
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let trusted = trusted.to_str().expect("a plain path");
    let gateway = Gateway::spawn(directory, &configuration, &[], &[("SSL_CERT_FILE", trusted)]);
    gateway.wait_for("serving ");
    gateway
}

/// Who has the certificate is believed, and somebody else is not.
async fn is_checked(
    discovery: impl Fn(SocketAddr) -> String,
    address: SocketAddr,
    right: &Path,
    wrong: &Path,
) {
    let gateway = start(&discovery(address), right);
    answers(&Client::new(gateway.http()), "a").await;
    assert_eq!(gateway.service("users").await["source"]["state"], "ok");
    let gateway = start(&discovery(address), wrong);
    let why = gateway.wait_for("its instances can't be asked for");
    assert!(why.contains("invalid peer certificate"), "{why}");
    assert_eq!(Client::new(gateway.http()).get("/").await.code(), "no_instance");
}

#[tokio::test]
async fn etcd_over_tls_is_checked() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let (certificate, key) = issue(directory.path(), "etcd");
    let (other, _) = issue(directory.path(), "other");
    let (etcd, address) = Etcd::start_secure(&certificate, &key).await;
    let origin = Origin::text("a").await;
    etcd.put("/users/a", &origin.url()).await;
    let discovery =
        |address| format!("{{ etcd: {{ endpoints: [\"https://{address}\"], prefix: /users/ }} }}");
    is_checked(discovery, address, &certificate, &other).await;
}

#[tokio::test]
async fn consul_over_tls_is_checked() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let (certificate, key) = issue(directory.path(), "consul");
    let (other, _) = issue(directory.path(), "other");
    let Some((consul, address)) = Consul::start_secure(&certificate, &key).await else { return };
    let origin = Origin::text("a").await;
    consul.register("a", origin.address).await;
    let discovery = |address| format!("{{ consul: {{ address: \"https://{address}\", service: users }} }}");
    is_checked(discovery, address, &certificate, &other).await;
}
