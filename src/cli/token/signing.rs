//! Keys to sign with. Only the command line and the demo sign; the gateway itself never does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value};

use crate::config;
use crate::policy::authenticate::algorithm;

/// Why no token can be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error(
        "the keys of authenticator {0:?} are not secrets with an HS algorithm allowed; give the issuer's private key \
         with --key"
    )]
    NoSecret(String),
    #[error("the file holds no private key in PEM, or an encrypted one")]
    NoPrivateKey,
    #[error("the key is neither RSA nor P-256 nor P-384 nor Ed25519")]
    UnsupportedKey,
    #[error("a {0} cannot sign with {1:?}")]
    Misfit(&'static str, Algorithm),
    #[error("the token cannot be signed")]
    Signing(#[from] jsonwebtoken::errors::Error),
}

/// A key and the algorithm it signs with. `Debug` shows the algorithm only.
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
    kid: Option<String>,
}

impl SigningKey {
    /// The first secret of an authenticator. It signs with `wanted`, one of the HS family, else with the
    /// first of them that the authenticator allows.
    pub fn of(
        authenticator: &config::Authenticator,
        wanted: Option<Algorithm>,
    ) -> Result<SigningKey, SignError> {
        let secret = authenticator.jwt.keys.iter().find_map(|key| match key {
            config::JwtKey::Secret(secret) => Some(secret),
            _ => None,
        });
        let allowed = || authenticator.jwt.algorithms.iter().map(|a| algorithm(*a)).find(is_hmac);
        match (secret, wanted.or_else(allowed)) {
            (Some(secret), Some(algorithm)) => Ok(SigningKey::secret(secret.expose(), algorithm)),
            _ => Err(SignError::NoSecret(authenticator.name.value.clone())),
        }
    }

    /// `algorithm` is one of the HS family.
    pub(super) fn secret(secret: &str, algorithm: Algorithm) -> SigningKey {
        SigningKey { algorithm, key: EncodingKey::from_secret(secret.as_bytes()), kid: None }
    }

    /// A private key in PEM: PKCS#8, PKCS#1 (RSA) or SEC 1 (EC). Without `wanted` it signs with the
    /// first of `allowed` that it can, else with the usual algorithm of its type.
    pub(super) fn from_pem(
        text: &[u8],
        wanted: Option<Algorithm>,
        allowed: &[Algorithm],
    ) -> Result<SigningKey, SignError> {
        let (private, key) = PrivateKey::read(text)?;
        let can = private.algorithms();
        let algorithm = match wanted {
            Some(wanted) if !can.contains(&wanted) => return Err(SignError::Misfit(private.name(), wanted)),
            Some(wanted) => wanted,
            None => allowed.iter().find(|a| can.contains(a)).copied().unwrap_or(can[0]),
        };
        Ok(SigningKey { algorithm, key, kid: None })
    }

    /// Names the key in the headers of its tokens.
    pub fn with_kid(self, kid: Option<String>) -> SigningKey {
        SigningKey { kid, ..self }
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The token with exactly these claims.
    pub fn sign(&self, claims: &Map<String, Value>) -> Result<String, SignError> {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.kid);
        Ok(jsonwebtoken::encode(&header, claims, &self.key)?)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// A token that `authenticator`, which must have a secret, accepts until `expires_in` from `now`.
/// `claims` come on top of `iss`, `aud`, `iat` and `exp`, and replace them where they have the same name.
pub fn sign(
    authenticator: &config::Authenticator,
    claims: Map<String, Value>,
    now: SystemTime,
    expires_in: Duration,
) -> Result<String, SignError> {
    SigningKey::of(authenticator, None)?.sign(&standard_claims(Some(authenticator), claims, now, expires_in))
}

/// `claims` on top of those that every token needs.
pub(super) fn standard_claims(
    authenticator: Option<&config::Authenticator>,
    claims: Map<String, Value>,
    now: SystemTime,
    expires_in: Duration,
) -> Map<String, Value> {
    let seconds = |time: Duration| Value::from(time.as_secs());
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut all = Map::new();
    if let Some(jwt) = authenticator.map(|authenticator| &authenticator.jwt) {
        if let Some(issuer) = &jwt.issuer {
            all.insert("iss".into(), issuer.as_str().into());
        }
        match jwt.audience.as_slice() {
            [] => {}
            [one] => drop(all.insert("aud".into(), one.as_str().into())),
            several => drop(all.insert("aud".into(), several.into())),
        }
    }
    all.insert("iat".into(), seconds(now));
    all.insert("exp".into(), seconds(now.saturating_add(expires_in)));
    all.extend(claims);
    all
}

pub(super) fn is_hmac(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

#[derive(Clone, Copy)]
enum PrivateKey {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl PrivateKey {
    fn read(text: &[u8]) -> Result<(PrivateKey, EncodingKey), SignError> {
        let blocks = pem::parse_many(text).map_err(|_| SignError::NoPrivateKey)?;
        let block = blocks
            .iter()
            .find(|block| matches!(block.tag(), "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY"))
            .ok_or(SignError::NoPrivateKey)?;
        let der = block.contents();
        if rsa::KeyPair::from_pkcs8(der).is_ok() || rsa::KeyPair::from_der(der).is_ok() {
            return Ok((PrivateKey::Rsa, EncodingKey::from_rsa_pem(pem::encode(block).as_bytes())?));
        }
        if Ed25519KeyPair::from_pkcs8(der).is_ok() {
            return Ok((PrivateKey::Ed25519, EncodingKey::from_ed_der(der)));
        }
        for (private, curve) in [
            (PrivateKey::P256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            (PrivateKey::P384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        ] {
            // The library signs with PKCS#8 only, so SEC 1 is written anew.
            let pair = EcdsaKeyPair::from_pkcs8(curve, der)
                .or_else(|_| EcdsaKeyPair::from_private_key_der(curve, der));
            if let Ok(pkcs8) = pair.map_err(drop).and_then(|pair| pair.to_pkcs8v1().map_err(drop)) {
                return Ok((private, EncodingKey::from_ec_der(pkcs8.as_ref())));
            }
        }
        Err(SignError::UnsupportedKey)
    }

    fn name(self) -> &'static str {
        match self {
            PrivateKey::Rsa => "RSA key",
            PrivateKey::P256 => "P-256 key",
            PrivateKey::P384 => "P-384 key",
            PrivateKey::Ed25519 => "Ed25519 key",
        }
    }

    /// Never empty; the usual one first.
    fn algorithms(self) -> &'static [Algorithm] {
        use Algorithm::*;
        match self {
            PrivateKey::Rsa => &[RS256, RS384, RS512, PS256, PS384, PS512],
            PrivateKey::P256 => &[ES256],
            PrivateKey::P384 => &[ES384],
            PrivateKey::Ed25519 => &[EdDSA],
        }
    }
}
