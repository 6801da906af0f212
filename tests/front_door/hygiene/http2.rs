//! HTTP/2 frame by frame (RFC 9113 §8, §10.3): what becomes of it in HTTP/1.1 has one meaning, or it becomes nothing.

use super::{Place, place};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, HEADERS, Outcome, PROTOCOL_ERROR, block,
};

const RESET: Outcome = Outcome::Reset(PROTOCOL_ERROR);
/// Whether it is the stream or the connection that ends makes no difference to what is smuggled.
const NO: [Outcome; 3] = [RESET, Outcome::Refused, Outcome::GoAway(PROTOCOL_ERROR)];

type Fields<'f> = Vec<(&'f str, &'f str)>;

/// A GET with some more fields.
fn get_with<'f>(more: &[(&'f str, &'f str)]) -> Fields<'f> {
    GET.iter().chain(more).copied().collect()
}

/// A GET in which a pseudo-field has another value.
fn get_but<'f>(name: &str, value: &'f str) -> Fields<'f> {
    GET.into_iter().map(|(known, old)| (known, if known == name { value } else { old })).collect()
}

/// A GET without a field.
fn get_without(name: &str) -> Fields<'static> {
    GET.into_iter().filter(|(known, _)| *known != name).collect()
}

impl Place {
    async fn asks(&self, fields: &[(&str, &str)]) -> Outcome {
        let mut client = Frames::connect(self.gateway.http()).await;
        let stream = client.request(fields, true).await;
        client.outcome(stream).await
    }

    /// Not answered with a success, and not forwarded.
    async fn refuses_h2(&self, fields: &[(&str, &str)], expected: &[Outcome]) {
        let before = self.origin.count();
        let outcome = self.asks(fields).await;
        assert!(expected.contains(&outcome), "{fields:?} → {outcome:?}");
        assert_eq!(self.origin.count(), before, "{fields:?} was forwarded");
    }
}

#[tokio::test]
async fn pseudo_header_abuse_is_refused() {
    let place = place().await;
    for fields in [
        get_without(":method"),
        get_without(":scheme"),
        get_without(":path"),
        get_with(&[(":method", "POST")]),
        get_with(&[(":path", "/b")]),
        get_with(&[(":authority", "b")]),
        get_with(&[(":scheme", "https")]),
        get_with(&[(":status", "200")]),
        get_with(&[(":unknown", "1")]),
        get_with(&[(":", "1")]),
        get_with(&[("x", "1"), (":path", "/b")]),
        vec![("x", "1"), (":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")],
        get_but(":path", ""),
        get_but(":method", ""),
        get_but(":method", "GET / HTTP/1.1"),
        get_but(":method", "G\r\nT"),
        get_but(":method", "GET "),
    ] {
        place.refuses_h2(&fields, &[RESET, Outcome::GoAway(PROTOCOL_ERROR)]).await;
    }
}

#[tokio::test]
async fn pseudo_header_values_that_http_1_would_split_are_refused() {
    let place = place().await;
    for path in
        ["/a b", "/a HTTP/1.1\r\nX: 1", "/a\tb", "/a\0b", "/a\r\n", "/a\u{7f}", "a", "a/b", "http://a/", "*"]
    {
        place.refuses_h2(&get_but(":path", path), &NO).await;
    }
    for path in ["/a\\b", "/a%2fb", "/..;/a", "/%c0%ae", "/%00", "/caf\u{e9}", "/a?\u{c3}\u{a9}"] {
        place.refuses_h2(&get_but(":path", path), &NO).await;
    }
    // What no reader but the client is to see, and not all readers cut off.
    for path in ["/a#b", "/#", "/a?b#c", "/a%23#"] {
        place.refuses_h2(&get_but(":path", path), &[RESET]).await;
    }
    for authority in
        ["", "a b", "a\r\nX: 1", "user@a", "a/b", "a:99999", "a,b", "\u{fc}ber", "[::1", "a#b", "a?b"]
    {
        place.refuses_h2(&get_but(":authority", authority), &NO).await;
    }
    for scheme in ["ftp", "", "http:", "http://a/", "ht tp", "http\r\n", "javascript"] {
        place.refuses_h2(&get_but(":scheme", scheme), &NO).await;
    }
}

