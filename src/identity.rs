//! Who a request is made for, or why it is refused: what authentication hands to everything behind it.
//!
//! An [`Identity`] exists only for a token whose signature and claims have been checked, or a certificate that was
//! checked in the handshake.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::reason::Reason;

/// The verified claims of a token. Shared with the cache and the access log, so never changed.
#[derive(Debug, PartialEq)]
pub struct Identity {
    /// The name of the authenticator that accepted the token.
    pub authenticator: Arc<str>,
    /// The `sub` claim.
    pub subject: Option<String>,
    pub claims: Map<String, Value>,
    /// The fields that `claim_headers` asks for, ready to be set on the request to the service.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The `exp` claim, without leeway.
    pub expires_at: SystemTime,
}

impl Identity {
    /// A claim by its exact name, else by a path of names with dots: `realm_access.roles`.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        find(&self.claims, name)
    }
}

/// The names in the certificate that a client showed: of hosts, in lower case, and URIs. Names with a star, which are
/// many at once, are left out.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientNames(Box<[String]>);

impl ClientNames {
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        ClientNames(names.into_iter().filter(|name| !name.contains('*')).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Why a request was turned away. Everything in it may be shown to the client: no key material and
/// nothing out of the token.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: Cow<'static, str>,
    /// The value of `WWW-Authenticate` (RFC 6750 §3); absent where a token would not help.
    pub challenge: Option<HeaderValue>,
}

/// The text of a claim that is a single value.
pub fn scalar_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The exact name wins at every level, so that `https://id.example.com/roles` is one name; then the
/// text before a dot names an object to look into.
pub(crate) fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    name.match_indices('.').find_map(|(dot, _)| match claims.get(&name[..dot]) {
        Some(Value::Object(inner)) => find(inner, &name[dot + 1..]),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().expect("a test passes an object").clone()
    }

    #[test]
    fn an_exact_name_wins_over_a_path() {
        let claims = claims(json!({
            "a.b": 1, "a": { "b": 2, "c": { "d": 3 }, "x.y": 4 },
            "https://id.example.com/roles": ["admin"], "text": "not an object",
        }));
        assert_eq!(find(&claims, "a.b"), Some(&json!(1)));
        assert_eq!(find(&claims, "a.c.d"), Some(&json!(3)));
        assert_eq!(find(&claims, "a.x.y"), Some(&json!(4)));
        assert_eq!(find(&claims, "https://id.example.com/roles"), Some(&json!(["admin"])));
        for absent in ["a.q", "text.b", "", ".", "a.", ".a", "a..b"] {
            assert_eq!(find(&claims, absent), None, "{absent:?}");
        }
    }

    #[test]
    fn only_single_values_have_a_text() {
        assert_eq!(scalar_text(&json!("x")).as_deref(), Some("x"));
        assert_eq!(scalar_text(&json!(42)).as_deref(), Some("42"));
        assert_eq!(scalar_text(&json!(true)).as_deref(), Some("true"));
        for none in [json!(null), json!([]), json!({})] {
            assert_eq!(scalar_text(&none), None);
        }
    }
}
