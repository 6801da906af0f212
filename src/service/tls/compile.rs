//! `tls` of a service, with the files that it names, made into what connections are made with.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Protocol, UpstreamTls};
use crate::config::{self, Problems, TlsVersion};
use crate::pem_files;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What the system trusts, looked up once for all services that go by it.
#[derive(Default)]
pub struct SystemRoots(OnceCell<Vec<CertificateDer<'static>>>);

impl SystemRoots {
    fn certificates(&self) -> &[CertificateDer<'static>] {
        self.0.get_or_init(|| rustls_native_certs::load_native_certs().certs)
    }
}

impl UpstreamTls {
    /// As `config` wants it. That is `previous` if it is made of the same.
    pub fn compile(
        config: &config::ServiceTls,
        protocol: Protocol,
        previous: Option<&Arc<UpstreamTls>>,
        system: &SystemRoots,
        problems: &mut Problems,
    ) -> Option<Arc<UpstreamTls>> {
        let mut made_of = Context::new(&SHA256);
        let said = (&config.server_name, config.min_version, config.verify, config.trust.is_some());
        made_of.update(format!("{said:?} {protocol:?}").as_bytes());
        let server_name = config.server_name.clone().map(|name| {
            ServerName::try_from(name).expect("the configuration takes domain names and IP addresses only")
        });
        let verifier = verifier(config, system, &mut made_of, problems);
        let client = config.client.as_ref().map(|files| client_key(files, &mut made_of, problems));
        let (verifier, client) = (verifier?, client.map_or(Some(None), |key| key.map(Some))?);
        let digest: [u8; 32] = made_of.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        if let Some(previous) = previous.filter(|previous| previous.digest == digest) {
            return Some(previous.clone());
        }
        let versions: &[&rustls::SupportedProtocolVersion] = match config.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(versions)
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match client {
            Some(key) => builder.with_client_cert_resolver(Arc::new(key)),
            None => builder.with_no_client_auth(),
        };
        let present = previous.map(|previous| previous.present.clone()).unwrap_or_default();
        let id = NEXT_ID.fetch_add(1, Relaxed);
        Some(Arc::new(UpstreamTls { id, protocol, config, server_name, digest, present }))
    }
}

/// Who checks what instances show.
fn verifier(
    config: &config::ServiceTls,
    system: &SystemRoots,
    made_of: &mut Context,
    problems: &mut Problems,
) -> Option<Arc<dyn ServerCertVerifier>> {
    let provider = Arc::new(provider::default_provider());
    if !config.verify {
        return Some(Arc::new(Anybody(provider)));
    }
    let mut roots = RootCertStore::empty();
    match &config.trust {
        Some(path) => {
            for certificate in pem_files::certificates(path, problems)? {
                made_of.update(&certificate);
                if let Err(error) = roots.add(certificate) {
                    let message =
                        format!("{} holds a certificate that can't be used: {error}", path.display());
                    problems.error(path.span, message, "name PEM certificates of issuers, or of instances");
                    return None;
                }
            }
        }
        None => {
            let certificates = system.certificates();
            certificates.iter().for_each(|certificate| made_of.update(certificate));
            roots.add_parsable_certificates(certificates.iter().cloned());
            if roots.is_empty() {
                problems.error(
                    config.at.span,
                    "this system trusts no certificates, so that no instance could be trusted",
                    "name a file of them with `trust`, or install them (ca-certificates)",
                );
                return None;
            }
        }
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    Some(verifier.expect("there are roots, and no revocation lists that could be wrong"))
}

fn client_key(
    files: &config::CertificateFiles,
    made_of: &mut Context,
    problems: &mut Problems,
) -> Option<SingleCertAndKey> {
    let key = pem_files::certified_key(files, problems)?;
    made_of.update(b"client");
    // The key belongs to the first of them, so that another key means another certificate.
    key.cert.iter().for_each(|certificate| made_of.update(certificate));
    Some(key.into())
}

/// `verify: false`. That the other side has the key of the certificate which it shows is checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
