//! Whole authenticators against forged and honest tokens. The fixtures are here, the cases beside.

mod attacks;
mod keys;
mod reload;
mod remote;
mod vectors;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, header};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::authenticator::Decision;
use super::{Authenticator, TokenCache};
use crate::config::{self, At, JwtAlgorithm, JwtKey, Problems, Secret, Span};
use crate::identity::{Identity, Refusal};
use crate::reason::Reason;

pub const SECRET: &str = "a secret of more than thirty-two bytes, for tests";
pub const NOW: u64 = 1_700_000_000;
pub const EVERY: [JwtAlgorithm; 12] = [
    JwtAlgorithm::HS256,
    JwtAlgorithm::HS384,
    JwtAlgorithm::HS512,
    JwtAlgorithm::RS256,
    JwtAlgorithm::RS384,
    JwtAlgorithm::RS512,
    JwtAlgorithm::PS256,
    JwtAlgorithm::PS384,
    JwtAlgorithm::PS512,
    JwtAlgorithm::ES256,
    JwtAlgorithm::ES384,
    JwtAlgorithm::EdDSA,
];

pub fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

pub fn at<T>(value: T) -> At<T> {
    At { value, span: Span { line: 7, column: 3, length: 1 } }
}

pub fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(vector(name)).expect("a test vector")
}

pub fn secret_key() -> JwtKey {
    JwtKey::Secret(at(Secret::new(SECRET)))
}

pub fn public_key(name: &str) -> JwtKey {
    JwtKey::PublicKey(at(vector(name)))
}

/// Issuer `joe`, audience `shop`, 30 s of leeway, bearer only.
pub fn written(algorithms: &[JwtAlgorithm], keys: Vec<JwtKey>) -> config::Authenticator {
    config::Authenticator {
        name: at("shop".to_owned()),
        jwt: config::Jwt {
            issuer: Some("joe".into()),
            audience: vec!["shop".into()],
            algorithms: algorithms.to_vec(),
            leeway: Duration::from_secs(30),
            keys,
            token_from: vec![config::TokenSource::Bearer],
            claim_headers: Vec::new(),
        },
    }
}

/// Compiles what has no problem at all.
pub fn compiled(config: &config::Authenticator) -> Arc<Authenticator> {
    let mut problems = Problems::default();
    let compiled = Authenticator::compile(config, None, &mut problems);
    let shown: Vec<_> = problems.iter().collect();
    assert!(shown.is_empty(), "{shown:?}");
    compiled.expect("there are no problems")
}

pub fn authenticator(algorithms: &[JwtAlgorithm], keys: Vec<JwtKey>) -> Arc<Authenticator> {
    compiled(&written(algorithms, keys))
}

/// What an issuer signs with.
pub fn private_key(algorithm: Algorithm) -> EncodingKey {
    use Algorithm::*;
    match algorithm {
        HS256 | HS384 | HS512 => EncodingKey::from_secret(SECRET.as_bytes()),
        ES256 => EncodingKey::from_ec_pem(&read("p256.key")).expect("a key"),
        ES384 => EncodingKey::from_ec_pem(&read("p384.key")).expect("a key"),
        EdDSA => EncodingKey::from_ed_pem(&read("ed25519.key")).expect("a key"),
        _ => EncodingKey::from_rsa_pem(&read("rsa.key")).expect("a key"),
    }
}

pub fn encode(part: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

/// A token with exactly this header and these claims, whatever they say, signed as `algorithm` says.
pub fn forge(header: &str, claims: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).expect("signs");
    format!("{signed}.{signature}")
}

/// Claims that the fixtures' authenticators accept, with `changes` on top; null takes a claim away.
pub fn claims(changes: Value) -> String {
    let mut all = json!({ "iss": "joe", "aud": "shop", "sub": "u1", "exp": NOW + 600 });
    for (name, value) in changes.as_object().expect("a test passes an object") {
        match value {
            Value::Null => drop(all.as_object_mut().expect("made above").remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all.to_string()
}

/// An honest token.
pub fn token(algorithm: Algorithm, kid: Option<&str>) -> String {
    let mut header = json!({ "alg": format!("{algorithm:?}"), "typ": "JWT" });
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    forge(&header.to_string(), &claims(json!({})), algorithm, &private_key(algorithm))
}

pub fn bearer(token: &str) -> crate::http::fields::Fields {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("tokens are ASCII");
    crate::http::fields::Fields::from_iter([(header::AUTHORIZATION, value)])
}

/// The verdict without waiting and without a memory.
pub fn judge(authenticator: &Authenticator, token: &str) -> Result<Arc<Identity>, Refusal> {
    match authenticator.decide(&bearer(token), &TokenCache::new(), now()) {
        Decision::Accepted(identity) => Ok(identity),
        Decision::Refused(refusal) | Decision::KeysWanted(refusal) => Err(refusal),
    }
}

pub fn reason(authenticator: &Authenticator, token: &str) -> Option<Reason> {
    judge(authenticator, token).err().map(|refusal| refusal.reason)
}

/// The JWK of a public key in the vectors, from the numbers at the places where DER has them.
pub fn jwk(name: &str, kid: Option<&str>) -> Value {
    let block = pem::parse(read(name)).expect("PEM");
    let der = block.contents();
    let tail = |bytes: usize| &der[der.len() - bytes..];
    let mut jwk = match name {
        "rsa.pub" => {
            // … modulus, then an exponent of tag, length and three bytes.
            let modulus = &der[der.len() - 5 - 256..der.len() - 5];
            json!({ "kty": "RSA", "n": encode(modulus), "e": "AQAB" })
        }
        "p256.pub" => {
            json!({ "kty": "EC", "crv": "P-256", "x": encode(&tail(64)[..32]), "y": encode(tail(32)) })
        }
        "p384.pub" => {
            json!({ "kty": "EC", "crv": "P-384", "x": encode(&tail(96)[..48]), "y": encode(tail(48)) })
        }
        _ => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(tail(32)) }),
    };
    if let Some(kid) = kid {
        jwk["kid"] = kid.into();
    }
    jwk
}

/// A JWKS file that goes away with the returned value.
pub fn jwks_file(keys: Value) -> (tempfile::NamedTempFile, JwtKey) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).expect("written");
    let key = JwtKey::JwksFile(at(file.path().to_owned()));
    (file, key)
}