#[tokio::test]
async fn connection_fields_of_http_1_are_refused() {
    let place = place().await;
    for field in [
        ("connection", "close"),
        ("connection", "x-user-id"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip"),
        ("te", "trailers, chunked"),
    ] {
        place.refuses_h2(&get_with(&[field]), &[RESET]).await;
    }
}

#[tokio::test]
async fn downgrade_smuggling_by_names_and_values_is_refused() {
    let place = place().await;
    for field in [
        ("X", "1"),
        ("Transfer-Encoding", "chunked"),
        ("x y", "1"),
        ("x:", "1"),
        ("x: 1\r\ny", "1"),
        ("x\r\n", "1"),
        ("transfer-encoding\0", "chunked"),
        ("transfer-encoding ", "chunked"),
        (" transfer-encoding", "chunked"),
        ("", "1"),
        ("\u{e9}", "1"),
        ("x", "1\r\ntransfer-encoding: chunked"),
        ("x", "1\nhost: b"),
        ("x", "1\rb"),
        ("x", "1\0"),
        ("x", "\u{7f}"),
        ("x", " 1"),
        ("x", "1 "),
        ("x", "\t1"),
        ("x", "\t"),
    ] {
        let expected = [RESET, Outcome::GoAway(PROTOCOL_ERROR)];
        place.refuses_h2(&get_with(&[field]), &expected).await;
    }
}

#[tokio::test]
async fn host_against_authority_is_refused() {
    let place = place().await;
    for hosts in [&["b"][..], &["a.example:80"], &["a.example", "a.example"], &["a.example", "b"], &[""]] {
        let more: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        place.refuses_h2(&get_with(&more), &NO).await;
    }
    let mut without = get_without(":authority");
    place.refuses_h2(&without, &NO).await;
    without.push(("host", "b.example"));
    assert_eq!(place.asks(&without).await, Outcome::Ok);
    assert_eq!(place.origin.last().all("host"), ["b.example"]);
}

#[tokio::test]
async fn connect_and_extended_connect_are_refused() {
    let place = place().await;
    place.refuses_h2(&[(":method", "CONNECT"), (":authority", "a:80")], &NO).await;
    place.refuses_h2(&get_but(":method", "CONNECT"), &NO).await;
    let mut extended = get_but(":method", "CONNECT");
    extended.insert(1, (":protocol", "websocket"));
    place.refuses_h2(&extended, &NO).await;
    let mut odd = get_with(&[]);
    odd.insert(1, (":protocol", "websocket"));
    place.refuses_h2(&odd, &NO).await;
    place.refuses_h2(&get_but(":method", "TRACE"), &[Outcome::Refused]).await;
    place.refuses_h2(&get_but(":method", "get"), &[Outcome::Refused]).await;
}

#[tokio::test]
async fn content_length_that_is_not_that_of_the_data_is_refused() {
    let place = place().await;
    for (length, data, ends) in
        [("5", "hell", true), ("5", "hello!", true), ("5", "", true), ("0", "x", true), ("3", "hello", false)]
    {
        let mut client = Frames::connect(place.gateway.http()).await;
        let mut fields = get_but(":method", "POST");
        fields.push(("content-length", length));
        let stream = client.request(&fields, false).await;
        client.send(DATA, if ends { END_STREAM } else { 0 }, stream, data.as_bytes()).await;
        let outcome = client.outcome(stream).await;
        assert!(
            matches!(outcome, Outcome::Reset(_) | Outcome::Refused),
            "{length} for {data:?}: {outcome:?}"
        );
    }
    // No body at all, and one promised.
    let promised = get_with(&[("content-length", "5")]);
    let outcome = place.asks(&promised).await;
    assert!(matches!(outcome, Outcome::Reset(_) | Outcome::Refused), "{outcome:?}");
    for lengths in [
        &["+0"][..],
        &["-1"],
        &["0x0"],
        &["0, 0"],
        &[""],
        &["0", "0"],
        &["0", "1"],
        &["99999999999999999999"],
    ] {
        let more: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        place.refuses_h2(&get_with(&more), &NO).await;
    }
    // Nothing of all that was a whole request to the service.
    assert_eq!(place.origin.count(), 0);
}

/// They are no trailers, and become none.
#[tokio::test]
async fn trailers_that_are_none_are_refused() {
    let place = place().await;
    for trailer in
        [(":path", "/b"), (":status", "200"), ("Upper", "1"), ("connection", "close"), ("x", "1\r\ny: 2")]
    {
        let mut client = Frames::connect(place.gateway.http()).await;
        let mut fields = get_but(":method", "POST");
        fields.push(("trailer", "path, upper, connection, x, y"));
        let stream = client.request(&fields, false).await;
        client.send(DATA, 0, stream, b"hello").await;
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[trailer])).await;
        let outcome = client.outcome(stream).await;
        assert!(NO.contains(&outcome), "{trailer:?}: {outcome:?}");
    }
    // Nothing of it was a whole request to the service.
    assert_eq!(place.origin.count(), 0);
}

