//! JSON Web Key Sets (RFC 7517 §5), from a file or from an issuer's URL.
//!
//! A key that cannot be used is left out with a note and takes no other key with it. A document that
//! is no key set at all is refused whole, so that whoever holds an older set can keep it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json;
use super::key::{Key, KeyError};
use super::token::algorithm;

/// The largest document that is read.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;
/// The most keys of a set that are used; issuers publish two or three.
pub const MAX_KEYS: usize = 100;
const MAX_KID_BYTES: usize = 512;

/// Where a set comes from. A secret that anyone can fetch is none, so only files may hold `oct` keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    File,
    Url,
}

/// Why a document is not a key set.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    #[error("the key set is larger than 256 KiB")]
    TooLarge,
    #[error("the key set is not a JSON object with each member once")]
    Json(#[source] serde_json::Error),
    #[error("the document has no `keys` array")]
    NoKeys,
    #[error("none of the {0} keys of the set can be used")]
    NoneUsable(usize),
}

/// The usable keys of a document, and a note for each one that had to be left out.
#[derive(Debug)]
pub struct KeyList {
    pub keys: Vec<Key>,
    pub notes: Vec<String>,
}

/// Reads a key set. One that says `"keys": []` is a set, and empty; one with keys of which none can
/// be used is an error.
pub fn parse(document: &[u8], origin: Origin) -> Result<KeyList, JwksError> {
    if document.len() > MAX_JWKS_BYTES {
        return Err(JwksError::TooLarge);
    }
    let set = json::object(document).map_err(JwksError::Json)?;
    let Some(Value::Array(written)) = set.get("keys") else { return Err(JwksError::NoKeys) };
    let mut list = KeyList { keys: Vec::new(), notes: Vec::new() };
    for (position, jwk) in written.iter().enumerate() {
        if list.keys.len() == MAX_KEYS {
            list.notes.push(format!("only the first {MAX_KEYS} keys are used"));
            break;
        }
        match read_key(jwk, origin) {
            Ok(key) if list.keys.iter().any(|other| other.repeats(&key)) => {}
            Ok(key) => list.keys.push(key),
            Err(Unusable::NotForUs) => {}
            Err(Unusable::Wrong(why)) => list.notes.push(format!("key {}: {why}", name(jwk, position))),
        }
    }
    if list.keys.is_empty() && !written.is_empty() {
        return Err(JwksError::NoneUsable(written.len()));
    }
    Ok(list)
}

/// How a note calls a key: its `kid` where that can be printed, else its place in the list.
fn name(jwk: &Value, position: usize) -> String {
    match jwk.get("kid").and_then(Value::as_str) {
        Some(kid) if kid.len() <= 64 => format!("{kid:?}"),
        _ => format!("number {}", position + 1),
    }
}

enum Unusable {
    /// Made for encryption or for signing: it belongs in the set, only not to us.
    NotForUs,
    Wrong(String),
}

impl From<KeyError> for Unusable {
    fn from(error: KeyError) -> Self {
        Unusable::Wrong(error.to_string())
    }
}

/// Foreign text for a note: escaped, and not at any length.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(32).collect::<String>())
}

fn wrong(why: impl Into<String>) -> Unusable {
    Unusable::Wrong(why.into())
}

fn read_key(jwk: &Value, origin: Origin) -> Result<Key, Unusable> {
    let jwk = jwk.as_object().ok_or_else(|| wrong("it is not an object"))?;
    check_use(jwk)?;
    let mut key = match required_text(jwk, "kty")? {
        "RSA" => Key::rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?)?,
        "EC" => read_point(jwk)?,
        "OKP" => match required_text(jwk, "crv")? {
            "Ed25519" => Key::ed25519(&bytes(jwk, "x")?)?,
            other => return Err(wrong(format!("the curve {} is not supported", quoted(other)))),
        },
        "oct" if origin == Origin::Url => {
            return Err(wrong("a secret (kty oct) does not belong behind a URL that anyone can fetch"));
        }
        "oct" => Key::secret(&bytes(jwk, "k")?)?,
        other => return Err(wrong(format!("the key type {} is not supported", quoted(other)))),
    };
    key.kid = match text(jwk, "kid")? {
        Some(kid) if kid.len() > MAX_KID_BYTES => return Err(wrong("its kid is too long")),
        kid => kid.map(Box::from),
    };
    if let Some(name) = text(jwk, "alg")? {
        let only = algorithm(name).filter(|only| key.key_type.fits(*only));
        key.only = Some(only.ok_or_else(|| {
            wrong(format!("its alg {} does not fit a {} for signatures", quoted(name), key.key_type))
        })?);
    }
    Ok(key)
}

/// `use` and `key_ops` (RFC 7517 §4.2 and §4.3).
fn check_use(jwk: &Map<String, Value>) -> Result<(), Unusable> {
    match text(jwk, "use")? {
        None | Some("sig") => {}
        Some(_) => return Err(Unusable::NotForUs),
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|o| o == "verify") => Ok(()),
        Some(Value::Array(_)) => Err(Unusable::NotForUs),
        Some(_) => Err(wrong("its key_ops is not an array")),
    }
}

/// RFC 7518 §6.2.1: coordinates have their full length, leading zeros included.
fn read_point(jwk: &Map<String, Value>) -> Result<Key, Unusable> {
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    let curve = required_text(jwk, "crv")?;
    match curve {
        "P-256" | "P-384" if x.len() != y.len() => Err(wrong("its coordinates differ in length")),
        "P-256" => Ok(Key::p256(&point)?),
        "P-384" => Ok(Key::p384(&point)?),
        other => Err(wrong(format!("the curve {} is not supported", quoted(other)))),
    }
}

fn text<'j>(jwk: &'j Map<String, Value>, member: &str) -> Result<Option<&'j str>, Unusable> {
    match jwk.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(format!("its {member} is not a string"))),
    }
}

fn required_text<'j>(jwk: &'j Map<String, Value>, member: &str) -> Result<&'j str, Unusable> {
    text(jwk, member)?.ok_or_else(|| wrong(format!("it has no {member}")))
}

fn bytes(jwk: &Map<String, Value>, member: &str) -> Result<Vec<u8>, Unusable> {
    URL_SAFE_NO_PAD
        .decode(required_text(jwk, member)?)
        .map_err(|_| wrong(format!("its {member} is not base64url without padding")))
}
