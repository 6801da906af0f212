//! The compact form of a signed token (RFC 7515 §3.1), taken apart with nothing believed yet.
//!
//! A header can ask for much: a key of its own, a URL to fetch one from, another way to compute the
//! signature. All of it is refused; a header only names an algorithm and, perhaps, a key we have.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::json;
use crate::reason::Reason;

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// The longest `kid`.
const MAX_KID_BYTES: usize = 512;
/// Header members that bring a key or say where to get one: the classic way to have a token checked
/// with its forger's key (RFC 8725 §3.10).
const FOREIGN_KEYS: [&str; 4] = ["jwk", "jku", "x5u", "x5c"];

/// What is wrong with a token, in words that may be shown to whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub reason: Reason,
    pub detail: std::borrow::Cow<'static, str>,
}

impl Fault {
    pub fn new(reason: Reason, detail: &'static str) -> Fault {
        Fault { reason, detail: detail.into() }
    }

    pub fn malformed(detail: &'static str) -> Fault {
        Fault::new(Reason::TokenMalformed, detail)
    }
}

/// A token with a sound form. Nothing in it is true until `Key::verify` has said so.
#[derive(Debug)]
pub struct Unverified<'t> {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    /// What the signature is over: both first parts with the dot between them.
    pub signed: &'t str,
    /// Still in base64url, whose form has been checked.
    pub signature: &'t str,
    /// The claims' bytes, not yet parsed.
    pub claims: Vec<u8>,
}

/// Takes a token apart. The algorithm is one that we know, not necessarily one that is allowed.
pub fn parse(token: &[u8]) -> Result<Unverified<'_>, Fault> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Fault::malformed("the token is longer than 16 KiB"));
    }
    let token = std::str::from_utf8(token).map_err(|_| Fault::malformed("the token is not ASCII text"))?;
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::malformed("the token does not have three parts"));
    };
    let (algorithm, kid) = read_header(&decode(header)?)?;
    let claims = decode(claims)?;
    if signature.is_empty() {
        return Err(Fault::malformed("the token has no signature"));
    }
    decode(signature)?;
    let signed = &token[..token.len() - signature.len() - 1];
    Ok(Unverified { algorithm, kid, signed, signature, claims })
}

/// Base64url without padding, and with no second spelling of the same bytes (RFC 7515 §2).
fn decode(part: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Fault::malformed("a part of the token is not base64url without padding"))
}

fn read_header(text: &[u8]) -> Result<(Algorithm, Option<String>), Fault> {
    let header = json::object(text)
        .map_err(|_| Fault::malformed("the token's header is not a JSON object with each member once"))?;
    let Some(Value::String(name)) = header.get("alg") else {
        return Err(Fault::malformed("the token's header has no alg"));
    };
    let algorithm = algorithm(name)
        .ok_or_else(|| Fault::new(Reason::TokenAlgorithm, "the token's algorithm is not allowed"))?;
    if FOREIGN_KEYS.iter().any(|member| header.contains_key(*member)) {
        return Err(Fault::malformed("the token's header brings or points to a key of its own"));
    }
    refuse_extensions(&header)?;
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= MAX_KID_BYTES => Some(kid.clone()),
        Some(_) => return Err(Fault::malformed("the token's kid is not a string of a bearable length")),
    };
    Ok((algorithm, kid))
}

/// The names of RFC 7518 §3.1, and `Ed25519`, which RFC 9864 §2.2 prefers over `EdDSA`. They are
/// case-sensitive, so no spelling of `none` is ever a name.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        name => Algorithm::from_str(name).ok(),
    }
}

