//! `WWW-Authenticate` for refused tokens (RFC 6750 §3).

use http::HeaderValue;

use super::token::Fault;
use crate::identity::Refusal;
use crate::reason::Reason;

/// The protection space that challenges name: an authenticator.
#[derive(Debug)]
pub struct Realm {
    /// Whole, for requests without a token: an error code would tell them nothing (§3.1).
    bare: HeaderValue,
}

impl Realm {
    pub fn new(authenticator: &str) -> Realm {
        let name: String = authenticator.chars().filter(|c| printable(*c)).collect();
        Realm { bare: value(format!("Bearer realm=\"{name}\"")) }
    }

    pub fn token_missing(&self) -> Refusal {
        Refusal {
            reason: Reason::TokenMissing,
            detail: "this needs a token, and the request has none".into(),
            challenge: Some(self.bare.clone()),
        }
    }

    /// Why a token that was sent is refused. No challenge where another token would not help either.
    pub fn refusal(&self, fault: Fault) -> Refusal {
        let challenge = (fault.reason != Reason::KeysUnavailable).then(|| {
            let detail: String = fault.detail.chars().filter(|c| printable(*c)).collect();
            let bare = self.bare.to_str().unwrap_or("Bearer");
            value(format!("{bare}, error=\"invalid_token\", error_description=\"{detail}\""))
        });
        Refusal { reason: fault.reason, detail: fault.detail, challenge }
    }
}

/// What may stand in `error_description` and in a quoted string without escapes.
fn printable(c: char) -> bool {
    matches!(c, ' '..='~') && c != '"' && c != '\\'
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_those_of_rfc_6750() {
        let realm = Realm::new("sh\"op\\\u{e4}");
        let shown = |refusal: Refusal| refusal.challenge.map(|c| c.to_str().expect("ASCII").to_owned());
        assert_eq!(shown(realm.token_missing()).as_deref(), Some("Bearer realm=\"shop\""));
        let fault = Fault::new(Reason::TokenExpired, "the token has expired");
        assert_eq!(
            shown(realm.refusal(fault)).as_deref(),
            Some(
                "Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"the token has expired\""
            )
        );
        assert_eq!(shown(realm.refusal(Fault::new(Reason::KeysUnavailable, "no keys yet"))), None);
    }
}
