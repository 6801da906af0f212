//! Chunked bodies of requests: the content, the trailers and the end don't depend on where the bytes were cut, and who
//! looks ahead sees the same end.

use bytes::BytesMut;
use gatehouse::listener::{BodyFraming, HeadLimits, trailers};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 20, target_bytes: 1024 };

pub fn chunked(input: &[u8]) {
    let Some((first, second, bytes)) = super::cuts(input) else { return };
    let whole = read(&[bytes]);
    let cut = read(&[&bytes[..first], &bytes[first..second], &bytes[second..]]);
    assert_eq!(whole, cut, "the cut makes a difference");
    let ends = BodyFraming::chunked().ends_within(bytes);
    let Some(read) = whole else { return assert!(!ends, "what is refused has no end") };
    assert_eq!(read.ended, ends, "who looks ahead sees the same end");
    assert!(read.content.len() + read.trailers.len() <= bytes.len(), "nothing is made up");
    if !read.ended || read.trailers.is_empty() {
        return;
    }
    if let Ok(fields) = trailers(read.trailers.into(), &LIMITS) {
        assert!(fields.len() <= LIMITS.fields);
        assert!(
            fields
                .values()
                .all(|value| !value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)))
        );
    }
}

#[derive(Debug, PartialEq)]
struct Read {
    content: Vec<u8>,
    trailers: Vec<u8>,
    ended: bool,
    rest: Vec<u8>,
}

/// `None` for what is refused.
fn read(pieces: &[&[u8]]) -> Option<Read> {
    let (mut framing, mut buffer) = (BodyFraming::chunked(), BytesMut::new());
    let (mut content, mut trailers) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(data) = framing.take(&mut buffer, &mut trailers).ok()? {
            content.extend_from_slice(&data);
        }
    }
    Some(Read { content, trailers, ended: framing.is_end(), rest: buffer.to_vec() })
}
