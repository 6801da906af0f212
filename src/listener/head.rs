//! The head of an HTTP/1.1 request (RFC 9112 §2–§7), read line by line as it comes and more strictly than a
//! parser has to.
//!
//! Requests are smuggled through disagreements about where one ends, so what two readers could understand in two
//! ways is refused: both Content-Length and Transfer-Encoding, either of them twice, codings other than
//! `chunked`, line ends that are not CRLF, names and values with odd bytes.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName};
use http::{Method, Version, header};
use memchr::memchr;

use super::framing::{BodyFraming, Malformed, malformed};
use crate::http::fields::{self, Fields, Places};
use crate::http::target::Target;
use crate::reason::Reason;

/// The limits of a request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub bytes: usize,
    pub fields: usize,
    pub target_bytes: usize,
}

/// A whole head, and what it says about what follows it.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub target: Target,
    pub version: Version,
    pub fields: Fields,
    pub body: BodyFraming,
    /// Another request may follow.
    pub keeps_alive: bool,
    /// The body comes only when it was asked for (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// `TE: trailers`.
    pub takes_trailers: bool,
    /// It has an `Upgrade` field.
    pub may_upgrade: bool,
}

/// A head up to this length is copied out of the buffer that it came in.
const SHORT_HEAD_BYTES: usize = 4 * 1024;

/// A method that is longer than this is none; it bounds a request line without a space.
const MAX_METHOD_BYTES: usize = 64;

/// Reads one head after another, each from however many pieces.
#[derive(Default)]
pub struct HeadReader {
    /// Where the line begins that is to be read next.
    at: usize,
    /// The colon of that line, once it was found; it is never at the beginning.
    colon: usize,
    /// Up to where that line has no end.
    seen: usize,
    /// Empty lines before the head, which are gone already.
    blank: usize,
    line: Option<RequestLine>,
    fields: Places,
    said: Said,
}

/// Positions in the head.
#[derive(Clone, Copy, Debug)]
struct RequestLine {
    method: usize,
    target: usize,
    is_http10: bool,
}

#[derive(Clone, Debug)]
struct Field {
    name: Range<usize>,
    /// Without the spaces around it.
    value: Range<usize>,
}

impl HeadReader {
    /// Takes a head off `buffer`, once all of it is there. Between calls the buffer may only grow.
    pub fn read(
        &mut self,
        buffer: &mut BytesMut,
        limits: &HeadLimits,
    ) -> Result<Option<RequestHead>, Malformed> {
        if self.line.is_none() {
            self.skip_blank_lines(buffer, limits)?;
        }
        let Some(line) = self.request_line(buffer, limits)? else { return Ok(None) };
        let Some(end) = self.read_fields(buffer, limits)? else { return Ok(None) };
        let HeadReader { fields, said, .. } = std::mem::take(self);
        let head = take(buffer, end);
        build(head, line, fields, &said).map(Some)
    }

