//! Whatever bytes an HTTP/1.1 client sends: each request is refused or ends in one place, wherever the bytes were cut,
//! and its fields hold nothing that could be read as another line.

use bytes::BytesMut;
use gatehouse::listener::{BodyFraming, HeadLimits, HeadReader};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 20, target_bytes: 1024 };

pub fn http1(input: &[u8]) {
    let Some((cut, _, bytes)) = super::cuts(input) else { return };
    let mut rest = BytesMut::from(bytes);
    let first = HeadReader::default().read(&mut rest, &LIMITS);
    let mut reader = HeadReader::default();
    let mut buffer = BytesMut::from(&bytes[..cut]);
    let mut in_two = reader.read(&mut buffer, &LIMITS);
    if matches!(in_two, Ok(None)) {
        buffer.extend_from_slice(&bytes[cut..]);
        in_two = reader.read(&mut buffer, &LIMITS);
        assert_eq!(buffer.len(), rest.len(), "it ends in one place");
    }
    assert_eq!(first.is_ok(), in_two.is_ok());
    let Ok(Some(head)) = first else { return };
    assert!(head.fields.len() <= LIMITS.fields);
    for (name, value) in head.fields.iter() {
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        assert!(http::HeaderName::from_lowercase(name).is_ok());
    }
    let mut framing: BodyFraming = head.body;
    let ends = framing.ends_within(&rest);
    let mut trailers = Vec::new();
    while let Ok(Some(_)) = framing.take(&mut rest, &mut trailers) {}
    assert_eq!(framing.is_end(), ends, "who looks ahead sees the same end");
}
