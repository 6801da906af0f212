//! TLS for clients: certificates by server name, versions, ALPN, exchange while running, and other things on its port.

mod certificates;
mod clients;
mod names;

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::h2::H2;
use crate::support::{Gateway, PATIENCE, eventually, raw};

struct Certificate {
    der: CertificateDer<'static>,
}

/// Writes NAME.crt and NAME.key, good for these names.
fn issue(directory: &Path, name: &str, names: &[&str]) -> Certificate {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("plain names");
    // The key first: the pair fits together whenever the certificate is new.
    replace(directory, &format!("{name}.key"), &made.signing_key.serialize_pem());
    replace(directory, &format!("{name}.crt"), &made.cert.pem());
    Certificate { der: made.cert.der().clone() }
}

fn replace(directory: &Path, name: &str, text: &str) {
    let new = directory.join(format!("{name}.new"));
    std::fs::write(&new, text).expect("writable");
    std::fs::rename(new, directory.join(name)).expect("writable");
}

fn start(directory: tempfile::TempDir, certificates: &[&str], tls: &str, limits: &str) -> Gateway {
    let pairs: Vec<String> = certificates
        .iter()
        .map(|name| format!("{{ certificate: {name}.crt, private_key: {name}.key }}"))
        .collect();
    let configuration = format!(
        "workers: 1\nlisteners: [{{ name: http, bind: \"127.0.0.1:0\", limits: {{ {limits} }}, \
         tls: {{ {tls} certificates: [{}] }} }}]\n\
         routes: [{{ name: ping, match: {{ path: /ping }}, respond: {{ status: 200, json: {{ pong: true }} }} }}]\n",
        pairs.join(", ")
    );
    Gateway::start_in(directory, &configuration, &[])
}

/// A client that trusts these certificates and no other.
fn client(
    trusted: &[&Certificate],
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    // A resumed session would show the certificate of the one before.
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

const ALL: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

async fn handshake(
    gateway: &Gateway,
    connector: &TlsConnector,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    tokio::time::timeout(PATIENCE, connector.connect(name, stream)).await.expect("it answers in time")
}

fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a server has one")[0].clone().into_owned()
}

async fn ping(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it ends with a close_notify");
    answer
}