    /// They are ignored, for the sake of old clients (§2.2).
    fn skip_blank_lines(&mut self, buffer: &mut BytesMut, limits: &HeadLimits) -> Result<(), Malformed> {
        while buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.seen = 0;
            self.blank += 2;
        }
        if self.blank > limits.bytes { Err(too_large()) } else { Ok(()) }
    }

    fn request_line(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<RequestLine>, Malformed> {
        if self.line.is_some() {
            return Ok(self.line);
        }
        let Some(found) = memchr(b'\n', &bytes[self.seen..]) else {
            self.seen = bytes.len();
            if bytes.len() > limits.target_bytes + MAX_METHOD_BYTES {
                return Err(uri_too_long());
            }
            return if bytes.len() > limits.bytes { Err(too_large()) } else { Ok(None) };
        };
        let end = self.seen + found;
        if end >= limits.bytes {
            return Err(too_large());
        }
        self.at = end + 1;
        self.seen = end + 1;
        let line = RequestLine::of(&bytes[..end], limits)?;
        self.said.is_http10 = line.is_http10;
        self.line = Some(line);
        Ok(self.line)
    }

    /// Reads the lines that are there, and finds the end behind the empty one.
    fn read_fields(&mut self, bytes: &mut [u8], limits: &HeadLimits) -> Result<Option<usize>, Malformed> {
        loop {
            match bytes[self.at..] {
                [b'\r', b'\n', ..] if self.at + 2 > limits.bytes => return Err(too_large()),
                [b'\r', b'\n', ..] => return Ok(Some(self.at + 2)),
                [] | [b'\r'] => break,
                _ => {}
            }
            let Some(field) = self.field(bytes)? else { break };
            if self.fields.count() == limits.fields || self.at > limits.bytes {
                return Err(too_large());
            }
            self.said.field(&bytes[field.name.clone()], &bytes[field.value.clone()])?;
            self.fields.push(field.name, field.value);
        }
        if bytes.len() > limits.bytes { Err(too_large()) } else { Ok(None) }
    }

    /// The field that begins at `at`; afterwards that is where the next line begins.
    fn field(&mut self, bytes: &mut [u8]) -> Result<Option<Field>, Malformed> {
        if self.colon == 0 {
            let from = self.at.max(self.seen);
            let Some(length) = fields::lower_name(&mut bytes[from..]) else {
                self.seen = bytes.len();
                return Ok(None);
            };
            let colon = from + length;
            if bytes[colon] != b':' || colon == self.at {
                return Err(no_name(bytes[self.at]));
            }
            self.colon = colon;
            self.seen = colon + 1;
        }
        let Some(found) = memchr(b'\n', &bytes[self.seen..]) else {
            self.seen = bytes.len();
            return Ok(None);
        };
        let line_end = self.seen + found;
        let mut value = self.colon + 1;
        let Some(mut end) = line_end.checked_sub(1).filter(|end| *end >= value && bytes[*end] == b'\r')
        else {
            return Err(wrong_line_end());
        };
        while value < end && is_space(bytes[value]) {
            value += 1;
        }
        while value < end && is_space(bytes[end - 1]) {
            end -= 1;
        }
        if !fields::is_value(&bytes[value..end]) {
            return Err(malformed("the value of a field has a control character"));
        }
        let field = Field { name: self.at..self.colon, value: value..end };
        self.at = line_end + 1;
        self.seen = self.at;
        self.colon = 0;
        Ok(Some(field))
    }
}

/// Takes the head off the front of what was read. A short one that is all there is leaves the buffer to the connection
/// that is read next: it is warm, and a request may be answered for long.
fn take(buffer: &mut BytesMut, length: usize) -> Bytes {
    if length < buffer.len() || length > SHORT_HEAD_BYTES {
        return buffer.split_to(length).freeze();
    }
    let head = Bytes::copy_from_slice(buffer);
    buffer.clear();
    head
}

impl RequestLine {
    /// Of a line without its LF.
    fn of(line: &[u8], limits: &HeadLimits) -> Result<Self, Malformed> {
        let line = line.strip_suffix(b"\r").ok_or_else(wrong_line_end)?;
        let mut is_http10 = false;
        let Some(rest) = line.strip_suffix(b" HTTP/1.1").or_else(|| {
            is_http10 = true;
            line.strip_suffix(b" HTTP/1.0")
        }) else {
            return Err(malformed("the first line is not that of an HTTP/1.1 request"));
        };
        let method = memchr(b' ', rest).ok_or_else(|| malformed("the request line has no target"))?;
        let target = &rest[method + 1..];
        if target.len() > limits.target_bytes {
            return Err(uri_too_long());
        }
        // §3.2: a fragment is the client's own business; a parser may drop it where another does not.
        if memchr(b'#', target).is_some() {
            return Err(malformed("a request target has no fragment"));
        }
        Ok(RequestLine { method, target: rest.len(), is_http10 })
    }
}

