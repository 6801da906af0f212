//! One key, and the algorithms that may be checked with it.
//!
//! A key's type comes from the key and never from a token, and a token's algorithm must fit it: a
//! public key's bytes are never taken for an HMAC secret (RFC 8725 §3.1), a curve has one algorithm.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::token::Unverified;

/// RSA moduli outside of this are refused: too weak, or too slow to check (RFC 7518 §3.3).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeyType {
    pub fn fits(self, algorithm: Algorithm) -> bool {
        use Algorithm::*;
        match self {
            KeyType::Secret => matches!(algorithm, HS256 | HS384 | HS512),
            KeyType::Rsa => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            KeyType::P256 => algorithm == ES256,
            KeyType::P384 => algorithm == ES384,
            KeyType::Ed25519 => algorithm == EdDSA,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyType::Secret => "secret",
            KeyType::Rsa => "RSA key",
            KeyType::P256 => "P-256 key",
            KeyType::P384 => "P-384 key",
            KeyType::Ed25519 => "Ed25519 key",
        })
    }
}

/// Why some numbers are not a key that tokens can be checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the secret is empty")]
    EmptySecret,
    #[error("the RSA key has {bits} bits; from 2048 to 8192 are accepted")]
    RsaSize { bits: usize },
    #[error("the RSA key's numbers do not form a key")]
    Rsa,
    #[error("the point is not one of the {0} curve, uncompressed")]
    Point(&'static str),
    #[error("an Ed25519 key has 32 bytes")]
    Ed25519,
}

/// A key to check tokens with. `Debug` shows its name and type only.
#[derive(Clone)]
pub struct Key {
    /// The `kid` that a JWKS gives it. Secrets and PEM files have none.
    pub kid: Option<Box<str>>,
    pub key_type: KeyType,
    /// The `alg` that a JWKS restricts it to.
    pub only: Option<Algorithm>,
    material: DecodingKey,
}

impl Key {
    pub fn secret(bytes: &[u8]) -> Result<Key, KeyError> {
        if bytes.is_empty() {
            return Err(KeyError::EmptySecret);
        }
        Ok(Key::new(KeyType::Secret, DecodingKey::from_secret(bytes)))
    }

    /// From modulus and exponent, big-endian.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Key, KeyError> {
        let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaSize { bits });
        }
        // An even number is no modulus; 1 as an exponent would make every message its own signature.
        let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !odd(modulus) || !odd(exponent) || exponent == [1] || exponent.len() > 4 {
            return Err(KeyError::Rsa);
        }
        Ok(Key::new(KeyType::Rsa, DecodingKey::from_rsa_raw_components(modulus, exponent)))
    }

    /// From an uncompressed point (SEC 1 §2.3.3): 4, x, y.
    pub fn p256(point: &[u8]) -> Result<Key, KeyError> {
        Key::point(KeyType::P256, "P-256", 65, point)
    }

    /// As [`Key::p256`].
    pub fn p384(point: &[u8]) -> Result<Key, KeyError> {
        Key::point(KeyType::P384, "P-384", 97, point)
    }

    fn point(key_type: KeyType, curve: &'static str, bytes: usize, point: &[u8]) -> Result<Key, KeyError> {
        let on_curve = match key_type {
            KeyType::P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point),
            _ => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point),
        };
        if point.len() != bytes || point[0] != 4 || on_curve.is_err() {
            return Err(KeyError::Point(curve));
        }
        Ok(Key::new(key_type, DecodingKey::from_ec_der(point)))
    }

    pub fn ed25519(bytes: &[u8]) -> Result<Key, KeyError> {
        if bytes.len() != 32 {
            return Err(KeyError::Ed25519);
        }
        Ok(Key::new(KeyType::Ed25519, DecodingKey::from_ed_der(bytes)))
    }

    fn new(key_type: KeyType, material: DecodingKey) -> Key {
        Key { kid: None, key_type, only: None, material }
    }

    /// Whether tokens with this algorithm may be checked with this key.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.key_type.fits(algorithm) && self.only.is_none_or(|only| only == algorithm)
    }

    /// Whether the token's signature was made with this key. False for an algorithm that does not fit.
    pub fn verify(&self, token: &Unverified<'_>) -> bool {
        self.verifies(token.algorithm, token.signed.as_bytes(), token.signature)
    }

    /// The same of any bytes, and a signature in base64url.
    pub fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &str) -> bool {
        self.fits(algorithm)
            && jsonwebtoken::crypto::verify(signature, signed, &self.material, algorithm).unwrap_or(false)
    }

    /// The same key under the same name, for leaving out repetitions.
    pub fn repeats(&self, other: &Key) -> bool {
        use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
        let same_material = match (self.material.kind(), other.material.kind()) {
            (SecretOrDer(mine), SecretOrDer(theirs)) => mine == theirs,
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: n2, e: e2 }) => n == n2 && e == e2,
            _ => false,
        };
        same_material && self.kid == other.kid && self.key_type == other.key_type && self.only == other.only
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("key_type", &self.key_type)
            .finish_non_exhaustive()
    }
}

