//! Claims as header fields for the service behind: made once a token, when it is accepted.
//!
//! A field must say exactly what the claim says. Where the way a field is written could make it say
//! something else, the token is refused: blanks that a parser would trim, a comma in an element of a
//! list, control characters.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::token::Fault;
use crate::identity::{find, scalar_text};
use crate::reason::Reason;

/// The fields for those of the `wanted` claims that the token has and that are not null or empty.
///
/// Strings are written as they are (in UTF-8), numbers and booleans as in JSON, arrays of these joined
/// by a comma, or by a space for `scope` and `scp` (RFC 8693 §4.2), everything deeper as compact JSON.
pub fn build(
    wanted: &[(String, HeaderName)],
    claims: &Map<String, Value>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    let mut fields = Vec::with_capacity(wanted.len());
    for (claim, name) in wanted {
        let Some(value) = find(claims, claim) else { continue };
        let text = written(claim, value).ok_or_else(|| fault(claim))?;
        if text.is_empty() {
            continue;
        }
        if text.trim_ascii() != text {
            return Err(fault(claim));
        }
        let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| fault(claim))?;
        fields.push((name.clone(), value));
    }
    Ok(fields)
}

fn fault(claim: &str) -> Fault {
    Fault {
        reason: Reason::TokenMalformed,
        detail: format!("the token's claim {claim:?} cannot be written as a header field").into(),
    }
}

fn written<'c>(claim: &str, value: &'c Value) -> Option<Cow<'c, str>> {
    match value {
        Value::Null => Some(Cow::Borrowed("")),
        Value::Array(elements) => {
            let separator = if matches!(claim, "scope" | "scp") { ' ' } else { ',' };
            let Some(texts) = elements.iter().map(scalar_text).collect::<Option<Vec<_>>>() else {
                return serde_json::to_string(value).ok().map(Cow::Owned);
            };
            let ambiguous = |text: &Cow<'_, str>| text.contains(separator) || text.trim_ascii() != &**text;
            if texts.iter().any(ambiguous) {
                return None;
            }
            Some(Cow::Owned(texts.join(&separator.to_string())))
        }
        Value::Object(_) => serde_json::to_string(value).ok().map(Cow::Owned),
        single => scalar_text(single),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(claim: &str, value: Value) -> Result<Option<String>, Reason> {
        let wanted = [(claim.to_owned(), HeaderName::from_static("x-claim"))];
        let claims = json!({ claim: value });
        build(&wanted, claims.as_object().expect("made above"))
            .map(|fields| fields.first().map(|(_, v)| String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .map_err(|fault| fault.reason)
    }

    #[test]
    fn claims_are_written_as_documented() {
        for (claim, value, expected) in [
            ("sub", json!("u1"), "u1"),
            ("name", json!("Jürgen Groß"), "Jürgen Groß"),
            ("n", json!(42), "42"),
            ("n", json!(1.5), "1.5"),
            ("b", json!(false), "false"),
            ("roles", json!(["admin", "editor", 7]), "admin,editor,7"),
            ("scope", json!("a b"), "a b"),
            ("scope", json!(["a", "b"]), "a b"),
            ("scp", json!(["a,b", "c"]), "a,b c"),
            ("address", json!({ "city": "Ulm" }), r#"{"city":"Ulm"}"#),
            ("deep", json!([["a"], 1]), r#"[["a"],1]"#),
        ] {
            assert_eq!(field(claim, value.clone()), Ok(Some(expected.into())), "{claim}: {value}");
        }
        for nothing in [json!(null), json!(""), json!([])] {
            assert_eq!(field("x", nothing.clone()), Ok(None), "{nothing}");
        }
    }

    #[test]
    fn nothing_is_written_that_would_be_read_differently() {
        for (claim, value) in [
            ("sub", json!("a\r\nx-admin: true")),
            ("sub", json!("a\nb")),
            ("sub", json!("a\u{0}b")),
            ("sub", json!("a\u{7f}b")),
            ("sub", json!(" admin")),
            ("sub", json!("admin ")),
            ("sub", json!(" ")),
            ("roles", json!(["user,admin"])),
            ("roles", json!(["user", " admin"])),
            ("scope", json!(["read write"])),
        ] {
            assert_eq!(field(claim, value.clone()), Err(Reason::TokenMalformed), "{claim}: {value}");
        }
    }
}
