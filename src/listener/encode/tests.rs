//! What a client is told about a response, and how its body is framed.

use http::HeaderValue;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use std::convert::Infallible;

use super::*;

const ASKED: Asked = Asked { is_head: false, is_http10: false, keeps_alive: true, takes_trailers: true };

type AnyBody = BoxBody<Bytes, Infallible>;

fn full(text: &'static str) -> AnyBody {
    Full::from(text).boxed()
}

fn unsized_body() -> AnyBody {
    let frames = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"abc")))]);
    StreamBody::new(frames).boxed()
}

fn response(status: u16, fields: &[(&'static str, &'static str)], body: AnyBody) -> Response<AnyBody> {
    let mut response = Response::new(StatusCode::from_u16(status).expect("a status"), body);
    for (name, value) in fields {
        response.fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// The head without its date, how the body ends, and whether the connection does.
fn told(response: Response<AnyBody>, asked: Asked) -> (String, BodyEnd, bool) {
    let mut out = BytesMut::new();
    let (end, closes) = head(&mut out, &response, None, asked);
    let text = String::from_utf8(out.to_vec()).expect("text");
    assert_eq!(text.matches("\r\ndate: ").count(), 1, "{text}");
    let (before, date) = text.split_once("date: ").expect("it has one");
    let text = before.to_owned() + date.split_once("\r\n").expect("it ends").1;
    (text.replace("\r\n", "|"), end, closes)
}

#[test]
fn a_body_of_known_length_has_that_length() {
    for (fields, body) in [
        (&[][..], full("abc")),
        (&[("content-length", "3")], full("abc")),
        // What the body says counts: that is what is sent.
        (&[("content-length", "7")], full("abc")),
        (&[("content-length", "3")], unsized_body()),
        (&[("content-length", "003"), ("transfer-encoding", "chunked")], unsized_body()),
    ] {
        let (head, end, closes) = told(response(200, fields, body), ASKED);
        assert_eq!(head, "HTTP/1.1 200 OK|content-length: 3||");
        assert_eq!((end, closes), (BodyEnd::Length(3), false));
    }
    let (head, end, _) = told(response(404, &[], Empty::new().boxed()), ASKED);
    assert_eq!((head.as_str(), end), ("HTTP/1.1 404 Not Found|content-length: 0||", BodyEnd::Length(0)));
}

#[test]
fn a_body_of_unknown_length_is_chunked_or_ends_with_the_connection() {
    let fields = [("trailer", "X-Sum, x-b")];
    let (head, end, closes) = told(response(200, &fields, unsized_body()), ASKED);
    assert_eq!(head, "HTTP/1.1 200 OK|trailer: X-Sum, x-b|transfer-encoding: chunked||");
    let announced = vec![HeaderName::from_static("x-sum"), HeaderName::from_static("x-b")];
    assert_eq!((end, closes), (BodyEnd::Chunked { announced }, false));

    let old = Asked { is_http10: true, ..ASKED };
    let (head, end, closes) = told(response(200, &fields, unsized_body()), old);
    assert_eq!(head, "HTTP/1.0 200 OK|connection: close||");
    assert_eq!((end, closes), (BodyEnd::Close, true));
    let (head, _, closes) = told(response(200, &[], full("abc")), old);
    assert_eq!(head, "HTTP/1.0 200 OK|content-length: 3|connection: keep-alive||");
    assert!(!closes);
}

#[test]
fn responses_without_a_body_have_none() {
    let head_asked = Asked { is_head: true, ..ASKED };
    for (status, fields, body, asked, expected) in [
        (204, &[("content-length", "0")][..], full(""), ASKED, "HTTP/1.1 204 No Content||"),
        (304, &[("content-length", "9")], full("abc"), ASKED, "HTTP/1.1 304 Not Modified||"),
        (200, &[("content-length", "9")], full(""), head_asked, "HTTP/1.1 200 OK|content-length: 9||"),
        (200, &[], full("abc"), head_asked, "HTTP/1.1 200 OK|content-length: 3||"),
        (200, &[("transfer-encoding", "chunked")], full(""), head_asked, "HTTP/1.1 200 OK||"),
        (599, &[], full(""), head_asked, "HTTP/1.1 599 Unknown||"),
    ] {
        let (head, end, closes) = told(response(status, fields, body), asked);
        assert_eq!((head.as_str(), end, closes), (expected, BodyEnd::None, false));
    }
}

#[test]
fn what_is_said_of_the_connection_is_what_becomes_of_it() {
    let (head, _, closes) = told(response(200, &[("connection", "x, Close")], full("")), ASKED);
    assert_eq!((head.as_str(), closes), ("HTTP/1.1 200 OK|content-length: 0|connection: close||", true));
    let (head, _, closes) = told(response(200, &[], full("")), Asked { keeps_alive: false, ..ASKED });
    assert_eq!((head.as_str(), closes), ("HTTP/1.1 200 OK|content-length: 0|connection: close||", true));
    let switch = response(101, &[("connection", "upgrade"), ("upgrade", "x")], full(""));
    let (head, end, _) = told(switch, ASKED);
    assert_eq!(head, "HTTP/1.1 101 Switching Protocols|connection: upgrade|upgrade: x||");
    assert_eq!(end, BodyEnd::None);
}

#[test]
fn a_date_is_not_written_twice() {
    let (head, _, _) = told(response(200, &[("date", "Mon, 01 Jan 2024 00:00:00 GMT")], full("")), ASKED);
    assert_eq!(head, "HTTP/1.1 200 OK|content-length: 0||");
}

/// What is written of a body that comes in these pieces.
fn framed(
    mut end: BodyEnd,
    pieces: &[&'static str],
    trailers: Option<HeaderMap>,
    asked: Asked,
) -> (String, bool) {
    let (mut out, buffers) = (Outbound::default(), Buffers::default());
    for piece in pieces {
        end.push(Bytes::from_static(piece.as_bytes()), false, &mut out, &buffers);
    }
    if let Some(trailers) = trailers {
        end.trailers(&trailers, asked, &mut out, &buffers);
    }
    end.end(&mut out, &buffers);
    let text = String::from_utf8(out.buffer(&buffers).to_vec()).expect("text");
    (text, end.is_kept())
}

#[test]
fn bodies_are_framed_as_the_head_has_said() {
    let chunked = || BodyEnd::Chunked { announced: vec![HeaderName::from_static("x-sum")] };
    let expected = "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
    assert_eq!(framed(chunked(), &["abc", "", "0123456789abcdef"], None, ASKED), (expected.into(), true));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    trailers.insert("x-undeclared", HeaderValue::from_static("1"));
    let expected = "1\r\na\r\n0\r\nx-sum: 7\r\n\r\n";
    assert_eq!(framed(chunked(), &["a"], Some(trailers.clone()), ASKED), (expected.into(), true));
    let without = Asked { takes_trailers: false, ..ASKED };
    assert_eq!(framed(chunked(), &["a"], Some(trailers), without), ("1\r\na\r\n0\r\n\r\n".into(), true));

    assert_eq!(framed(BodyEnd::Length(4), &["ab", "cd"], None, ASKED), ("abcd".into(), true));
    assert_eq!(framed(BodyEnd::Length(4), &["ab", "cdef", "g"], None, ASKED), ("abcd".into(), true));
    assert_eq!(framed(BodyEnd::Length(4), &["ab"], None, ASKED), ("ab".into(), false));
    assert_eq!(framed(BodyEnd::Close, &["ab"], None, ASKED), ("ab".into(), true));
}

#[test]
fn the_last_chunk_ends_the_body_at_once() {
    let (mut out, buffers) = (Outbound::default(), Buffers::default());
    let mut end = BodyEnd::Chunked { announced: Vec::new() };
    end.push(Bytes::from_static(b"abc"), true, &mut out, &buffers);
    end.end(&mut out, &buffers);
    assert_eq!(out.buffer(&buffers), "3\r\nabc\r\n0\r\n\r\n");
    assert!(end.is_kept());
}