/// Numbers in DER, and in some JWKS, begin with a zero byte that is not part of their size.
fn without_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    &number[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_fits_its_own_algorithms_only() {
        use Algorithm::*;
        let all = [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
        let fitting =
            |key_type: KeyType| all.iter().filter(|a| key_type.fits(**a)).copied().collect::<Vec<_>>();
        assert_eq!(fitting(KeyType::Secret), [HS256, HS384, HS512]);
        assert_eq!(fitting(KeyType::Rsa), [RS256, RS384, RS512, PS256, PS384, PS512]);
        assert_eq!(fitting(KeyType::P256), [ES256]);
        assert_eq!(fitting(KeyType::P384), [ES384]);
        assert_eq!(fitting(KeyType::Ed25519), [EdDSA]);
    }

    #[test]
    fn numbers_that_are_no_key_are_refused() {
        assert_eq!(Key::secret(b"").err(), Some(KeyError::EmptySecret));
        let mut modulus = vec![0xff; 256];
        assert!(Key::rsa(&modulus, &[1, 0, 1]).is_ok());
        assert_eq!(Key::rsa(&modulus, &[1]).err(), Some(KeyError::Rsa));
        assert_eq!(Key::rsa(&modulus, &[]).err(), Some(KeyError::Rsa));
        assert_eq!(Key::rsa(&modulus, &[2]).err(), Some(KeyError::Rsa));
        assert_eq!(Key::rsa(&modulus, &[1; 5]).err(), Some(KeyError::Rsa));
        modulus[0] = 0x7f;
        assert_eq!(Key::rsa(&modulus, &[1, 0, 1]).err(), Some(KeyError::RsaSize { bits: 2047 }));
        assert_eq!(Key::rsa(&[], &[1, 0, 1]).err(), Some(KeyError::RsaSize { bits: 0 }));
        assert_eq!(Key::rsa(&[0xff; 1025], &[1, 0, 1]).err(), Some(KeyError::RsaSize { bits: 8200 }));
        let mut padded = vec![0; 300];
        padded[299] = 1;
        assert_eq!(Key::rsa(&padded, &[1, 0, 1]).err(), Some(KeyError::RsaSize { bits: 1 }));
        let mut point = vec![4];
        point.extend([1; 64]);
        assert!(Key::p256(&point).is_err(), "not on the curve");
        assert!(Key::p256(&[4; 10]).is_err());
        assert!(Key::p256(&[]).is_err());
        assert!(Key::p384(&point).is_err());
        assert_eq!(Key::ed25519(&[0; 31]).err(), Some(KeyError::Ed25519));
    }

    #[test]
    fn debug_shows_no_material() {
        let key = Key::secret(b"hush-hush").expect("a secret");
        assert_eq!(format!("{key:?}"), "Key { kid: None, key_type: Secret, .. }");
    }
}
