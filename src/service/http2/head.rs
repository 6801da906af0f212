//! Heads of requests to instances, as HTTP/2 has them.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

use crate::service::Head;
use crate::service::http1::Framing;

/// What means a connection of HTTP/1.1, or has a place of its own (RFC 9113 §8.2.2, §8.3.1).
const NOT_SENT: [HeaderName; 7] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HOST,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The head of a request for `host`. `None` when that is no authority.
pub fn request(head: &Head, scheme: Scheme, host: &[u8], framing: Framing) -> Option<Request<()>> {
    let mut fields = head.headers.to_map();
    let had_length = fields.contains_key(CONTENT_LENGTH);
    for name in &NOT_SENT {
        fields.remove(name);
    }
    // The only one that HTTP/2 knows.
    if fields.get(TE).is_some_and(|value| value != "trailers") {
        fields.remove(TE);
    }
    add_lines(&mut fields, head.lines.as_bytes());
    match framing {
        Framing::Length(length) => {
            fields.insert(CONTENT_LENGTH, length.into());
        }
        Framing::Empty if had_length => {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Framing::Empty | Framing::Chunked => {}
    }
    let mut parts = Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(Authority::from_maybe_shared(Bytes::copy_from_slice(host)).ok()?);
    parts.path_and_query = Some(head.target.clone());
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = fields;
    Some(request)
}

/// The lines were made of names and values.
fn add_lines(fields: &mut HeaderMap, lines: &[u8]) {
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;
    use crate::http::field_lines::FieldLines;
    use crate::http::fields::Fields;

    fn made(lines: &[(&'static str, &'static str)], host: &[u8], framing: Framing) -> Option<Request<()>> {
        let mut headers = Fields::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut ours = FieldLines::default();
        ours.push(&http::header::VIA, &HeaderValue::from_static("1.1 gatehouse"));
        ours.push(&HeaderName::from_static("x-empty"), &HeaderValue::from_static(""));
        let target = PathAndQuery::from_static("/a?b=c");
        let head =
            Head { method: Method::POST, target, host: None, headers, lines: ours, informational: None };
        request(&head, Scheme::HTTPS, host, framing)
    }

    #[test]
    fn what_belongs_to_a_connection_of_http1_is_left_out() {
        let lines = [
            ("connection", "te"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("keep-alive", "1"),
            ("host", "other"),
            ("content-length", "7"),
            ("x-one", "1"),
            ("x-one", "2"),
        ];
        let made = made(&lines, b"users.internal:8443", Framing::Length(12)).expect("a good host");
        assert_eq!(made.uri(), "https://users.internal:8443/a?b=c");
        let mut fields: Vec<_> = made
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        fields.sort();
        let expected =
            ["content-length: 12", "te: trailers", "via: 1.1 gatehouse", "x-empty: ", "x-one: 1", "x-one: 2"];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_length_of_nothing_is_told_by_who_said_so() {
        let length = |lines: &[_]| {
            let made = made(lines, b"a", Framing::Empty).expect("a good host");
            made.headers().get(CONTENT_LENGTH).cloned()
        };
        assert_eq!(length(&[("content-length", "0")]), Some(HeaderValue::from_static("0")));
        assert_eq!(length(&[]), None);
        let other = made(&[("te", "gzip")], b"a", Framing::Chunked).expect("a good host");
        assert!(!other.headers().contains_key(TE));
        assert!(made(&[], b"a b", Framing::Empty).is_none());
    }
}