#[tokio::test]
async fn the_server_name_picks_the_certificate() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = issue(directory.path(), "first", &["first.example"]);
    let exact = issue(directory.path(), "exact", &["exact.example", "also.example"]);
    let wildcard = issue(directory.path(), "wild", &["*.wild.example"]);
    let gateway = start(directory, &["first", "wild", "exact"], "", "");
    let connector = client(&[&first, &exact, &wildcard], &[], ALL);
    for (name, expected) in [
        ("first.example", &first),
        ("exact.example", &exact),
        ("EXACT.example", &exact),
        ("also.example", &exact),
        ("other.wild.example", &wildcard),
    ] {
        let mut stream =
            handshake(&gateway, &connector, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(shown(&stream), expected.der, "{name}");
        assert!(ping(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    }
    // A wildcard stands for one label; who asks for no known name gets the first, and may refuse it.
    for name in ["a.b.wild.example", "wild.example", "unknown.test", "127.0.0.1"] {
        let error =
            handshake(&gateway, &connector, name).await.expect_err("the certificate is for another name");
        assert!(error.to_string().contains("not valid for name"), "{name}: {error}");
    }
}

#[tokio::test]
async fn versions_below_the_least_are_refused() {
    const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    for (setting, tls12_works) in
        [("min_version: \"1.3\",", false), ("min_version: \"1.2\",", true), ("", true)]
    {
        let directory = tempfile::tempdir().expect("a directory");
        let certificate = issue(directory.path(), "c", &["a.example"]);
        let gateway = start(directory, &["c"], setting, "");
        let old = handshake(&gateway, &client(&[&certificate], &[], TLS12), "a.example").await;
        assert_eq!(old.is_ok(), tls12_works, "{setting}");
        let mut new =
            handshake(&gateway, &client(&[&certificate], &[], ALL), "a.example").await.expect("1.3 works");
        assert_eq!(new.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert!(ping(&mut new).await.contains("pong"));
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_upon_in_the_handshake() {
    let directory = tempfile::tempdir().expect("a directory");
    let certificate = issue(directory.path(), "c", &["a.example"]);
    let gateway = start(directory, &["c"], "", "");
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut stream = handshake(&gateway, &client(&[&certificate], offered, ALL), "a.example")
            .await
            .expect("it answers");
        let alpn = stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(alpn.as_deref(), agreed, "{offered:?}");
        if agreed == Some("h2") {
            let over = H2::over(stream, h2::client::Builder::new()).await;
            let (head, body, _) = over.get("/ping").await.expect("an answer");
            assert_eq!((head.status.as_u16(), &body[..]), (200, &b"{\"pong\":true}"[..]));
        } else {
            assert!(ping(&mut stream).await.contains("pong"));
        }
    }
    let entry = gateway.log_entry(|entry| entry["protocol"] == "HTTP/2");
    assert_eq!(entry["tls"], true);
    let strange = handshake(&gateway, &client(&[&certificate], &["spdy/3"], ALL), "a.example").await;
    let error = strange.expect_err("nobody speaks it").to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    let refused = || async { gateway.metric("gatehouse_tls_failures_total", &["cause=\"protocol\""]).await };
    eventually("it is counted", || async { (refused().await == 1.0).then_some(()) }).await;
    gateway.wait_for("no handshake with 127.0.0.1 (protocol)");
}

#[tokio::test]
async fn a_certificate_replaced_on_disk_is_served_without_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = issue(directory.path(), "c", &["a.example"]);
    let gateway = start(directory, &["c"], "", "");
    let mut before = handshake(&gateway, &client(&[&old], &[], ALL), "a.example").await.expect("it answers");
    let new = issue(gateway.path(), "c", &["a.example"]);
    let connector = client(&[&new], &[], ALL);
    eventually("the new certificate is shown", || async {
        handshake(&gateway, &connector, "a.example").await.ok().map(|_| ())
    })
    .await;
    // Connections go on with what they began with.
    assert!(ping(&mut before).await.contains("pong"));
    // One that can't be used changes nothing.
    replace(gateway.path(), "c.crt", "no certificate");
    gateway.wait_for("holds no PEM certificate");
    let mut stream = handshake(&gateway, &connector, "a.example").await.expect("the last good one stays");
    assert!(ping(&mut stream).await.contains("pong"));
}

#[tokio::test]
async fn what_is_no_handshake_is_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let certificate = issue(directory.path(), "c", &["a.example"]);
    let gateway = start(directory, &["c"], "", "header_timeout: 300ms");
    let mut plain = TcpStream::connect(gateway.http()).await.expect("it listens");
    plain.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    raw::closed(&mut plain).await;
    let mut silent = TcpStream::connect(gateway.http()).await.expect("it listens");
    raw::closed(&mut silent).await;
    let mut half = TcpStream::connect(gateway.http()).await.expect("it listens");
    half.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("it reads");
    raw::closed(&mut half).await;
    eventually("they are counted", || async {
        let of = async |cause: &str| gateway.metric("gatehouse_tls_failures_total", &[cause]).await;
        let (malformed, timeout) = (of("cause=\"malformed\"").await, of("cause=\"timeout\"").await);
        (malformed == 1.0 && timeout == 2.0).then_some(())
    })
    .await;
    let mut stream =
        handshake(&gateway, &client(&[&certificate], &[], ALL), "a.example").await.expect("it answers");
    assert!(ping(&mut stream).await.contains("pong"));
}

#[tokio::test]
async fn malformed_requests_are_answered_inside_tls_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let certificate = issue(directory.path(), "c", &["a.example"]);
    let gateway = start(directory, &["c"], "", "header_timeout: 300ms");
    for (bytes, status) in [(&b"GET /ping HTTP/1.1\nHost: a\n\n"[..], "400"), (b"GET /ping HT", "408")] {
        let mut stream =
            handshake(&gateway, &client(&[&certificate], &[], ALL), "a.example").await.expect("it answers");
        stream.write_all(bytes).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it ends with a close_notify");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}
