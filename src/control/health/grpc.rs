//! The gRPC health protocol: one call of `grpc.health.v1.Health/Check`, over HTTP/2, of which the instance is known to speak it.
//!
//! Its two messages have one field each, a text and a number, and are written and read here byte by byte. An instance
//! is well only when it says SERVING.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use thiserror::Error;

use super::check::{CheckError, MAX_HEAD_BYTES, beside};
use crate::service::stream::Stream;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// The most bytes of an answer that are read; a good one has seven.
const MAX_ANSWER_BYTES: usize = 4096;
/// Of what the instance says by itself.
const MAX_MESSAGE_CHARS: usize = 200;

/// Why an instance that answered is not well.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotServing {
    #[error("it says {0}")]
    Says(&'static str),
    #[error("it has no gRPC health service (UNIMPLEMENTED)")]
    Unimplemented,
    #[error("its health service does not know this service (NOT_FOUND)")]
    UnknownService,
    #[error("the call failed: {}", Call(*.code, .message))]
    Failed { code: u32, message: String },
    #[error("it does not speak gRPC: its answer has status {}", .0.as_u16())]
    Status(StatusCode),
    #[error("it does not speak gRPC: its answer has content-type {0:?}")]
    ContentType(String),
    #[error("its answer has no grpc-status")]
    NoStatus,
    #[error("its answer is not a HealthCheckResponse")]
    Malformed,
}

/// A failed call as operators know it.
struct Call<'a>(u32, &'a str);

impl std::fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match CODES.get(self.0 as usize) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "grpc-status {}", self.0)?,
        }
        if self.1.is_empty() { Ok(()) } else { write!(f, " ({})", self.1) }
    }
}

const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;

pub async fn ask(
    stream: Stream,
    scheme: &str,
    authority: &HeaderValue,
    service: &str,
    limit: Duration,
) -> Result<(), CheckError> {
    let request = request(scheme, authority, limit)?;
    let message = framed(service);
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(MAX_HEAD_BYTES as u32).enable_push(false);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(CheckError::Http2)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(CheckError::Http2)?;
        let (response, mut body) = sender.send_request(request, false).map_err(CheckError::Http2)?;
        body.send_data(message, true).map_err(CheckError::Http2)?;
        read(response.await.map_err(CheckError::Http2)?).await
    };
    beside(exchange, connection).await
}

fn request(scheme: &str, authority: &HeaderValue, limit: Duration) -> Result<Request<()>, CheckError> {
    let uri = Uri::builder().scheme(scheme).authority(authority.as_bytes()).path_and_query(METHOD);
    // Eight digits at most; a longer timeout than that is none.
    let timeout = format!("{}m", limit.as_millis().clamp(1, 99_999_999));
    Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(uri.build().map_err(CheckError::Request)?)
        .header(header::TE, "trailers")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header("grpc-timeout", timeout)
        .header(header::USER_AGENT, "gatehouse-health")
        .body(())
        .map_err(CheckError::Request)
}

/// A call that failed at once has its status in the head ("trailers only"); else it comes behind the message.
async fn read(response: Response<RecvStream>) -> Result<(), CheckError> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(NotServing::Status(head.status).into());
    }
    let content_type = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !content_type.starts_with(b"application/grpc") {
        return Err(NotServing::ContentType(shortened(content_type)).into());
    }
    if head.headers.contains_key("grpc-status") {
        judge(&head.headers)?;
    }
    let mut answer = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(CheckError::Http2)?;
        if answer.len() + data.len() > MAX_ANSWER_BYTES {
            return Err(NotServing::Malformed.into());
        }
        answer.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).map_err(CheckError::Http2)?;
    }
    match body.trailers().await.map_err(CheckError::Http2)? {
        Some(trailers) => judge(&trailers)?,
        None => return Err(NotServing::NoStatus.into()),
    }
    match serving_status(&answer) {
        Some(1) => Ok(()),
        Some(2) => Err(NotServing::Says("NOT_SERVING").into()),
        Some(3) => Err(NotServing::Says("SERVICE_UNKNOWN").into()),
        Some(_) => Err(NotServing::Says("UNKNOWN").into()),
        None => Err(NotServing::Malformed.into()),
    }
}

/// What `grpc-status` and `grpc-message` say about the call.
fn judge(fields: &HeaderMap) -> Result<(), NotServing> {
    let code =
        fields.get("grpc-status").and_then(|value| value.to_str().ok()).and_then(|code| code.parse().ok());
    match code {
        None => Err(NotServing::NoStatus),
        Some(0) => Ok(()),
        Some(UNIMPLEMENTED) => Err(NotServing::Unimplemented),
        Some(NOT_FOUND) => Err(NotServing::UnknownService),
        Some(code) => {
            let message =
                fields.get("grpc-message").map_or_else(String::new, |text| shortened(text.as_bytes()));
            Err(NotServing::Failed { code, message })
        }
    }
}

