//! The gateway's own replies as problem documents (RFC 9457) with `Proxy-Status` (RFC 9209).
//!
//! Invariant: nothing in a document comes from inside. `type`, `status`, `title` and `code` are
//! constants of the reason; `detail` is a sentence of our own, never an address or a library's error text.

use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use serde::Serialize;

use super::interned;
use super::response::Response;
use crate::reason::Reason;

pub const CONTENT_TYPE_PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// By [`Reason::index`].
static PROXY_STATUS_VALUES: LazyLock<Box<[HeaderValue]>> =
    LazyLock::new(|| Reason::ALL.iter().map(|reason| interned::value(&proxy_status(*reason))).collect());

/// The reply for a reason. The caller adds what belongs to the reason alone: `WWW-Authenticate`,
/// `Retry-After`, `Allow`.
pub fn respond(reason: Reason, detail: &str, request_id: &str) -> Response<Bytes> {
    let mut response = Response::new(reason.status(), document(reason, detail, request_id));
    let fields = &mut response.fields;
    fields.append(CONTENT_TYPE, CONTENT_TYPE_PROBLEM);
    fields.append(CACHE_CONTROL, NO_STORE);
    fields.append(PROXY_STATUS, proxy_status_of(reason));
    response
}

/// What `Proxy-Status` says for a reason (RFC 9209 §2).
pub fn proxy_status_of(reason: Reason) -> HeaderValue {
    PROXY_STATUS_VALUES[reason.index()].clone()
}

/// The members in the order in which they are sent. The type is `about:blank`: what kind of problem it
/// is says `code`, which needs no URI to be told from others.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    status: u16,
    title: &'static str,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
}

fn document(reason: Reason, detail: &str, request_id: &str) -> Bytes {
    let document = Document {
        r#type: "about:blank",
        status: reason.status().as_u16(),
        title: reason.title(),
        detail,
        code: reason.code(),
        request_id,
    };
    let mut text = Vec::with_capacity(192 + detail.len() + request_id.len());
    serde_json::to_writer(&mut text, &document).expect("a struct of strings and a number always serialises");
    text.into()
}

/// `details` is the code: it says more than the registered error types do, and nothing else that would
/// be safe to say is known here.
fn proxy_status(reason: Reason) -> HeaderValue {
    let text = match reason.proxy_error() {
        Some(error) => format!("gatehouse; error={error}; details=\"{}\"", reason.code()),
        None => format!("gatehouse; details=\"{}\"", reason.code()),
    };
    HeaderValue::from_str(&text).expect("codes and error types are lower-case words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_says_why_in_body_and_headers() {
        let response = respond(Reason::RateLimited, "limit per-client is used up", "req-1");
        assert_eq!(response.status, 429);
        let headers = response.fields.to_map();
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers[PROXY_STATUS], "gatehouse; error=http_request_denied; details=\"rate_limited\"");
        assert_eq!(
            response.body,
            "{\"type\":\"about:blank\",\"status\":429,\"title\":\"Too many requests\",\
             \"detail\":\"limit per-client is used up\",\"code\":\"rate_limited\",\"request_id\":\"req-1\"}"
        );
    }

    #[test]
    fn foreign_text_is_escaped() {
        let detail = "a \"quote\", a \\, a \n, a \u{1}, an é and a 🦀";
        let response = respond(Reason::RouteNotFound, detail, "\"}");
        let value: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(value["detail"], detail);
        assert_eq!(value["request_id"], "\"}");
    }

    #[test]
    fn every_reason_has_a_proxy_status_of_structured_field_form() {
        for reason in Reason::ALL {
            let response = respond(*reason, "", "");
            let value = response.fields.value(&PROXY_STATUS).unwrap();
            let value = value.to_str().unwrap();
            assert!(value.starts_with("gatehouse; "), "{value}");
            assert!(value.ends_with(&format!("details=\"{}\"", reason.code())), "{value}");
            // Inside the quotes nothing needs an escape, and an error type is a token.
            assert_eq!(value.matches('"').count(), 2);
            assert!(!value.contains('\\'));
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }
}
