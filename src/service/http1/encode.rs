//! Requests to instances as bytes. What is written is well-formed whatever it is made of: names, values and
//! targets were checked when they were made, and the fields that tell the length of the body are written
//! here and nowhere else.

use http::header::TRAILER;
use http::{HeaderMap, HeaderName};
use hyper::body::Body;

use crate::http::body::AttemptBody;
use crate::http::fields::Fields;
use crate::service::Head;

/// How a request tells where its body ends (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// It has none.
    Empty,
    Length(u64),
    Chunked,
}

impl Framing {
    pub fn of(body: &AttemptBody) -> Self {
        match body.size_hint().exact() {
            _ if body.is_end_stream() => Framing::Empty,
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        }
    }
}

/// Writes the head of a request, with `host` in the place of any `Host` among its fields.
pub fn head(into: &mut Vec<u8>, head: &Head, host: &[u8], framing: Framing) {
    into.extend_from_slice(head.method.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(head.target.as_str().as_bytes());
    into.extend_from_slice(b" HTTP/1.1\r\n");
    field(into, b"host", host);
    let mut had_length = false;
    for (name, value) in head.headers.iter() {
        match name {
            b"content-length" => had_length = true,
            b"transfer-encoding" | b"host" => {}
            _ => field(into, name, value),
        }
    }
    into.extend_from_slice(head.lines.as_bytes());
    match framing {
        // Who said that there is nothing says so here.
        Framing::Empty if had_length => into.extend_from_slice(b"content-length: 0\r\n"),
        Framing::Empty => {}
        Framing::Length(length) => {
            into.extend_from_slice(b"content-length: ");
            into.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            into.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => into.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    into.extend_from_slice(b"\r\n");
}

/// Writes the line before the data of a chunk.
pub fn chunk_size(into: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        into.push(b"0123456789abcdef"[(size >> (4 * place)) & 15]);
    }
    into.extend_from_slice(b"\r\n");
}

/// Writes the last chunk, and of `trailers` those that the head has announced: an instance may take no others.
pub fn last_chunk(into: &mut Vec<u8>, trailers: &HeaderMap, announced: &[HeaderName]) {
    into.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        if announced.contains(name) {
            field(into, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    into.extend_from_slice(b"\r\n");
}

/// The names of the trailers that a head announces.
pub fn announced_trailers(fields: &Fields) -> Vec<HeaderName> {
    let lines = fields.get_all(&TRAILER);
    let names = lines.flat_map(|line| line.split(|&byte| byte == b','));
    names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect()
}

fn field(into: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // One reservation for all four.
    into.reserve(name.len() + value.len() + 4);
    into.extend_from_slice(name);
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use http::{HeaderValue, Method};

    use super::*;
    use crate::http::field_lines::FieldLines;

    fn written(
        method: Method,
        target: &'static str,
        lines: &[(&'static str, &'static str)],
        framing: Framing,
    ) -> String {
        let mut headers = Fields::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut ours = FieldLines::default();
        ours.push(&http::header::VIA, &HeaderValue::from_static("1.1 gatehouse"));
        let target = PathAndQuery::from_static(target);
        let asked = Head { method, target, host: None, headers, lines: ours, informational: None };
        let mut bytes = Vec::new();
        head(&mut bytes, &asked, b"instance", framing);
        String::from_utf8(bytes).expect("ASCII")
    }

    #[test]
    fn a_head_is_written_as_it_is() {
        let lines = [("host", "a"), ("x-one", "1"), ("x-two", ""), ("x-one", "2")];
        assert_eq!(
            written(Method::GET, "/a/b?c=d", &lines, Framing::Empty),
            "GET /a/b?c=d HTTP/1.1\r\nhost: instance\r\nx-one: 1\r\nx-two: \r\nx-one: 2\r\n\
             via: 1.1 gatehouse\r\n\r\n"
        );
    }

    #[test]
    fn the_length_is_told_once_whatever_the_fields_say() {
        let lines = [("content-length", "5"), ("content-length", "6"), ("transfer-encoding", "gzip")];
        for (framing, expected) in [
            (Framing::Empty, "content-length: 0\r\n"),
            (Framing::Length(12), "content-length: 12\r\n"),
            (Framing::Chunked, "transfer-encoding: chunked\r\n"),
        ] {
            let written = written(Method::POST, "/", &lines, framing);
            assert_eq!(
                written,
                format!("POST / HTTP/1.1\r\nhost: instance\r\nvia: 1.1 gatehouse\r\n{expected}\r\n")
            );
        }
    }

    #[test]
    fn chunks_have_their_size_in_front() {
        for (size, expected) in
            [(1, "1"), (15, "f"), (16, "10"), (0x1ff, "1ff"), (usize::MAX, "ffffffffffffffff")]
        {
            let mut bytes = Vec::new();
            chunk_size(&mut bytes, size);
            assert_eq!(bytes, format!("{expected}\r\n").as_bytes());
        }
    }

    #[test]
    fn trailers_are_written_when_they_were_announced() {
        let announced =
            announced_trailers(&Fields::from_iter([(TRAILER, HeaderValue::from_static("X-Sum, ,x-other"))]));
        let trailers = HeaderMap::from_iter([
            (HeaderName::from_static("x-sum"), HeaderValue::from_static("7")),
            (HeaderName::from_static("x-more"), HeaderValue::from_static("8")),
        ]);
        let mut bytes = Vec::new();
        last_chunk(&mut bytes, &trailers, &announced);
        assert_eq!(bytes, b"0\r\nx-sum: 7\r\n\r\n");
    }
}
