//! A certificate of a listener: the chain, its key, and what its issuer says about it, from their files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;

use super::{der, ocsp};
use crate::config::{self, At, Problems};
use crate::pem_files;
use crate::telemetry::rfc3339;

/// A certificate that ends within so long is told of.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Until when the content of a file is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub file: PathBuf,
    /// The names that a certificate is for; of other things none.
    pub names: Vec<String>,
    pub until: SystemTime,
}

/// What clients are shown.
pub struct Certificate {
    plain: Arc<CertifiedKey>,
    /// With what its issuer says about it, for as long as that is good.
    stapled: Option<(Arc<CertifiedKey>, SystemTime)>,
    pub names: Vec<String>,
    pub expiry: Option<Expiry>,
}

impl Certificate {
    pub fn shown(&self) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, until)) if SystemTime::now() < *until => stapled,
            _ => &self.plain,
        }
    }

    /// Reads its files. What is wrong with them is told at the place that names the file.
    pub fn read(files: &config::CertificateFiles, problems: &mut Problems) -> Option<Certificate> {
        let plain = pem_files::certified_key(files, problems).map(Arc::new);
        let answer = files.ocsp.as_ref().map(|path| pem_files::read(path, "OCSP response", problems));
        let (plain, answer) = (plain?, answer.map_or(Some(None), |answer| answer.map(Some))?);
        let names = subject_names(&plain);
        let expiry = expiry(files, &plain, &names, problems);
        let stapled = match (&files.ocsp, answer) {
            (Some(path), Some(answer)) => {
                Some(good_until(path, &answer, &plain, problems)?).flatten().map(|until| {
                    let stapled = CertifiedKey { ocsp: Some(answer), ..(*plain).clone() };
                    (Arc::new(stapled), until)
                })
            }
            _ => None,
        };
        Some(Certificate { plain, stapled, names, expiry })
    }
}

fn subject_names(key: &CertifiedKey) -> Vec<String> {
    let Ok(certificate) = key.end_entity_cert() else { return Vec::new() };
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    parsed.valid_dns_names().map(str::to_ascii_lowercase).collect()
}

/// One that has ended is served all the same: it may be that clients don't mind, and it is all there is.
fn expiry(
    files: &config::CertificateFiles,
    key: &CertifiedKey,
    names: &[String],
    problems: &mut Problems,
) -> Option<Expiry> {
    let (from, until) = der::validity(key.end_entity_cert().ok()?)?;
    let path = &files.certificate;
    let now = SystemTime::now();
    let told = match () {
        () if until <= now => Some(format!("has ended at {}", rfc3339(until))),
        () if from > now => Some(format!("begins at {} only", rfc3339(from))),
        () if until <= now + SOON => Some(format!("ends at {}", rfc3339(until))),
        () => None,
    };
    if let Some(told) = told {
        let message = format!("the certificate {} {told}", path.display());
        problems.warning(path.span, message, "put a new one in its place: it is read when it changes");
    }
    Some(Expiry { file: path.value.clone(), names: names.to_vec(), until })
}

/// Until when the answer may be sent along: `Some(None)` if not at all, `None` if it is an error.
fn good_until(
    path: &At<PathBuf>,
    answer: &[u8],
    key: &CertifiedKey,
    problems: &mut Problems,
) -> Option<Option<SystemTime>> {
    const REMEDY: &str = "have it fetched anew, as in `openssl ocsp … -respout FILE`";
    let certificate = key.end_entity_cert().ok()?;
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let shown = path.display();
    match ocsp::status(answer, parsed.serial()) {
        Some(ocsp::Status::Good { until }) if until > SystemTime::now() => Some(Some(until)),
        Some(ocsp::Status::Good { until }) => {
            let message = format!("{shown} is out of date since {}, and is not sent", rfc3339(until));
            problems.warning(path.span, message, REMEDY);
            Some(None)
        }
        Some(ocsp::Status::Revoked) => {
            let remedy = "replace the certificate and its key";
            problems.error(path.span, format!("{shown} says that the certificate is revoked"), remedy);
            None
        }
        Some(ocsp::Status::Unknown) => {
            let message = format!("{shown} says that its issuer doesn't know the certificate");
            problems.error(path.span, message, REMEDY);
            None
        }
        None => {
            let message = format!("{shown} holds no OCSP response (in DER) about the certificate");
            problems.error(path.span, message, REMEDY);
            None
        }
    }
}
