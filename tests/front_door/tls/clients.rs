//! Certificates that clients show.

use std::path::PathBuf;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::HandshakeKind;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

/// An authority for certificates of clients.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a client shows.
pub struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("random numbers");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    /// A certificate with this number.
    fn issue(&self, serial: u64) -> Shown {
        let mut params = CertificateParams::new(vec!["client.example".to_owned()]).expect("a name");
        params.serial_number = Some(SerialNumber::from(serial));
        self.sign(&params)
    }

    pub fn sign(&self, params: &CertificateParams) -> Shown {
        let key = KeyPair::generate().expect("random numbers");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Shown {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    /// The list of these, as long as it is good.
    fn revokes(&self, serials: &[u64], until_year: i32) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2023, 1, 1),
            next_update: date_time_ymd(until_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).expect("a list").pem().expect("text")
    }
}

/// A gateway that trusts the authority, with the list beside it, and its own certificate.
fn start_with(authority: &Authority, list: &str, settings: &str) -> (Gateway, Certificate) {
    let directory = tempfile::tempdir().expect("a directory");
    let own = issue(directory.path(), "c", &["a.example"]);
    replace(directory.path(), "ca.crt", &authority.pem());
    replace(directory.path(), "ca.crl", list);
    let tls = format!("client_certificates: {{ trust: ca.crt, {settings} }},");
    (start(directory, &["c"], &tls, ""), own)
}

