//! Responses of instances: the head, and where the body behind it ends.
//!
//! Invariant: a length that could be read in two ways is an error, never a choice (RFC 9112 §6.3).

use std::io;
use std::mem::{self, MaybeUninit};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};

use super::chunked::Chunks;

/// A response head may be this long, with all its fields.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
pub const MAX_FIELDS: usize = 256;
/// What the gateway adds to a response fits in, so that its map is allocated once.
const ROOM_FOR_OURS: usize = 6;

/// Why something is no response that could be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the head of the response is malformed")]
    Head,
    #[error("the head of the response is too large")]
    TooLarge,
    /// The length of the body is told in two ways, or in one that nobody understands.
    #[error("the length of the response is ambiguous")]
    Length,
    #[error("the chunks of the response are malformed")]
    Chunks,
    #[error("there are too many interim responses")]
    Interims,
    #[error("the protocol was switched in the middle of the request")]
    Switch,
}

/// The head of a response.
pub struct Head {
    pub response: Response<()>,
    /// Another request may follow on the connection.
    pub keeps_alive: bool,
    told: Told,
}

/// What the fields of a head say about the length of the body.
#[derive(Default)]
struct Told {
    length: Option<Result<u64, Invalid>>,
    codings: u8,
    is_chunked: bool,
    close: bool,
}

/// Takes a head off the front; `None` when not all of it is there yet.
pub fn take_head(unread: &mut Bytes) -> Result<Option<Head>, Invalid> {
    let whole = mem::take(unread);
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, &whole, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            let too_large = whole.len() > MAX_HEAD_BYTES;
            *unread = whole;
            return if too_large { Err(Invalid::TooLarge) } else { Ok(None) };
        }
        Err(httparse::Error::TooManyHeaders) => return Err(Invalid::TooLarge),
        Err(_) => return Err(Invalid::Head),
    };
    if length > MAX_HEAD_BYTES {
        return Err(Invalid::TooLarge);
    }
    let mut response = Response::new(());
    *response.status_mut() =
        parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Invalid::Head)?;
    *response.version_mut() = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    keep_reason(&mut response, parsed.reason.unwrap_or_default());
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + ROOM_FOR_OURS);
    let mut told = Told::default();
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Invalid::Head)?;
        told.hear(&name, field.value);
        let value =
            HeaderValue::from_maybe_shared(whole.slice_ref(field.value)).map_err(|_| Invalid::Head)?;
        headers.append(name, value);
    }
    *response.headers_mut() = headers;
    if length < whole.len() {
        *unread = whole;
        unread.advance(length);
    }
    // HTTP/1.0 may promise to keep the connection; who still speaks it is not worth the risk.
    let keeps_alive = response.version() == Version::HTTP_11 && !told.close;
    Ok(Some(Head { response, keeps_alive, told }))
}

/// A reason phrase of the instance's own is passed on; the usual ones are known from the status.
fn keep_reason(response: &mut Response<()>, reason: &str) {
    if response.status().canonical_reason() != Some(reason)
        && let Ok(phrase) = hyper::ext::ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(phrase);
    }
}

/// Whether a head that is known to be incomplete up to `from` may be complete now.
pub fn may_end(bytes: &[u8], from: usize) -> bool {
    let start = from.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[start..])
        .any(|at| matches!(bytes[start + at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

impl Told {
    fn hear(&mut self, name: &HeaderName, value: &[u8]) {
        if name == CONTENT_LENGTH {
            for number in value.split(|&byte| byte == b',') {
                let number = parse_length(number.trim_ascii());
                self.length = Some(match (self.length, number) {
                    (None, Some(number)) => Ok(number),
                    (Some(Ok(before)), Some(number)) if before == number => Ok(number),
                    _ => Err(Invalid::Length),
                });
            }
        } else if name == TRANSFER_ENCODING {
            self.codings = self.codings.saturating_add(1);
            self.is_chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if name == CONNECTION {
            self.close |= value
                .split(|&byte| byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
    }
}

fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

impl Head {
    /// The body behind the head (RFC 9112 §6.3). `to_head`: it answers a HEAD.
    pub fn body(&self, to_head: bool) -> Result<Body, Invalid> {
        let told = &self.told;
        // An attempt to split the response; or a coding that would have to be taken off, for the field that names it
        // ends at this hop.
        let is_plain = match told.codings {
            0 => true,
            1 => told.is_chunked && told.length.is_none() && self.response.version() == Version::HTTP_11,
            _ => false,
        };
        if !is_plain {
            return Err(Invalid::Length);
        }
        let status = self.response.status();
        let has_none = to_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match told.length {
            _ if has_none => Body::Length(0),
            _ if told.is_chunked => Body::Chunked(Chunks::default()),
            Some(length) => Body::Length(length?),
            None => Body::UntilClose,
        })
    }
}

/// What is still to come of a response's body.
pub enum Body {
    /// So many bytes.
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

/// What the bytes at hand give of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Never empty.
    Data(Bytes),
    /// And nothing after them.
    Trailers(HeaderMap),
    End,
    /// All bytes are used up.
    More,
}

impl Body {
    /// Takes the next piece off the front.
    pub fn next(&mut self, unread: &mut Bytes) -> Result<Step, Invalid> {
        match self {
            Body::Length(0) => Ok(Step::End),
            Body::Chunked(chunks) => chunks.next(unread),
            Body::Length(_) | Body::UntilClose if unread.is_empty() => Ok(Step::More),
            Body::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len());
                *left -= length as u64;
                Ok(Step::Data(unread.split_to(length)))
            }
            Body::UntilClose => Ok(Step::Data(mem::take(unread))),
        }
    }

    /// Nothing more comes of it.
    pub fn is_end(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunks) => chunks.is_end(),
            Body::UntilClose => false,
        }
    }

    /// Whether the end of the connection, as `error` tells it, is the end of the body.
    pub fn ends_with(&self, error: &io::Error) -> bool {
        matches!(self, Body::UntilClose) && error.kind() == io::ErrorKind::UnexpectedEof
    }

    /// How much is to come, where that is known.
    pub fn length(&self) -> Option<u64> {
        if let Body::Length(left) = self { Some(*left) } else { None }
    }
}
