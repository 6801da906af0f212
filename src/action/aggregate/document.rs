//! The document: the values of the parts as they are, one behind the other, and what is to be said of those that failed.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::Part;
use super::board::Board;
use crate::exchange::Content;
use crate::http::response::Response;

/// The parts that failed, as a list (RFC 8941 §3.1): for caches and clients that don't look into the document.
pub const MISSING_PARTS: HeaderName = HeaderName::from_static("gatehouse-missing-parts");

pub fn respond(parts: &[Part], board: &Board) -> Response<Content> {
    let mut response = Response::new(StatusCode::OK, Content::Whole(document(parts, board)));
    response.fields.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(missing) = missing(parts, board) {
        response.fields.append(MISSING_PARTS, missing);
        // The next time it may be whole.
        response.fields.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn document(parts: &[Part], board: &Board) -> Bytes {
    let shown = || (0..parts.len()).filter(|place| !parts[*place].is_hidden);
    let value = |place: usize| board.value(place).unwrap_or(b"null");
    let size: usize = shown().map(|place| value(place).len() + parts[place].member.len() + 1).sum();
    let mut document = BytesMut::with_capacity(size + 64);
    for place in shown() {
        document.extend_from_slice(if document.is_empty() { b"{" } else { b"," });
        document.extend_from_slice(&parts[place].member);
        document.extend_from_slice(value(place));
    }
    let errors = errors(parts, board);
    if !errors.is_empty() {
        document.extend_from_slice(if document.is_empty() { b"{" } else { b"," });
        document.extend_from_slice(b"\"_errors\":");
        document.extend_from_slice(serde_json::Value::Array(errors).to_string().as_bytes());
    }
    document.extend_from_slice(if document.is_empty() { b"{}" } else { b"}" });
    document.freeze()
}

fn errors(parts: &[Part], board: &Board) -> Vec<serde_json::Value> {
    let errors = parts.iter().enumerate().filter_map(|(place, part)| {
        let outcome = board.outcome(place)?;
        let error = outcome.error.as_ref()?;
        Some(serde_json::json!({
            "part": &*part.name,
            "status": error.status().as_u16(),
            "reason": error.reason().code(),
            "time_ms": u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
        }))
    });
    errors.collect()
}

fn missing(parts: &[Part], board: &Board) -> Option<HeaderValue> {
    let failed = |place: &usize| board.outcome(*place).is_some_and(|outcome| outcome.error.is_some());
    let items: Vec<String> = (0..parts.len()).filter(failed).map(|place| item(&parts[place].name)).collect();
    let list = (!items.is_empty()).then(|| items.join(", "))?;
    HeaderValue::from_str(&list).ok()
}

/// A token, a string or a display string (RFC 9651 §3.3), the first of them that can hold the name.
fn item(name: &str) -> String {
    let is_token = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
    if is_token {
        return name.to_owned();
    }
    if name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let mut text = "%\"".to_owned();
    for byte in name.bytes() {
        match byte {
            b'%' | b'"' | 0..=0x1f | 0x7f.. => text.push_str(&format!("%{byte:02x}")),
            plain => text.push(char::from(plain)),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_items_of_a_structured_list() {
        for (name, wanted) in [
            ("orders", "orders"),
            ("a-b.c", "a-b.c"),
            ("1st", "\"1st\""),
            ("mid \"dle\"", "\"mid \\\"dle\\\"\""),
            ("é,%", "%\"%c3%a9,%25\""),
        ] {
            assert_eq!(item(name), wanted);
        }
    }
}
