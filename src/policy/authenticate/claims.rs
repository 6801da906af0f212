//! The claims that say whether a token is meant for us, now (RFC 7519 §4.1).
//!
//! Called only for claims under a verified signature: what it refuses with tells about the token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::token::Fault;
use crate::reason::Reason;

/// The largest time that is taken, in seconds: beyond it a float skips whole seconds.
const MAX_SECONDS: f64 = 9_007_199_254_740_992.0;

/// What an authenticator asks of a token's claims.
#[derive(Debug)]
pub struct Expected {
    pub issuer: Option<String>,
    /// Empty: not checked.
    pub audience: Vec<String>,
    pub leeway: Duration,
}

/// What the checks found out on their way.
#[derive(Debug)]
pub struct Accepted {
    pub subject: Option<String>,
    pub expires_at: SystemTime,
    /// `exp` and the leeway: from here on the token is refused.
    pub good_until: SystemTime,
}

impl Expected {
    pub fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<Accepted, Fault> {
        let issuer = text(claims, "iss", "the iss claim is not a string")?;
        let subject = text(claims, "sub", "the sub claim is not a string")?;
        let audience = audience(claims)?;
        let not_before = seconds(claims, "nbf", "the nbf claim is not a time in seconds")?;
        seconds(claims, "iat", "the iat claim is not a time in seconds")?;
        let expires = seconds(claims, "exp", "the exp claim is not a time in seconds")?
            .ok_or_else(|| Fault::malformed("the token has no exp claim"))?;

        if let Some(expected) = &self.issuer
            && issuer != Some(expected)
        {
            return Err(Fault::new(Reason::TokenIssuer, "the token is from another issuer"));
        }
        if !self.audience.is_empty() && !audience.iter().any(|a| self.audience.iter().any(|e| e == a)) {
            return Err(Fault::new(Reason::TokenAudience, "the token is for another audience"));
        }
        if not_before.is_some_and(|begin| now.checked_add(self.leeway).is_some_and(|latest| latest < begin)) {
            return Err(Fault::new(Reason::TokenNotYetValid, "the token is not valid yet"));
        }
        // RFC 7519 §4.1.4: on or after the time. A sum that no clock can show never comes.
        let good_until = expires.checked_add(self.leeway).unwrap_or(expires);
        if now >= good_until {
            return Err(Fault::new(Reason::TokenExpired, "the token has expired"));
        }
        Ok(Accepted { subject: subject.map(str::to_owned), expires_at: expires, good_until })
    }
}

fn text<'c>(
    claims: &'c Map<String, Value>,
    name: &str,
    fault: &'static str,
) -> Result<Option<&'c str>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Fault::malformed(fault)),
    }
}

fn audience(claims: &Map<String, Value>) -> Result<Vec<&str>, Fault> {
    let fault = || Fault::malformed("the aud claim is neither a string nor an array of strings");
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(several)) => several.iter().map(|a| a.as_str().ok_or_else(fault)).collect(),
        Some(_) => Err(fault()),
    }
}

/// A NumericDate: seconds since 1970, a fraction allowed (RFC 7519 §2).
fn seconds(
    claims: &Map<String, Value>,
    name: &str,
    fault: &'static str,
) -> Result<Option<SystemTime>, Fault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    value
        .as_f64()
        .filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds))
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .and_then(|since| UNIX_EPOCH.checked_add(since))
        .map(Some)
        .ok_or_else(|| Fault::malformed(fault))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn check(claims: Value) -> Result<Accepted, Fault> {
        let expected = Expected {
            issuer: Some("https://id.example.com/".into()),
            audience: vec!["shop-api".into(), "shop".into()],
            leeway: Duration::from_secs(30),
        };
        let mut all = json!({ "iss": "https://id.example.com/", "aud": "shop-api", "exp": NOW + 60 });
        for (name, value) in claims.as_object().expect("a test passes an object") {
            if value == "absent" {
                all.as_object_mut().expect("made above").remove(name);
            } else {
                all[name] = value.clone();
            }
        }
        expected.check(all.as_object().expect("made above"), UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn each_claim_is_told_apart() {
        use Reason::*;
        let cases = [
            (json!({}), None),
            (json!({ "sub": "u1", "iat": NOW, "nbf": NOW, "jti": 7 }), None),
            (json!({ "exp": NOW - 29 }), None),
            (json!({ "exp": NOW as f64 - 29.5 }), None),
            (json!({ "exp": NOW - 30 }), Some(TokenExpired)),
            (json!({ "exp": 0 }), Some(TokenExpired)),
            (json!({ "exp": 9_007_199_254_740_992_u64 }), None),
            (json!({ "nbf": NOW + 30 }), None),
            (json!({ "nbf": NOW + 31 }), Some(TokenNotYetValid)),
            (json!({ "aud": ["x", "shop"] }), None),
            (json!({ "aud": ["x", "SHOP"] }), Some(TokenAudience)),
            (json!({ "aud": [] }), Some(TokenAudience)),
            (json!({ "aud": "shop-api x" }), Some(TokenAudience)),
            (json!({ "aud": "absent" }), Some(TokenAudience)),
            (json!({ "iss": "https://id.example.com" }), Some(TokenIssuer)),
            (json!({ "iss": "absent" }), Some(TokenIssuer)),
            (json!({ "iss": ["https://id.example.com/"] }), Some(TokenMalformed)),
            (json!({ "aud": ["shop", 1] }), Some(TokenMalformed)),
            (json!({ "aud": { "shop": 1 } }), Some(TokenMalformed)),
            (json!({ "aud": null }), Some(TokenMalformed)),
            (json!({ "sub": 1 }), Some(TokenMalformed)),
            (json!({ "exp": "absent" }), Some(TokenMalformed)),
            (json!({ "exp": (NOW + 60).to_string() }), Some(TokenMalformed)),
            (json!({ "exp": null }), Some(TokenMalformed)),
            (json!({ "exp": -1 }), Some(TokenMalformed)),
            (json!({ "exp": 1e300 }), Some(TokenMalformed)),
            (json!({ "nbf": "soon" }), Some(TokenMalformed)),
            (json!({ "nbf": [1] }), Some(TokenMalformed)),
            (json!({ "iat": true }), Some(TokenMalformed)),
        ];
        for (claims, expected) in cases {
            assert_eq!(check(claims.clone()).err().map(|f| f.reason), expected, "{claims}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_not_checked() {
        let lax = Expected { issuer: None, audience: Vec::new(), leeway: Duration::ZERO };
        let claims = json!({ "exp": NOW + 1, "aud": ["anyone"], "iss": "anyone", "sub": "u1" });
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let accepted = lax.check(claims.as_object().expect("an object"), now).expect("accepted");
        assert_eq!(accepted.subject.as_deref(), Some("u1"));
        assert_eq!(accepted.expires_at, now + Duration::from_secs(1));
        assert_eq!(accepted.good_until, accepted.expires_at);
    }
}
