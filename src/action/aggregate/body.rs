//! The bodies of parts: what is sent, and what comes back, decoded within bounds and checked.

use std::cell::RefCell;
use std::io::Read;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header;
use http_body_util::BodyExt;
use hyper::body::Frame;
use serde_json::value::RawValue;

use super::part::PartError;
use super::template::{Given, Source};
use crate::http::body::{BodyError, ClientBody, Http1Body, Http1Source, RequestBody};
use crate::http::fields::Fields;
use crate::service::UpstreamBody;

/// JSON with values put in.
pub struct Body(Box<[Piece]>);

pub enum Piece {
    Literal(Box<str>),
    /// A JSON value.
    Whole(Source),
    /// Characters of a JSON string.
    Within(Source),
}

impl Body {
    pub fn new(pieces: Vec<Piece>) -> Self {
        Body(pieces.into())
    }

    pub fn render(&self, given: &Given<'_>) -> Result<Bytes, PartError> {
        let mut out = BytesMut::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Whole(source) => {
                    out.extend_from_slice(&source.json(given).ok_or(PartError::MissingValue)?);
                }
                Piece::Within(source) => {
                    let text = source.text(given).ok_or(PartError::MissingValue)?;
                    let quoted = serde_json::Value::from(text).to_string();
                    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
                }
            }
        }
        Ok(out.freeze())
    }
}

/// A body that is in memory, as a request sends it.
pub fn of(body: Bytes) -> Rc<RequestBody> {
    if body.is_empty() {
        return RequestBody::new(ClientBody::Empty, None, None);
    }
    let length = body.len() as u64;
    RequestBody::new(held(body), Some(length), None)
}

/// The same, as a client would send it.
pub fn held(body: Bytes) -> ClientBody {
    match body.is_empty() {
        true => ClientBody::Empty,
        false => ClientBody::Http1(Http1Body::new(Rc::new(Held(RefCell::new(body))), 0)),
    }
}

struct Held(RefCell<Bytes>);

