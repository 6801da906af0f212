//! Interim responses (1xx, RFC 9110 §15.2) on their way from an instance to the client.

use http::{StatusCode, header};

use super::fields::Fields;

/// 100 is answered by ourselves when a body is wanted, and 101 ends the exchange: neither is passed on here.
pub fn may_pass(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::CONTINUE && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Appends the response as HTTP/1.1 bytes. Field values hold no line breaks: their readers refuse them.
pub fn encode_http1(status: StatusCode, fields: &Fields, into: &mut Vec<u8>) {
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(status.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(status.canonical_reason().unwrap_or("Interim").as_bytes());
    into.extend_from_slice(b"\r\n");
    for (name, value) in end_to_end(fields).iter() {
        into.extend_from_slice(name);
        into.extend_from_slice(b": ");
        into.extend_from_slice(value);
        into.extend_from_slice(b"\r\n");
    }
    into.extend_from_slice(b"\r\n");
}

/// The fields of an interim response that may be passed on: no framing, nothing hop-by-hop.
pub fn end_to_end(fields: &Fields) -> Fields {
    let mut kept = fields.clone();
    super::hop_by_hop::strip_response(&mut kept);
    kept.remove(&header::CONTENT_LENGTH);
    kept
}