/// The fields of a trailer section that has come as a whole, each line with its CRLF.
pub fn trailers(section: Bytes, limits: &HeadLimits) -> Result<HeaderMap, Malformed> {
    let mut section = section.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let mut reader = HeadReader::default();
    while reader.at < section.len() {
        let field = reader.field(&mut section)?.ok_or_else(wrong_line_end)?;
        if reader.fields.count() == limits.fields {
            return Err(malformed("there are more trailers than allowed"));
        }
        reader.fields.push(field.name, field.value);
    }
    reader.fields.within(section.freeze()).map(|fields| fields.to_map()).ok_or_else(too_large)
}

fn build(head: Bytes, line: RequestLine, fields: Places, said: &Said) -> Result<RequestHead, Malformed> {
    let method = Method::from_bytes(&head[..line.method]).map_err(|_| malformed("the method is not one"))?;
    let target = head.slice(line.method + 1..line.target);
    let target = Target::read(target).map_err(|_| malformed("the request target is not one"))?;
    Ok(RequestHead {
        method,
        target,
        version: if line.is_http10 { Version::HTTP_10 } else { Version::HTTP_11 },
        fields: fields.within(head).ok_or_else(too_large)?,
        body: said.body()?,
        keeps_alive: !said.close && (!line.is_http10 || said.keep_alive),
        expects_continue: said.expects_continue,
        takes_trailers: said.takes_trailers,
        may_upgrade: said.upgrade,
    })
}

/// What a head says about the connection and about the body.
#[derive(Default)]
struct Said {
    is_http10: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    takes_trailers: bool,
    upgrade: bool,
}

impl Said {
    /// `name` is in lower case.
    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        // Each of those that are special begins so.
        if !matches!(name[0], b'c' | b'e' | b't' | b'u') {
            return Ok(());
        }
        let is = |known: &HeaderName| name == known.as_str().as_bytes();
        match name.len() {
            14 if is(&header::CONTENT_LENGTH) => self.content_length(value)?,
            17 if is(&header::TRANSFER_ENCODING) => self.coding(value)?,
            10 if is(&header::CONNECTION) => {
                self.close |= lists(value, b"close");
                self.keep_alive |= lists(value, b"keep-alive");
            }
            // RFC 9110 §10.1.1: a server ignores it in an HTTP/1.0 request.
            6 if is(&header::EXPECT) => {
                self.expects_continue |= !self.is_http10 && lists(value, b"100-continue");
            }
            2 if is(&header::TE) => self.takes_trailers |= lists(value, b"trailers"),
            7 if is(&header::UPGRADE) => self.upgrade = true,
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 §6.3 lets a recipient take repeated equal lengths for one. Nobody sends them in good faith.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let length =
            digits.and_then(|digits| digits.parse().ok()).filter(|length| *length <= i64::MAX as u64);
        let length = length.ok_or_else(|| malformed("Content-Length is not one number"))?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(malformed("there is more than one Content-Length")),
        }
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.is_http10 {
            return Err(malformed("HTTP/1.0 has no Transfer-Encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(malformed("chunked is the only Transfer-Encoding that is understood"));
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Err(malformed("there is more than one Transfer-Encoding"));
        }
        Ok(())
    }

    fn body(&self) -> Result<BodyFraming, Malformed> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(malformed("Transfer-Encoding and Content-Length exclude each other")),
            (Some(length), false) => Ok(BodyFraming::length(length)),
            (None, true) => Ok(BodyFraming::chunked()),
            (None, false) => Ok(BodyFraming::length(0)),
        }
    }
}

/// Whether a list has this element.
fn lists(value: &[u8], element: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(element))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn no_name(first: u8) -> Malformed {
    if is_space(first) {
        return malformed("a field goes over several lines");
    }
    malformed("a line of the head is not a name, a colon and a value")
}

/// RFC 9112 §2.2 allows to take a single LF for a line end, and not everyone does.
fn wrong_line_end() -> Malformed {
    malformed("lines of a request end with CR LF")
}

fn too_large() -> Malformed {
    Malformed { reason: Reason::HeadersTooLarge, detail: "the head of the request is larger than allowed" }
}

fn uri_too_long() -> Malformed {
    Malformed { reason: Reason::UriTooLong, detail: "the request target is longer than allowed" }
}

#[cfg(test)]
mod tests;