impl Http1Source for Held {
    fn poll_frame(&self, _: u64, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let bytes = std::mem::take(&mut *self.0.borrow_mut());
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn left(&self, _: u64) -> Option<u64> {
        Some(self.0.borrow().len() as u64)
    }

    fn is_end(&self, _: u64) -> bool {
        self.0.borrow().is_empty()
    }
}

pub async fn collect(mut body: UpstreamBody, limit: u64) -> Result<Bytes, PartError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(PartError::Body)?.into_data() else { continue };
        if (whole.len() + data.len()) as u64 > limit {
            return Err(PartError::TooLarge);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// How an answer is written (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Plain,
    Gzip,
    Brotli,
}

/// Nobody asked for any, and some services write one nevertheless. One that is not known leaves nothing to read.
pub fn coding(fields: &Fields) -> Result<Coding, PartError> {
    let mut coding = Coding::Plain;
    for written in
        fields.get_all(&header::CONTENT_ENCODING).flat_map(|value| value.split(|byte| *byte == b','))
    {
        coding = match (written.trim_ascii().to_ascii_lowercase().as_slice(), coding) {
            (b"" | b"identity", known) => known,
            (b"gzip" | b"x-gzip", Coding::Plain) => Coding::Gzip,
            (b"br", Coding::Plain) => Coding::Brotli,
            _ => return Err(PartError::NotJson),
        };
    }
    Ok(coding)
}

/// A longer answer may not have become more than so many times as long.
const MOST_RATIO: u64 = 200;
const FREE_BYTES: u64 = 64 * 1024;

pub fn decode(body: Bytes, coding: Coding, limit: u64) -> Result<Bytes, PartError> {
    let ratio = (body.len() as u64).saturating_mul(MOST_RATIO).max(FREE_BYTES);
    let limit = limit.min(ratio);
    match coding {
        Coding::Plain => Ok(body),
        Coding::Gzip => read(flate2::read::MultiGzDecoder::new(&*body), limit),
        Coding::Brotli => read(brotli_decompressor::Decompressor::new(&*body, 4096), limit),
    }
}

fn read(decoder: impl Read, limit: u64) -> Result<Bytes, PartError> {
    let mut out = Vec::new();
    decoder.take(limit.saturating_add(1)).read_to_end(&mut out).map_err(|_| PartError::NotJson)?;
    if out.len() as u64 > limit { Err(PartError::TooLarge) } else { Ok(out.into()) }
}

/// Checks that it is one JSON value, without building it, and cuts the space around it off.
pub fn json(whole: Bytes) -> Result<Bytes, PartError> {
    let value: &RawValue = serde_json::from_slice(&whole).map_err(|_| PartError::NotJson)?;
    Ok(whole.slice_ref(value.get().as_bytes()))
}

/// Text as a JSON string: UTF-8, or Latin 1 where the answer says so.
pub fn text(whole: &[u8], fields: &Fields) -> Result<Bytes, PartError> {
    let whole = whole.strip_prefix(b"\xef\xbb\xbf").unwrap_or(whole);
    let kind = fields.get(&header::CONTENT_TYPE).map(<[u8]>::to_ascii_lowercase).unwrap_or_default();
    let is_latin = memchr::memmem::find(&kind, b"iso-8859-1").is_some();
    let text = match std::str::from_utf8(whole) {
        Ok(text) if !is_latin => serde_json::Value::from(text),
        _ if is_latin => {
            serde_json::Value::from(whole.iter().map(|byte| char::from(*byte)).collect::<String>())
        }
        _ => return Err(PartError::NotText),
    };
    Ok(text.to_string().into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_answer_may_not_become_too_long() {
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(text).unwrap();
            Bytes::from(encoder.finish().unwrap())
        };
        assert_eq!(decode(gzip(b"[1]"), Coding::Gzip, 100).unwrap(), "[1]");
        assert!(matches!(decode(gzip(b"[1,2]"), Coding::Gzip, 4), Err(PartError::TooLarge)));
        // A thousand times as long.
        let bomb = gzip(&vec![b' '; 10 << 20]);
        assert!(matches!(decode(bomb, Coding::Gzip, u64::MAX), Err(PartError::TooLarge)));
        for broken in [&b""[..], b"\x1f\x8b\x08\0\0\0\0\0", b"nonsense"] {
            assert!(decode(Bytes::from_static(broken), Coding::Gzip, 100).is_err());
        }
        assert!(decode(Bytes::from_static(b"nonsense"), Coding::Brotli, 100).is_err());
        // `[1]` as brotli writes it without compressing.
        assert_eq!(decode(Bytes::from_static(b"\x0b\x01\x80[1]\x03"), Coding::Brotli, 100).unwrap(), "[1]");
    }

    #[test]
    fn only_one_coding_that_is_known() {
        let coding_of = |value: &'static str| {
            let field = (header::CONTENT_ENCODING, http::HeaderValue::from_static(value));
            coding(&Fields::from_iter([field])).ok()
        };
        for (value, wanted) in [
            ("gzip", Some(Coding::Gzip)),
            ("x-GZIP", Some(Coding::Gzip)),
            ("identity, br", Some(Coding::Brotli)),
            ("", Some(Coding::Plain)),
            ("gzip, gzip", None),
            ("zstd", None),
        ] {
            assert_eq!(coding_of(value), wanted, "{value}");
        }
    }

    #[test]
    fn a_part_is_one_json_value_passed_on_as_it_was_written() {
        let kept =
            json(Bytes::from_static(b" {\"a\": 1.0e2, \"a\":12345678901234567890}\n")).expect("it is JSON");
        assert_eq!(kept, "{\"a\": 1.0e2, \"a\":12345678901234567890}");
        for broken in ["", "{", "{} {}", "<html>", "{\"a\":}", "\u{feff}{}"] {
            assert!(json(Bytes::from(broken)).is_err(), "{broken:?} passed for JSON");
        }
        assert!(json(Bytes::from_static(b"\"\xff\"")).is_err(), "a string that is not UTF-8 passed for JSON");
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = "[".repeat(500_000) + &"]".repeat(500_000);
        assert!(json(Bytes::from(deep)).is_ok());
    }
}