/// A client that shows this, if anything.
pub fn showing(
    server: &Certificate,
    shown: Option<&Shown>,
    versions: &[&'static SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(server.der.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("known versions")
        .with_root_certificates(roots);
    let config = match shown {
        Some(shown) => {
            builder.with_client_auth_cert(shown.chain.clone(), shown.key.clone_key()).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

/// Whether a client with this connector gets an answer. In TLS 1.3 it learns only from the answer what became of its
/// certificate.
async fn is_let_in(gateway: &Gateway, connector: &TlsConnector) -> bool {
    let Ok(mut stream) = handshake(gateway, connector, "a.example").await else { return false };
    let request = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200 ")
}

const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

#[tokio::test]
async fn a_certificate_is_required_or_optional_but_always_a_good_one() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (good, foreign) = (ours.issue(1), theirs.issue(1));
    for (settings, without) in [("", false), ("mode: required", false), ("mode: optional", true)] {
        let (gateway, own) = start_with(&ours, "", settings);
        for versions in [ALL, TLS12] {
            for (shown, expected) in [(None, without), (Some(&good), true), (Some(&foreign), false)] {
                let connector = showing(&own, shown, versions);
                assert_eq!(is_let_in(&gateway, &connector).await, expected, "{settings:?}");
            }
        }
        let refused = if without { 2.0 } else { 4.0 };
        eventually("they are counted", || async {
            let count =
                gateway.metric("gatehouse_tls_failures_total", &["cause=\"client_certificate\""]).await;
            (count == refused).then_some(())
        })
        .await;
        gateway.wait_for("no handshake with 127.0.0.1 (client_certificate)");
    }
}

#[tokio::test]
async fn what_is_revoked_is_refused_from_the_moment_on() {
    let authority = Authority::new("ours");
    let (first, second) = (authority.issue(1), authority.issue(2));
    let (gateway, own) = start_with(&authority, &authority.revokes(&[2], 2099), "crl: ca.crl");
    let (first, second) = (showing(&own, Some(&first), ALL), showing(&own, Some(&second), ALL));
    assert!(is_let_in(&gateway, &first).await && !is_let_in(&gateway, &second).await);
    let status = gateway.api("/api/status").await;
    let list = &status["listeners"][0]["certificates"][1];
    assert_eq!(
        (&list["kind"], &list["expires_at"]),
        (&"crl".into(), &"2099-01-01T00:00:00.000Z".into()),
        "{status}"
    );

    replace(gateway.path(), "ca.crl", &authority.revokes(&[1], 2099));
    eventually("the other one is revoked", || async {
        (!is_let_in(&gateway, &first).await && is_let_in(&gateway, &second).await).then_some(())
    })
    .await;
    // Nothing of a list that can't be read counts.
    replace(gateway.path(), "ca.crl", "nothing");
    gateway.wait_for("ca.crl holds no revocation list");
    assert!(!is_let_in(&gateway, &first).await && is_let_in(&gateway, &second).await);
    // One that is out of date tells nothing, and so nobody is good.
    replace(gateway.path(), "ca.crl", &authority.revokes(&[], 2024));
    gateway.wait_for("ca.crl is out of date since 2024-01-01T00:00:00Z: no client certificate is accepted");
    eventually("nobody is let in", || async { (!is_let_in(&gateway, &second).await).then_some(()) }).await;
    let until = gateway.metric("gatehouse_crl_expiry_timestamp_seconds", &["ca.crl"]).await;
    assert_eq!(until, 1_704_067_200.0);
}

#[tokio::test]
async fn a_list_of_another_authority_tells_nothing() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (gateway, own) = start_with(&ours, &theirs.revokes(&[], 2099), "crl: ca.crl");
    assert!(!is_let_in(&gateway, &showing(&own, Some(&ours.issue(1)), ALL)).await);
}

/// How a second connection of the same client begins.
async fn second_handshake(gateway: &Gateway, connector: &TlsConnector) -> Option<HandshakeKind> {
    assert!(is_let_in(gateway, connector).await);
    let stream = handshake(gateway, connector, "a.example").await.expect("it answers");
    stream.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn a_session_is_resumed_only_where_no_certificate_is_shown() {
    let authority = Authority::new("ours");
    for versions in [ALL, TLS12] {
        for mode in ["required", "optional"] {
            let (gateway, own) = start_with(&authority, "", &format!("mode: {mode}"));
            let connector = showing(&own, Some(&authority.issue(1)), versions);
            assert_eq!(second_handshake(&gateway, &connector).await, Some(HandshakeKind::Full), "{mode}");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let own = issue(directory.path(), "c", &["a.example"]);
        let gateway = start(directory, &["c"], "", "");
        let connector = showing(&own, None, versions);
        assert_eq!(second_handshake(&gateway, &connector).await, Some(HandshakeKind::Resumed));
        // Neither does a reload take clients what they have to go on with.
        let before = gateway.generation().await;
        let text = std::fs::read_to_string(gateway.file("gateway.yaml")).expect("it was written");
        std::fs::write(gateway.file("gateway.yaml"), format!("{text}# changed\n")).expect("writable");
        eventually("it is reloaded", || async { (gateway.generation().await > before).then_some(()) }).await;
        let stream = handshake(&gateway, &connector, "a.example").await.expect("it answers");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn check_tells_what_is_wrong_with_the_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| -> PathBuf { directory.path().join(name) };
    issue(directory.path(), "c", &["a.example"]);
    let authority = Authority::new("ours");
    let check = |clients: &str| {
        let text = format!(
            "listeners: [{{ name: a, bind: \"127.0.0.1:1\", tls: {{ certificates: [{{ certificate: c.crt, \
             private_key: c.key }}], client_certificates: {{ {clients} }} }} }}]\n\
             routes: [{{ name: a, match: {{}}, respond: {{}} }}]\n"
        );
        std::fs::write(at("gateway.yaml"), text).expect("writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        let output = command.arg("check").current_dir(directory.path()).env("NO_COLOR", "1").output();
        let output = output.expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    replace(directory.path(), "ca.crt", &authority.pem());
    replace(directory.path(), "old.crl", &authority.revokes(&[], 2024));
    for (clients, fine, told) in [
        ("trust: no.crt", false, "can't read the certificate"),
        ("trust: c.key", false, "c.key holds no PEM certificate"),
        ("trust: ca.crt, crl: no.crl", false, "can't read the revocation list"),
        ("trust: ca.crt, crl: ca.crt", false, "ca.crt holds no revocation list"),
        ("trust: ca.crt, crl: old.crl", true, "old.crl is out of date since 2024-01-01T00:00:00Z"),
        ("trust: ca.crt", true, "is fine"),
    ] {
        let (success, output) = check(clients);
        assert!(success == fine && output.contains(told), "{clients}: {output}");
    }
}
