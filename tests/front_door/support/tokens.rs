//! Tokens as issuers make them, and as forgers do.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

pub const SECRET: &str = "a secret of more than thirty-two bytes, for tests only; HS512 wants 64";

pub fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(vector(name)).expect("a test vector")
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs()
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

pub fn encode(part: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

/// A token with exactly this header and these claims, whatever they say, signed as `algorithm` says.
pub fn forge(header: &str, claims: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).expect("signs");
    format!("{signed}.{signature}")
}

/// Claims of issuer `joe` for audience `shop`, good for ten minutes, with `changes` on top; null takes a claim
/// away.
pub fn claims(changes: Value) -> String {
    let mut all = json!({ "iss": "joe", "aud": "shop", "sub": "u1", "exp": now() + 600 });
    for (name, value) in changes.as_object().expect("a test passes an object") {
        match value {
            Value::Null => drop(all.as_object_mut().expect("it is one").remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all.to_string()
}

/// A token signed with the vectors' key for the algorithm.
pub fn signed(algorithm: Algorithm, changes: Value) -> String {
    forge(&format!(r#"{{"alg":"{algorithm:?}"}}"#), &claims(changes), algorithm, &private_key(algorithm))
}

pub fn hs256(changes: Value) -> String {
    signed(Algorithm::HS256, changes)
}

/// An authenticator `shop` that asks for what [`claims`] gives, with more settings in `more` (`keys` at least).
pub fn authenticator(algorithms: &str, more: &str) -> String {
    format!(
        "authenticators:\n  shop:\n    jwt:\n      issuer: joe\n      audience: [shop]\n      leeway: 0s\n      \
         algorithms: [{algorithms}]\n{}\n",
        more.lines().map(|line| format!("      {line}")).collect::<Vec<_>>().join("\n")
    )
}

/// The one with the secret alone.
pub fn secret_authenticator() -> String {
    authenticator("HS256", &format!("keys: [{{ secret: \"{SECRET}\" }}]"))
}
