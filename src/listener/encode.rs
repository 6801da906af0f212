//! Responses as HTTP/1.1 bytes: the head, and how the client is told where the body ends (RFC 9112 §6.3).

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, MAX_FORWARDS, TRAILER, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::body::Body;
use hyper::ext::ReasonPhrase;

use super::outbound::Outbound;
use crate::buffers::Buffers;
use crate::http::date;

/// What the request says about its response.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub is_head: bool,
    pub is_http10: bool,
    /// Both sides want to go on with the connection.
    pub keeps_alive: bool,
    pub takes_trailers: bool,
}

/// How the client knows where the body ends.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// There is none.
    None,
    /// After so many more bytes.
    Length(u64),
    /// These are the trailers that the head has announced.
    Chunked { announced: Vec<HeaderName> },
    /// With the connection.
    Close,
}

/// The end of the last chunk and of the body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const CRLF_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Appends the head, with one field more. Returns how the body is to follow, and whether the connection ends after it.
pub fn head(
    out: &mut BytesMut,
    parts: &Parts,
    body: &impl Body,
    more: Option<(&HeaderName, &[u8])>,
    asked: Asked,
) -> (BodyEnd, bool) {
    let mut end = body_end(parts, body, asked);
    let mut closes = !asked.keeps_alive || end == BodyEnd::Close;
    status_line(out, parts, asked.is_http10);
    let mut has_date = false;
    for (name, value) in &parts.headers {
        // Each of those that are special begins so.
        if matches!(name.as_str().as_bytes()[0], b'c' | b'd' | b't') {
            match *name {
                CONTENT_LENGTH | TRANSFER_ENCODING => continue,
                CONNECTION if parts.status != StatusCode::SWITCHING_PROTOCOLS => {
                    closes |= lists_close(value);
                    continue;
                }
                TRAILER => match &mut end {
                    BodyEnd::Chunked { announced } => announce(announced, value),
                    _ => continue,
                },
                DATE => has_date = true,
                _ => {}
            }
        }
        field(out, name.as_str(), value.as_bytes());
    }
    if let Some((name, value)) = more {
        field(out, name.as_str(), value);
    }
    match &end {
        BodyEnd::Length(length) => length_field(out, *length),
        BodyEnd::Chunked { .. } => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodyEnd::None => length_without_body(out, parts, body, asked),
        BodyEnd::Close => {}
    }
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        match (closes, asked.is_http10) {
            (true, _) => out.extend_from_slice(b"connection: close\r\n"),
            (false, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (false, false) => {}
        }
    }
    if !has_date {
        date::with_now(|now| field(out, "date", now));
    }
    out.extend_from_slice(b"\r\n");
    (end, closes)
}

fn status_line(out: &mut BytesMut, parts: &Parts, is_http10: bool) {
    let status = parts.status;
    let phrase = parts.extensions.get::<ReasonPhrase>();
    if status == StatusCode::OK && !is_http10 && phrase.is_none() {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(if is_http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    // The instance's own words, where it had some. There are parsers that miss them when they are left out.
    let usual = || status.canonical_reason().unwrap_or("Unknown").as_bytes();
    out.extend_from_slice(phrase.map_or_else(usual, |phrase| phrase.as_bytes()));
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    // One reservation for all four.
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length_field(out: &mut BytesMut, length: u64) {
    field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
}

fn body_end(parts: &Parts, body: &impl Body, asked: Asked) -> BodyEnd {
    if asked.is_head || is_bodiless(parts.status) {
        return BodyEnd::None;
    }
    if body.is_end_stream() {
        return BodyEnd::Length(0);
    }
    let length = body.size_hint().exact().or_else(|| plain_length(&parts.headers));
    match length {
        Some(length) => BodyEnd::Length(length),
        None if asked.is_http10 => BodyEnd::Close,
        None => BodyEnd::Chunked { announced: Vec::new() },
    }
}

fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The answer to HEAD tells the length that the one to GET would have.
fn length_without_body(out: &mut BytesMut, parts: &Parts, body: &impl Body, asked: Asked) {
    if !asked.is_head || is_bodiless(parts.status) {
        return;
    }
    let exact = body.size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = plain_length(&parts.headers).or(exact) {
        length_field(out, length);
    }
}

fn plain_length(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn lists_close(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn announce(announced: &mut Vec<HeaderName>, value: &HeaderValue) {
    let names = value.as_bytes().split(|byte| *byte == b',');
    announced.extend(names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()));
}

impl BodyEnd {
    /// Appends a piece of the body; `is_last` when it is known to be the last. Bytes beyond the length that was told are
    /// left out: to the client they would be another response.
    pub fn push(&mut self, data: Bytes, is_last: bool, out: &mut Outbound, buffers: &Buffers) {
        let mut data = data;
        match self {
            BodyEnd::None => {}
            BodyEnd::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                out.push(data, b"", buffers);
            }
            BodyEnd::Close => out.push(data, b"", buffers),
            // An empty chunk would be the last.
            BodyEnd::Chunked { .. } if data.is_empty() && !is_last => {}
            BodyEnd::Chunked { .. } if data.is_empty() => self.end(out, buffers),
            BodyEnd::Chunked { .. } => {
                chunk_size(out.buffer(buffers), data.len());
                out.push(data, if is_last { CRLF_LAST_CHUNK } else { b"\r\n" }, buffers);
                if is_last {
                    *self = BodyEnd::None;
                }
            }
        }
    }

    /// Appends the end of the body, if it has one of its own.
    pub fn end(&mut self, out: &mut Outbound, buffers: &Buffers) {
        if matches!(self, BodyEnd::Chunked { .. }) {
            out.buffer(buffers).extend_from_slice(LAST_CHUNK);
            *self = BodyEnd::None;
        }
    }

    /// Appends the end of the body with those of the trailers that were announced, for a client that takes any.
    pub fn trailers(&mut self, trailers: &HeaderMap, asked: Asked, out: &mut Outbound, buffers: &Buffers) {
        let BodyEnd::Chunked { announced } = self else { return };
        let out = out.buffer(buffers);
        out.extend_from_slice(b"0\r\n");
        if asked.takes_trailers {
            let passing = |name: &HeaderName| announced.contains(name) && *name != MAX_FORWARDS;
            for (name, value) in trailers.iter().filter(|(name, _)| passing(name)) {
                field(out, name.as_str(), value.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        *self = BodyEnd::None;
    }

    /// Whether the client has been told everything that the head has promised.
    pub fn is_kept(&self) -> bool {
        matches!(self, BodyEnd::None | BodyEnd::Length(0) | BodyEnd::Close)
    }
}

fn chunk_size(out: &mut BytesMut, size: usize) {
    let mut text = [0u8; 18];
    let mut at = text.len() - 2;
    text[at..].copy_from_slice(b"\r\n");
    let mut left = size;
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests;
