//! Which client certificates a listener takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::certificate::Expiry;
use super::der;
use crate::config::{self, At, ClientCertificateMode, Problems};
use crate::identity::ClientNames;
use crate::pem_files;

/// The check of client certificates, and until when the revocation lists are good.
pub struct Clients {
    pub verifier: Arc<dyn ClientCertVerifier>,
    pub lists: Vec<Expiry>,
}

/// Reads whom to trust. Every certificate of a chain must be in no list, and there must be a list of its issuer that is
/// not out of date: where lists are wanted, what they can't tell is not good.
pub fn read(config: &config::ClientCertificates, problems: &mut Problems) -> Option<Clients> {
    let roots = roots(&config.trust, problems);
    let lists = config.crl.as_ref().map(|crl| revocation_lists(crl, problems).map(|lists| (crl, lists)));
    let (roots, lists) = (roots?, lists.map_or(Some(None), |lists| lists.map(Some))?);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let mut expiries = Vec::new();
    if let Some((path, lists)) = lists {
        expiries.push(expiry(path, &lists, problems));
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if config.mode == ClientCertificateMode::Optional {
        builder = builder.allow_unauthenticated();
    }
    match builder.build() {
        Ok(verifier) => Some(Clients { verifier, lists: expiries.into_iter().flatten().collect() }),
        Err(error) => {
            let place = config.crl.as_ref().unwrap_or(&config.trust);
            let message = format!("{} can't be used: {error}", place.display());
            problems.error(
                place.span,
                message,
                "name a file of revocation lists of version 2, with a number (RFC 5280 §5)",
            );
            None
        }
    }
}

/// The names in the certificate that the client showed, if it showed one.
pub fn names(session: &rustls::ServerConnection) -> Option<ClientNames> {
    let certificate = session.peer_certificates()?.first()?;
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let hosts = parsed.valid_dns_names().map(str::to_ascii_lowercase);
    Some(ClientNames::new(hosts.chain(parsed.valid_uri_names().map(str::to_owned))))
}

fn roots(path: &At<PathBuf>, problems: &mut Problems) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in pem_files::certificates(path, problems)? {
        if let Err(error) = roots.add(certificate) {
            let message = format!("{} has a certificate that can't be used: {error}", path.display());
            problems.error(path.span, message, "name a PEM file with the certificates of authorities");
            return None;
        }
    }
    Some(roots)
}

fn revocation_lists(
    path: &At<PathBuf>,
    problems: &mut Problems,
) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    let bytes = pem_files::read(path, "revocation list", problems)?;
    let pem: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    match pem {
        Ok(lists) if !lists.is_empty() => Some(lists),
        _ if der::next_update(&bytes).is_some() => Some(vec![bytes.into()]),
        _ => {
            problems.error(
                path.span,
                format!("{} holds no revocation list", path.display()),
                "name a file with a line \"-----BEGIN X509 CRL-----\", or one list in DER",
            );
            None
        }
    }
}

/// The first of them that runs out.
fn expiry(
    path: &At<PathBuf>,
    lists: &[CertificateRevocationListDer<'_>],
    problems: &mut Problems,
) -> Option<Expiry> {
    let until = lists.iter().filter_map(|list| der::next_update(list)).min()?;
    if until <= SystemTime::now() {
        let message = format!(
            "{} is out of date since {}: no client certificate is accepted",
            path.display(),
            crate::telemetry::rfc3339(until)
        );
        problems.warning(path.span, message, "put the current list in its place");
    }
    Some(Expiry { file: Path::to_owned(path), names: Vec::new(), until })
}