/// A body becomes chunks, or has the length that it has told; nothing in it can be taken for a request.
#[tokio::test]
async fn bodies_are_framed_anew() {
    let place = place().await;
    let smuggled = "0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len().to_string();
    for told in [None, Some(("content-length", length.as_str()))] {
        let mut client = Frames::connect(place.gateway.http()).await;
        let mut fields = get_but(":method", "POST");
        fields.extend(told);
        let stream = client.request(&fields, false).await;
        let (first, second) = smuggled.as_bytes().split_at(3);
        client.send(DATA, 0, stream, first).await;
        client.send(DATA, END_STREAM, stream, second).await;
        assert_eq!(client.outcome(stream).await, Outcome::Ok);
        let seen = place.origin.last();
        assert_eq!(&seen.body[..], smuggled.as_bytes());
        assert_eq!(seen.all("content-length").len(), usize::from(told.is_some()), "{}", seen.head);
    }
    assert_eq!(place.origin.count(), 2);
}

/// The identity and the origin of a request are no more the client's word than over HTTP/1.1.
#[tokio::test]
async fn forged_fields_are_dropped() {
    let place = place().await;
    let forged = [
        "x-user-id",
        "x_user_id",
        "x-scopes",
        "x-forwarded-for",
        "x_forwarded_for",
        "forwarded",
        "x-real-ip",
        "proxy",
        "content_length",
        "transfer_encoding",
        "http2-settings",
        "x-http-method-override",
        "proxy-authorization",
    ];
    for name in forged {
        assert_eq!(place.asks(&get_with(&[(name, "evil"), ("x", "1")])).await, Outcome::Ok, "{name}");
        let seen = place.origin.last();
        assert!(!seen.head.contains("evil") && seen.has("x"), "{}", seen.head);
    }
    place.refuses_h2(&get_with(&[("expect", "x")]), &[Outcome::Refused]).await;
}

#[tokio::test]
async fn unusual_and_right_requests_pass() {
    let place = place().await;
    for (fields, target) in [
        (get_with(&[]), "/ok"),
        (get_with(&[("te", "trailers")]), "/ok"),
        (get_with(&[("host", "a.example"), ("x", "")]), "/ok"),
        (get_with(&[("x", "caf\u{e9}"), ("x", "a\tb")]), "/ok"),
        (get_with(&[("cookie", "a=1"), ("cookie", "b=2")]), "/ok"),
        (get_with(&[("content-length", "0")]), "/ok"),
        (get_but(":method", "M-SEARCH"), "/ok"),
        (get_but(":scheme", "https"), "/ok"),
        (get_but(":authority", "[::1]:80"), "/ok"),
        (get_but(":path", "/a/../b?c=%00"), "/b?c=%00"),
        (get_but(":path", "//a"), "/a"),
        (vec![(":path", "/ok"), (":authority", "a"), (":scheme", "http"), (":method", "GET")], "/ok"),
    ] {
        assert_eq!(place.asks(&fields).await, Outcome::Ok, "{fields:?}");
        assert_eq!(place.origin.last().target, target, "{fields:?}");
    }
    let mut client = Frames::connect(place.gateway.http()).await;
    // In as many frames as there are bytes to three of them.
    let whole = block(&GET);
    client.send(HEADERS, END_STREAM, 1, &whole[..3]).await;
    let pieces: Vec<_> = whole[3..].chunks(whole.len() / 3).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let flags = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
        client.send(CONTINUATION, flags, 1, piece).await;
    }
    assert_eq!(client.outcome(1).await, Outcome::Ok);
}
