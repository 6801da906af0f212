//! W3C Trace Context: the trace that a request belongs to, passed on with a span of our own.
//!
//! Invariant: what is forwarded is always a valid `traceparent` of version 00, and a `tracestate` only
//! together with the `traceparent` that it came with.

use std::fmt;

use http::HeaderName;

use super::field_lines::Sink;
use super::fields::Fields;
use super::{hex, random};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-` trace id `-` span id `-` flags.
const LENGTH: usize = 55;
const SAMPLED: u8 = 0b01;
/// Level 2 of the recommendation: the trace id is random.
const RANDOM_TRACE_ID: u8 = 0b10;

/// Prints as 32 hexadecimal digits. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// Prints as 16 hexadecimal digits. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

/// Where the gateway's own work on a request stands in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    /// The gateway's own span.
    pub span_id: SpanId,
    /// The caller's span; absent when the trace begins here.
    pub parent: Option<SpanId>,
    flags: u8,
}

impl TraceId {
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl TraceContext {
    /// A child of the caller's span when the request brings exactly one valid `traceparent`, else a
    /// new trace, which is `sampled` or not.
    pub fn of(headers: &Fields, sampled: bool) -> TraceContext {
        match caller(headers) {
            Some((trace_id, parent, flags)) => TraceContext {
                trace_id,
                span_id: SpanId::fresh(),
                parent: Some(parent),
                // Flags that this version does not know must not be sent on.
                flags: flags & (SAMPLED | RANDOM_TRACE_ID),
            },
            None => TraceContext::fresh(sampled),
        }
    }

    /// A new trace.
    pub fn fresh(sampled: bool) -> TraceContext {
        TraceContext {
            trace_id: TraceId::fresh(),
            span_id: SpanId::fresh(),
            parent: None,
            flags: if sampled { SAMPLED } else { 0 },
        }
    }

    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Writes the context into the request that is forwarded, where the gateway's span is the parent.
    pub fn write(&self, to: &mut Sink<'_>) {
        to.set_text(&TRACEPARENT, &self.to_text());
    }

    /// Takes away what the caller wrote and [`TraceContext::write`] does not replace.
    pub fn strip(&self, headers: &mut Fields) {
        headers.remove(&TRACEPARENT);
        if self.parent.is_none() {
            headers.remove(&TRACESTATE);
        }
    }

    fn to_text(self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        text[..2].copy_from_slice(b"00");
        hex::write(&mut text[3..35], &self.trace_id.0.to_be_bytes());
        hex::write(&mut text[36..52], &self.span_id.0.to_be_bytes());
        hex::write(&mut text[53..], &[self.flags]);
        text
    }
}

impl TraceId {
    fn fresh() -> TraceId {
        TraceId(random::bits_128().max(1))
    }
}

impl SpanId {
    fn fresh() -> SpanId {
        SpanId(random::bits_64().max(1))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn caller(headers: &Fields) -> Option<(TraceId, SpanId, u8)> {
    headers.only(&TRACEPARENT).and_then(parse)
}

/// Trace Context §3.2.2 and §4.3: version 00 has exactly this form, later versions begin with it and
/// may go on behind a hyphen, version ff is forbidden, and ids of zeros are invalid.
fn parse(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let (head, rest) = text.split_at_checked(LENGTH)?;
    if [2, 35, 52].iter().any(|&hyphen| head[hyphen] != b'-') {
        return None;
    }
    let version = read_hex(&head[..2])?;
    if version == 0xff || (version == 0 && !rest.is_empty()) || !matches!(rest.first(), None | Some(b'-')) {
        return None;
    }
    let trace_id = read_hex(&head[3..35])?;
    let parent = read_hex(&head[36..52])? as u64;
    let flags = read_hex(&head[53..])? as u8;
    (trace_id != 0 && parent != 0).then_some((TraceId(trace_id), SpanId(parent), flags))
}

/// Lower case only, as the recommendation demands. At most 32 digits.
fn read_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parents: &[&str]) -> Fields {
        let mut headers = Fields::new();
        for parent in parents {
            headers.append(TRACEPARENT.clone(), HeaderValue::from_str(parent).unwrap());
        }
        headers.append(TRACESTATE.clone(), HeaderValue::from_static("vendor=1"));
        headers
    }

    #[test]
    fn a_valid_parent_gets_a_child_in_the_same_trace() {
        let mut headers = headers(&[VALID]);
        let context = TraceContext::of(&headers, false);
        assert_eq!(context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent.unwrap().to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled());

        context.strip(&mut headers);
        context.write(&mut Sink::Fields(&mut headers));
        let sent = super::super::fields::text(headers.only(&TRACEPARENT).unwrap()).unwrap();
        assert_eq!(sent, format!("00-{}-{}-01", context.trace_id, context.span_id));
        assert_ne!(sent, VALID);
        assert_eq!(headers.only(&TRACESTATE), Some(&b"vendor=1"[..]));
        assert_eq!(parse(sent.as_bytes()).unwrap().1, context.span_id);
    }

    #[test]
    fn without_a_valid_parent_a_trace_begins_and_the_state_goes() {
        let mut headers = headers(&[]);
        let context = TraceContext::of(&headers, true);
        context.strip(&mut headers);
        context.write(&mut Sink::Fields(&mut headers));
        assert_eq!(context.parent, None);
        assert!(headers.only(&TRACEPARENT).unwrap().ends_with(b"-01"));
        assert!(!headers.contains(&TRACESTATE));
        assert!(!TraceContext::of(&Fields::new(), false).is_sampled());
    }

    #[test]
    fn two_parents_are_none() {
        assert_eq!(TraceContext::of(&headers(&[VALID, VALID]), true).parent, None);
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        for rest in ["", "-", "-what-the-future-will-be-like"] {
            let text = format!("cc{}{rest}", &VALID[2..]);
            assert_eq!(parse(text.as_bytes()), parse(VALID.as_bytes()));
        }
        let with_all_flags = VALID.replace("-01", "-ff");
        let context = TraceContext::of(&headers(&[&with_all_flags]), false);
        assert!(context.to_text().ends_with(b"-03"));
    }

    #[test]
    fn malformed_parents_are_refused() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let span = "00f067aa0ba902b7";
        let zero_trace = "0".repeat(32);
        let zero_span = "0".repeat(16);
        for text in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-01-"),
            format!("00-{trace}-{span}-01-extra"),
            format!("01-{trace}-{span}-01extra"),
            format!("ff-{trace}-{span}-01"),
            format!("0g-{trace}-{span}-01"),
            format!("00-{zero_trace}-{span}-01"),
            format!("00-{trace}-{zero_span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00_{trace}_{span}_01"),
            format!("00-{trace}-{span}-0x"),
            format!(" 00-{trace}-{span}-01"),
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