/// `crit` names extensions without which the token must be refused (RFC 7515 §4.1.11). We know one,
/// `b64` (RFC 7797), and of that only the value that changes nothing.
fn refuse_extensions(header: &Map<String, Value>) -> Result<(), Fault> {
    if !matches!(header.get("b64"), None | Some(Value::Bool(true))) {
        return Err(Fault::malformed("the token's claims are not encoded (b64)"));
    }
    match header.get("crit") {
        None => Ok(()),
        Some(Value::Array(names)) if names.len() == 1 && names[0] == "b64" && header.contains_key("b64") => {
            Ok(())
        }
        Some(_) => Err(Fault::malformed("the token's header has a crit extension that is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"), "c2ln")
    }

    fn reason(token: &str) -> Reason {
        parse(token.as_bytes()).expect_err(token).reason
    }

    #[test]
    fn a_sound_token_comes_apart() {
        let text = token(r#"{"alg":"ES256","kid":"../../etc/passwd","typ":"whatever","extra":{"a":1}}"#);
        let parsed = parse(text.as_bytes()).expect("sound");
        assert_eq!(parsed.algorithm, Algorithm::ES256);
        assert_eq!(parsed.kid.as_deref(), Some("../../etc/passwd"), "a kid is compared, never opened");
        assert_eq!(format!("{}.{}", parsed.signed, parsed.signature), text);
        assert_eq!(parsed.claims, b"{}");
        let b64 = token(r#"{"alg":"HS256","b64":true,"crit":["b64"]}"#);
        assert!(parse(b64.as_bytes()).is_ok());
        assert_eq!(algorithm("Ed25519"), Some(Algorithm::EdDSA));
    }

    #[test]
    fn no_spelling_of_none_is_an_algorithm() {
        for name in ["none", "None", "NONE", "nOnE", "", " none", "hs256", "HS1", "RSA-OAEP", "A128KW"] {
            let text = token(&format!(r#"{{"alg":"{name}"}}"#));
            assert_eq!(reason(&text), Reason::TokenAlgorithm, "{name}");
            let unsigned = &text[..text.len() - "c2ln".len()];
            assert_eq!(reason(unsigned), Reason::TokenAlgorithm, "{name} without a signature");
        }
    }

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        let long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(513));
        for header in [
            r#"{}"#,
            r#"[]"#,
            r#"{"alg":null}"#,
            r#"{"alg":["HS256"]}"#,
            r#"{"alg":"HS256","alg":"none"}"#,
            r#"{"alg":"none","alg":"HS256"}"#,
            r#"{"alg":"HS256","kid":1}"#,
            r#"{"alg":"HS256","kid":["a"]}"#,
            r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
            r#"{"alg":"RS256","jwk":{"kty":"RSA"}}"#,
            r#"{"alg":"RS256","jku":"https://attacker.example/jwks.json"}"#,
            r#"{"alg":"RS256","x5u":"https://attacker.example/x.pem"}"#,
            r#"{"alg":"RS256","x5c":["MII"]}"#,
            r#"{"alg":"HS256","crit":[]}"#,
            r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
            r#"{"alg":"HS256","crit":["b64"]}"#,
            r#"{"alg":"HS256","crit":"b64","b64":true}"#,
            r#"{"alg":"HS256","crit":["b64","b64"],"b64":true}"#,
            r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"HS256","b64":false}"#,
            r#"{"alg":"HS256","b64":"true"}"#,
            &long,
        ] {
            assert_eq!(reason(&token(header)), Reason::TokenMalformed, "{header}");
        }
    }

    #[test]
    fn the_form_is_exact() {
        let good = token(r#"{"alg":"HS256"}"#);
        let (header, rest) = good.split_once('.').expect("three parts");
        for bad in [
            String::new(),
            ".".into(),
            "..".into(),
            "a.b".into(),
            format!("{good}.x"),
            format!("{good}."),
            format!(".{good}"),
            format!("{good}="),
            format!("{good} "),
            format!(" {good}"),
            format!("{header}=.{rest}"),
            good.replace("c2ln", "c2l_+"),
            good.replace("c2ln", ""),
            // The last character carries bits that no byte uses: another spelling of the same bytes.
            good.replace("c2ln", "c2l"),
            format!("{}{}", good, "A".repeat(MAX_TOKEN_BYTES)),
        ] {
            assert_eq!(reason(&bad), Reason::TokenMalformed, "{bad:.60}");
        }
        assert_eq!(parse(b"\xff\xfe.a.b").expect_err("not text").reason, Reason::TokenMalformed);
    }
}
