//! Heads of requests and responses, where HTTP/2 has them different from what lies behind.

use std::rc::Rc;

use h2::RecvStream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version, header};
use hyper::body::Body;

use super::stream::Interims;
use crate::exchange::{Arrived, Incoming, ResponseBody};
use crate::http::body::{ClientBody, Http2Body};
use crate::http::response::Response;

pub fn arrived(request: Request<RecvStream>, interims: &Rc<Interims>) -> Arrived {
    let (mut head, stream) = request.into_parts();
    let (mut length, mut expects, mut crumbs) = (None, None, 0);
    for (name, value) in &head.headers {
        match *name {
            header::CONTENT_LENGTH => length = length.or(Some(value)),
            header::EXPECT => expects = expects.or(Some(value)),
            header::COOKIE => crumbs += 1,
            _ => {}
        }
    }
    let declared = length.and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
    let body = if stream.is_end_stream() {
        ClientBody::Empty
    } else {
        let waits = expects.is_some_and(|value| waits_for_continue(value.as_bytes()));
        let on_wanted = waits.then(|| {
            let interims = interims.clone();
            Box::new(move || interims.go_on()) as Box<dyn FnOnce()>
        });
        ClientBody::Http2(Http2Body { stream, on_wanted })
    };
    if crumbs > 1 {
        join_cookies(&mut head.headers);
    }
    let incoming = Incoming { target: head.uri.into(), fields: head.headers.into(), body, declared };
    Arrived {
        method: head.method,
        version: Version::HTTP_2,
        incoming,
        upgrade: None,
        interim: Some(interims.clone()),
    }
}

/// What asks for anything else is refused where requests are understood.
fn waits_for_continue(expectations: &[u8]) -> bool {
    expectations.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"100-continue"))
}

/// What h2 lets pass and RFC 9113 §8.2.1 calls malformed: a value with blanks around it, which HTTP/1.1 would take off,
/// and a length that says nothing.
pub fn is_malformed(request: &Request<RecvStream>) -> bool {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    request.headers().iter().any(|(name, value)| match value.as_bytes() {
        [] => *name == header::CONTENT_LENGTH,
        [first, ..] if is_blank(first) => true,
        [.., last] => is_blank(last),
    })
}

/// HTTP/2 may split the cookies into several fields; anywhere else there is one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let joined = headers.get_all(header::COOKIE).iter().map(|crumb| crumb.as_bytes()).collect::<Vec<_>>();
    let joined = joined.join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

/// The head of a response as one of HTTP/2.
pub fn of(response: &Response<ResponseBody>, is_head: bool) -> http::Response<()> {
    let Response { status, fields, body, .. } = response;
    let mut headers = fields.to_map();
    let (mut misplaced, mut has_length, mut has_date) = (false, false, false);
    for (name, value) in &mut headers {
        match *name {
            header::CONTENT_LENGTH => has_length = true,
            header::DATE => has_date = true,
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => misplaced = true,
            _ => {}
        }
        keep_out_of_table(name, value);
    }
    if misplaced {
        // RFC 9113 §8.2.2: these have no meaning in HTTP/2 and make a response malformed.
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            headers.remove(name);
        }
    }
    if has_length && *status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6: some clients would wait for what it promises.
        headers.remove(header::CONTENT_LENGTH);
    }
    if !has_length
        && let Some(length) = body.size_hint().exact()
        && !is_head
        && *status != StatusCode::NO_CONTENT
        && *status != StatusCode::NOT_MODIFIED
    {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if !has_date {
        headers.insert(header::DATE, crate::http::date::now());
    }
    if let Some((name, id)) = body.request_id()
        && let Ok(mut id) = HeaderValue::from_bytes(id)
    {
        id.set_sensitive(true);
        headers.insert(name, id);
    }
    let mut head = http::Response::new(());
    *head.status_mut() = *status;
    *head.headers_mut() = headers;
    head
}

/// A value that comes once only pushes those out of the table that come again, and each look into the table goes over
/// all that were put there under the same name. A sensitive one is sent as it is (RFC 7541 §6.2.3).
fn keep_out_of_table(name: &HeaderName, value: &mut HeaderValue) {
    if !is_repeated(name) {
        value.set_sensitive(true);
    }
}

/// Fields of which a connection's responses have few different values. `Date` has one for a second, and the table would
/// hold the last minute's.
fn is_repeated(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT_RANGES
            | header::ACCESS_CONTROL_ALLOW_CREDENTIALS
            | header::ACCESS_CONTROL_ALLOW_HEADERS
            | header::ACCESS_CONTROL_ALLOW_METHODS
            | header::ACCESS_CONTROL_ALLOW_ORIGIN
            | header::ACCESS_CONTROL_EXPOSE_HEADERS
            | header::ACCESS_CONTROL_MAX_AGE
            | header::ALLOW
            | header::ALT_SVC
            | header::CACHE_CONTROL
            // Never put into the table, for want of repetition.
            | header::CONTENT_LENGTH
            | header::CONTENT_ENCODING
            | header::CONTENT_LANGUAGE
            | header::CONTENT_TYPE
            | header::PRAGMA
            | header::REFERRER_POLICY
            | header::SERVER
            | header::STRICT_TRANSPORT_SECURITY
            | header::VARY
            | header::VIA
            | header::X_CONTENT_TYPE_OPTIONS
            | header::X_FRAME_OPTIONS
            | header::X_XSS_PROTECTION
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_each_response_is_kept_out_of_the_table() {
        for (name, is_kept_out) in [
            ("content-type", false),
            ("cache-control", false),
            ("content-length", false),
            ("date", true),
            ("x-request-id", true),
            ("content-security-policy", true),
        ] {
            let mut value = HeaderValue::from_static("1");
            keep_out_of_table(&HeaderName::from_static(name), &mut value);
            assert_eq!(value.is_sensitive(), is_kept_out, "{name}");
        }
    }

    #[test]
    fn cookies_become_one_field() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append(header::COOKIE, crumb.parse().expect("a value"));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
