//! Certificates and private keys out of PEM files, as listeners and services name them. What is wrong with a file
//! is told at the place that names it.

use std::fs;
use std::path::PathBuf;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::{self, At, Problems};

/// A chain with the key that belongs to it.
pub fn certified_key(files: &config::CertificateFiles, problems: &mut Problems) -> Option<CertifiedKey> {
    let chain = certificates(&files.certificate, problems);
    let key = private_key(&files.private_key, problems);
    let (chain, key) = (chain?, key?);
    match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
        Ok(certified) => Some(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            problems.error(
                files.private_key.span,
                "the private key does not belong to the certificate",
                "name the key that the certificate was made with",
            );
            None
        }
        Err(error) => {
            problems.error(
                files.certificate.span,
                format!("the certificate can't be used: {error}"),
                "name a PEM file with the certificate first and its issuers after it",
            );
            None
        }
    }
}

/// One or more.
pub fn certificates(path: &At<PathBuf>, problems: &mut Problems) -> Option<Vec<CertificateDer<'static>>> {
    let text = read(path, "certificate", problems)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Some(chain),
        _ => {
            problems.error(
                path.span,
                format!("{} holds no PEM certificate", path.display()),
                "name a file with a line \"-----BEGIN CERTIFICATE-----\"",
            );
            None
        }
    }
}

fn private_key(path: &At<PathBuf>, problems: &mut Problems) -> Option<PrivateKeyDer<'static>> {
    let text = read(path, "private key", problems)?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| {
            problems.error(
                path.span,
                format!("{} holds no unencrypted PEM private key", path.display()),
                "name a file with a line \"-----BEGIN PRIVATE KEY-----\" (PKCS#8, SEC 1 and PKCS#1 are read)",
            );
        })
        .ok()
}

/// All of a file; `what` it should be.
pub fn read(path: &At<PathBuf>, what: &str, problems: &mut Problems) -> Option<Vec<u8>> {
    fs::read(&path.value)
        .map_err(|error| {
            problems.error(
                path.span,
                format!("can't read the {what} {}: {error}", path.display()),
                "relative paths start at the directory of the configuration file",
            );
        })
        .ok()
}
