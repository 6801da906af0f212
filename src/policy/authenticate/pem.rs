//! Public keys and certificates in PEM.

use aws_lc_rs::rsa;
use aws_lc_rs::signature::RsaPublicKeyComponents;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

use super::key::{Key, KeyError};

/// Everything before the point of a SubjectPublicKeyInfo: DER has one spelling, and curves come by
/// name (RFC 5480 §2.1.1), so comparing the bytes decides, and curves given by parameters fall out.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
/// RFC 8410 §4.
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a file is not one public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("the file is not PEM text")]
    NotPem,
    #[error("the file holds a private key, and the gateway needs only the public one")]
    PrivateKey,
    #[error("the file holds {0} public keys")]
    SeveralKeys(usize),
    #[error("the file holds no public key and no certificate")]
    NoKey,
    #[error("the certificate cannot be read")]
    Certificate,
    #[error("the key is neither RSA nor P-256 nor P-384 nor Ed25519, or not in a standard encoding")]
    Unsupported,
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl PemError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            PemError::NotPem | PemError::NoKey => {
                "name a file that begins with -----BEGIN PUBLIC KEY----- or -----BEGIN CERTIFICATE-----"
            }
            PemError::PrivateKey => {
                "take the public half, `openssl pkey -in private.pem -pubout -out public.pem`, and keep the \
                 private key with the issuer"
            }
            PemError::SeveralKeys(_) => "put each key into a file and a `public_key` line of its own",
            PemError::Certificate => "export the certificate again as X.509 version 3 in PEM",
            PemError::Unsupported | PemError::Key(_) => {
                "use an RSA key of 2048 bits or more, a P-256, P-384 or Ed25519 key"
            }
        }
    }
}

/// Reads the one public key in `text`. Of a chain of certificates the first one counts: it is the
/// signer's, and the ones behind it must not sign tokens.
pub fn public_key(text: &[u8]) -> Result<Key, PemError> {
    let blocks = pem::parse_many(text).map_err(|_| PemError::NotPem)?;
    if blocks.iter().any(|block| block.tag().ends_with("PRIVATE KEY")) {
        return Err(PemError::PrivateKey);
    }
    let keys = || blocks.iter().filter(|b| matches!(b.tag(), "PUBLIC KEY" | "RSA PUBLIC KEY"));
    match keys().count() {
        0 => match blocks.iter().find(|b| matches!(b.tag(), "CERTIFICATE" | "X509 CERTIFICATE")) {
            Some(certificate) => from_certificate(certificate.contents()),
            None if blocks.is_empty() => Err(PemError::NotPem),
            None => Err(PemError::NoKey),
        },
        1 => from_der(keys().next().map_or(&[], |block| block.contents())),
        several => Err(PemError::SeveralKeys(several)),
    }
}

fn from_certificate(der: &[u8]) -> Result<Key, PemError> {
    let der = CertificateDer::from(der);
    let certificate = ParsedCertificate::try_from(&der).map_err(|_| PemError::Certificate)?;
    from_der(&certificate.subject_public_key_info())
}

/// A SubjectPublicKeyInfo, or a PKCS#1 RSAPublicKey.
fn from_der(der: &[u8]) -> Result<Key, PemError> {
    if let Some(point) = der.strip_prefix(&P256_PREFIX) {
        return Ok(Key::p256(point)?);
    }
    if let Some(point) = der.strip_prefix(&P384_PREFIX) {
        return Ok(Key::p384(point)?);
    }
    if let Some(bytes) = der.strip_prefix(&ED25519_PREFIX) {
        return Ok(Key::ed25519(bytes)?);
    }
    let key = rsa::PublicKey::from_der(der).map_err(|_| PemError::Unsupported)?;
    let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(&key);
    Ok(Key::rsa(&n, &e)?)
}
