//! Until when certificates are good, and what their issuers say about them.

use std::process::Command;
use std::sync::Mutex;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::UnixTime;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::*;

/// Believes everything, and remembers what came with the certificate.
#[derive(Debug, Default)]
struct Listening(Mutex<Vec<u8>>);

impl ServerCertVerifier for Listening {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().expect("nobody panicked") = ocsp.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What comes with the certificate.
async fn stapled(gateway: &Gateway, versions: &[&'static SupportedProtocolVersion]) -> Vec<u8> {
    let listening = Arc::new(Listening::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known versions")
        .dangerous()
        .with_custom_certificate_verifier(listening.clone())
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = handshake(gateway, &connector, "localhost").await.expect("it answers");
    assert!(ping(&mut stream).await.contains("pong"));
    std::mem::take(&mut *listening.0.lock().expect("nobody panicked"))
}

fn development(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs").join(name);
    std::fs::read(path).expect("it is in the package")
}

/// The development certificate, under the names that `start` expects.
fn with_development_certificate() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for kind in ["key", "crt", "ocsp"] {
        let content = development(&format!("localhost.{kind}"));
        std::fs::write(directory.path().join(format!("c.{kind}")), content).expect("writable");
    }
    directory
}

const STAPLING: &str = "listeners: [{ name: http, bind: \"127.0.0.1:0\", tls: { certificates: \
     [{ certificate: c.crt, private_key: c.key, ocsp: c.ocsp }] } }]\n\
     routes: [{ name: ping, match: { path: /ping }, respond: { json: { pong: true } } }]\n";

#[tokio::test]
async fn what_the_issuer_says_is_sent_along() {
    let gateway = Gateway::start_in(with_development_certificate(), STAPLING, &[]);
    for versions in [ALL, &[&rustls::version::TLS12]] {
        assert_eq!(stapled(&gateway, versions).await, development("localhost.ocsp"));
    }
    // Half of it is none, and changes nothing.
    let half = &development("localhost.ocsp")[..100];
    std::fs::write(gateway.file("c.ocsp"), half).expect("writable");
    gateway.wait_for("c.ocsp holds no OCSP response (in DER) about the certificate");
    assert_eq!(stapled(&gateway, ALL).await, development("localhost.ocsp"));
}

#[tokio::test]
async fn what_is_out_of_date_is_not_sent() {
    let directory = with_development_certificate();
    // The signature is the client's to check: here the year is made another one.
    let mut old = development("localhost.ocsp");
    let at = old.windows(4).rposition(|window| window == b"2036").expect("it is good until then");
    old[at..at + 4].copy_from_slice(b"2026");
    let made: Vec<usize> =
        old.windows(6).enumerate().filter(|(_, window)| *window == b"202611").map(|(at, _)| at).collect();
    assert!(!made.is_empty(), "it was made then");
    for at in made {
        old[at..at + 6].copy_from_slice(b"202001");
    }
    std::fs::write(directory.path().join("c.ocsp"), old).expect("writable");
    let gateway = Gateway::start_in(directory, STAPLING, &[]);
    gateway.wait_for("c.ocsp is out of date since 2020-01-19T");
    assert_eq!(stapled(&gateway, ALL).await, b"");
    std::fs::write(gateway.file("c.ocsp"), development("localhost.ocsp")).expect("writable");
    eventually("the new one is sent", || async {
        (stapled(&gateway, ALL).await == development("localhost.ocsp")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_about_another_certificate_is_refused() {
    let directory = with_development_certificate();
    issue(directory.path(), "c", &["localhost"]);
    std::fs::write(directory.path().join("gateway.yaml"), STAPLING).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    let output =
        command.arg("check").current_dir(directory.path()).env("NO_COLOR", "1").output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("c.ocsp holds no OCSP response"), "{told}");
}

#[tokio::test]
async fn when_certificates_end_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().expect("random numbers");
    replace(directory.path(), "old.key", &key.serialize_pem());
    replace(directory.path(), "old.crt", &params.self_signed(&key).expect("a certificate").pem());
    issue(directory.path(), "new", &["b.example", "*.b.example"]);
    let gateway = start(directory, &["old", "new"], "", "");
    gateway.wait_for("old.crt has ended at 2021-01-01T00:00:00Z");
    let status = gateway.api("/api/status").await;
    let certificates = status["listeners"][0]["certificates"].as_array().expect("a list").clone();
    assert_eq!(certificates.len(), 2, "{status}");
    assert_eq!(certificates[0]["expires_at"], "2021-01-01T00:00:00.000Z");
    assert_eq!(certificates[1]["names"], serde_json::json!(["b.example", "*.b.example"]));
    let until = gateway.metric("gatehouse_certificate_expiry_timestamp_seconds", &["old.crt"]).await;
    assert_eq!(until, 1_609_459_200.0);
}