fn shortened(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(MAX_MESSAGE_CHARS).collect()
}

/// `HealthCheckRequest { string service = 1 }` behind the five bytes that precede a gRPC message: not compressed, and
/// its length. An empty text is left out, and asks for the server as a whole.
fn framed(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | LENGTH_DELIMITED);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("a configuration has no text of 4 GiB"));
    framed.put(message);
    framed.freeze()
}

/// The number in `HealthCheckResponse { ServingStatus status = 1 }`, of one gRPC message; 0 when it is left out. Fields
/// of later versions are passed over.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (&[compressed, a, b, c, d], mut message) = framed.split_first_chunk::<5>()?;
    if compressed != 0 || u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        let length = match (tag & 7) as u8 {
            VARINT => {
                let value = take_varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            FIXED_64 => 8,
            LENGTH_DELIMITED => usize::try_from(take_varint(&mut message)?).ok()?,
            FIXED_32 => 4,
            _ => return None,
        };
        message = message.get(length..)?;
    }
    Some(status)
}

// The kinds of fields of protobuf's encoding.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED_32: u8 = 5;

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(message: &[u8]) -> Vec<u8> {
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend(message);
        framed
    }

    #[test]
    fn a_request_is_framed() {
        assert_eq!(&framed("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&framed("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = "x".repeat(300);
        assert_eq!(framed(&long)[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn the_status_is_found_among_fields_of_later_versions() {
        assert_eq!(serving_status(&answer(&[])), Some(0));
        assert_eq!(serving_status(&answer(&[8, 1])), Some(1));
        assert_eq!(serving_status(&answer(&[8, 2])), Some(2));
        assert_eq!(serving_status(&answer(&[8, 2, 8, 1])), Some(1), "the last one counts");
        let later = [0x12, 2, 9, 9, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 8, 1, 0x30, 0x80, 0x01];
        assert_eq!(serving_status(&answer(&later)), Some(1));
    }

    #[test]
    fn what_is_no_message_is_none() {
        for message in [&[8][..], &[8, 0x80], &[0x0b, 1], &[0x12, 5, 1], &[0x25, 0], &[0x80], &[8; 0]] {
            let wanted = message.is_empty().then_some(0);
            assert_eq!(serving_status(&answer(message)), wanted, "{message:?}");
        }
        assert_eq!(serving_status(b""), None);
        assert_eq!(serving_status(&[0, 0, 0, 0]), None);
        assert_eq!(serving_status(&[1, 0, 0, 0, 2, 8, 1]), None, "it is compressed");
        assert_eq!(serving_status(&[0, 0, 0, 0, 3, 8, 1]), None, "it breaks off");
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1, 0]), None, "there is more of it");
        assert_eq!(serving_status(&answer(&[0xff; 11])), None, "no number is that long");
    }

    #[test]
    fn a_failed_call_says_how() {
        let told = |fields: &[(&'static str, &'static str)]| {
            let fields = fields
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            judge(&fields.collect()).map_err(|error| error.to_string())
        };
        assert_eq!(told(&[("grpc-status", "0")]), Ok(()));
        let failed = |fields: &[(&'static str, &'static str)]| told(fields).unwrap_err();
        assert_eq!(failed(&[("grpc-status", "12")]), "it has no gRPC health service (UNIMPLEMENTED)");
        assert_eq!(
            failed(&[("grpc-status", "5"), ("grpc-message", "unknown service")]),
            "its health service does not know this service (NOT_FOUND)"
        );
        assert_eq!(
            failed(&[("grpc-status", "16"), ("grpc-message", "who are you?")]),
            "the call failed: UNAUTHENTICATED (who are you?)"
        );
        assert_eq!(failed(&[("grpc-status", "77")]), "the call failed: grpc-status 77");
        assert_eq!(failed(&[]), "its answer has no grpc-status");
        assert_eq!(failed(&[("grpc-status", "-1")]), "its answer has no grpc-status");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = serving_status(&bytes);
            let _ = serving_status(&answer(&bytes));
        }

        #[test]
        fn numbers_come_back(value: u64) {
            let mut written = BytesMut::new();
            put_varint(&mut written, value);
            prop_assert_eq!(take_varint(&mut &written[..]), Some(value));
        }
    }
}
