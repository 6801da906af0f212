//! Responses as HTTP/1.1 bytes: the head, and how the client is told where the body ends (RFC 9112 §6.3).

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, MAX_FORWARDS};
use http::{HeaderMap, HeaderName, StatusCode};
use hyper::body::Body;

use super::outbound::Outbound;
use crate::buffers::Buffers;
use crate::http::date;
use crate::http::fields::{self, Fields};
use crate::http::response::Response;

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
    response: &Response<impl Body>,
    more: Option<(&HeaderName, &[u8])>,
    asked: Asked,
) -> (BodyEnd, bool) {
    let mut end = body_end(response, asked);
    let mut closes = !asked.keeps_alive || end == BodyEnd::Close;
    status_line(out, response, asked.is_http10);
    let mut has_date = false;
    for (name, value) in response.fields.iter() {
        // Each of those that are special begins so.
        if matches!(name[0], b'c' | b'd' | b't') {
            match name {
                b"content-length" | b"transfer-encoding" => continue,
                b"connection" if response.status != StatusCode::SWITCHING_PROTOCOLS => {
                    closes |= lists_close(value);
                    continue;
                }
                b"trailer" => match &mut end {
                    BodyEnd::Chunked { announced } => announce(announced, value),
                    _ => continue,
                },
                b"date" => has_date = true,
                _ => {}
            }
        }
        field(out, name, value);
    }
    if let Some((name, value)) = more {
        field(out, name.as_str().as_bytes(), value);
    }
    match &end {
        BodyEnd::Length(length) => length_field(out, *length),
        BodyEnd::Chunked { .. } => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodyEnd::None => length_without_body(out, response, asked),
        BodyEnd::Close => {}
    }
    if response.status != StatusCode::SWITCHING_PROTOCOLS {
        match (closes, asked.is_http10) {
            (true, _) => out.extend_from_slice(b"connection: close\r\n"),
            (false, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (false, false) => {}
        }
    }
    if !has_date {
        date::with_now(|now| field(out, b"date", now));
    }
    out.extend_from_slice(b"\r\n");
    (end, closes)
}

fn status_line<B>(out: &mut BytesMut, response: &Response<B>, is_http10: bool) {
    let status = response.status;
    let phrase = response.phrase.as_ref();
    if status == StatusCode::OK && !is_http10 && phrase.is_none() {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(if is_http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    // The instance's own words, where it had some. There are parsers that miss them when they are left out.
    let usual = || status.canonical_reason().unwrap_or("Unknown").as_bytes();
    out.extend_from_slice(phrase.map_or_else(usual, |phrase| &phrase[..]));
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    // One reservation for all four.
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length_field(out: &mut BytesMut, length: u64) {
    field(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
}

fn body_end(response: &Response<impl Body>, asked: Asked) -> BodyEnd {
    let body = &response.body;
    if asked.is_head || is_bodiless(response.status) {
        return BodyEnd::None;
    }
    if body.is_end_stream() {
        return BodyEnd::Length(0);
    }
    let length = body.size_hint().exact().or_else(|| plain_length(&response.fields));
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
fn length_without_body(out: &mut BytesMut, response: &Response<impl Body>, asked: Asked) {
    if !asked.is_head || is_bodiless(response.status) {
        return;
    }
    let exact = response.body.size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = plain_length(&response.fields).or(exact) {
        length_field(out, length);
    }
}

fn plain_length(fields: &Fields) -> Option<u64> {
    let text = fields::text(fields.get(&CONTENT_LENGTH)?)?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn lists_close(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn announce(announced: &mut Vec<HeaderName>, value: &[u8]) {
    let names = value.split(|byte| *byte == b',');
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
                field(out, name.as_str().as_bytes(), value.as_bytes());
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
