//! What is known about one finished request, and its line in the access log.
//!
//! A record is cheap to make on a worker: counted references and numbers. It is turned into text on
//! the writer's thread. It never holds the query string or the value of a header that a client
//! might keep secret.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Version};

use super::json::write_string;
use super::rfc3339::MillisecondStamp;
use crate::http::forwarded::AddressText;
use crate::http::request_id::RequestId;
use crate::reason::Reason;

/// One request, when its response has ended. What is `None` (or zero, for the trace id) is absent
/// from the line.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// When the request's head had arrived.
    pub time: SystemTime,
    pub request_id: Option<RequestId>,
    /// W3C trace id; all zeros is "none".
    pub trace_id: [u8; 16],
    pub client: IpAddr,
    pub method: Method,
    pub host: Option<Bytes>,
    /// The normalised path, without the query.
    pub path: Bytes,
    pub route: Option<Arc<str>>,
    pub service: Option<Arc<str>>,
    pub asked: Asked,
    /// The status that was sent, or 499 when the client left before there was one.
    pub status: u16,
    /// Why the gateway answered by itself.
    pub reason: Option<Reason>,
    /// Of the request's body.
    pub bytes_in: u64,
    /// Of the response's body.
    pub bytes_out: u64,
    /// From the request's head to the response's last byte.
    pub duration: Duration,
    /// The part of it that was spent waiting for instances.
    pub upstream_duration: Option<Duration>,
    /// Attempts at instances; 0 when none was made.
    pub attempts: u8,
    /// Who the request was authenticated as.
    pub subject: Option<Arc<str>>,
    pub protocol: Version,
    pub listener: Option<Arc<str>>,
    pub tls: bool,
}

/// Whom the request was taken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    #[default]
    Nobody,
    /// The last of them.
    Instance(SocketAddr),
    /// The items of a batch, so many.
    Items(u32),
    /// An aggregate's parts: how long each took, as a JSON object of milliseconds.
    Parts(Box<str>),
}

/// Turns records into lines.
pub(super) struct LineFormat {
    stamp: MillisecondStamp,
}

impl LineFormat {
    pub(super) fn new() -> Self {
        LineFormat { stamp: MillisecondStamp::new() }
    }

    /// Appends one line of JSON. The keys always come in this order.
    pub(super) fn write(&mut self, record: &LogRecord, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"time":""#);
        self.stamp.write(record.time, out);
        out.push(b'"');
        if let Some(id) = &record.request_id {
            plain(br#","request_id":""#, id.as_bytes(), out);
        }
        if record.trace_id != [0; 16] {
            plain(br#","trace_id":""#, &hex(record.trace_id), out);
        }
        plain(br#","client":""#, AddressText::of(record.client).as_bytes(), out);
        plain(br#","method":""#, record.method.as_str().as_bytes(), out);
        if let Some(host) = &record.host {
            string(br#","host":"#, host, out);
        }
        string(br#","path":"#, &record.path, out);
        text(br#","route":"#, &record.route, out);
        text(br#","service":"#, &record.service, out);
        match &record.asked {
            Asked::Nobody => {}
            Asked::Instance(address) => instance(br#","instance":""#, *address, out),
            Asked::Items(count) => number(br#","items":"#, u64::from(*count), out),
            Asked::Parts(timings) => {
                out.extend_from_slice(br#","timings":"#);
                out.extend_from_slice(timings.as_bytes());
            }
        }
        number(br#","status":"#, u64::from(record.status), out);
        if let Some(reason) = record.reason {
            plain(br#","reason":""#, reason.code().as_bytes(), out);
        }
        number(br#","bytes_in":"#, record.bytes_in, out);
        number(br#","bytes_out":"#, record.bytes_out, out);
        durations(record, out);
        number(br#","attempts":"#, u64::from(record.attempts), out);
        text(br#","subject":"#, &record.subject, out);
        plain(br#","protocol":""#, protocol(record.protocol).as_bytes(), out);
        text(br#","listener":"#, &record.listener, out);
        out.extend_from_slice(if record.tls { b",\"tls\":true}\n" } else { b",\"tls\":false}\n" });
    }
}

fn durations(record: &LogRecord, out: &mut Vec<u8>) {
    milliseconds(br#","duration_ms":"#, record.duration, out);
    let upstream = record.upstream_duration;
    milliseconds(br#","gateway_ms":"#, record.duration.saturating_sub(upstream.unwrap_or_default()), out);
    if let Some(upstream) = upstream {
        milliseconds(br#","upstream_ms":"#, upstream, out);
    }
}

// What stands before a value is an array, whose length the compiler knows: it is copied without a call.

fn string<const N: usize>(before: &'static [u8; N], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    write_string(value, out);
}

fn text<const N: usize>(before: &'static [u8; N], value: &Option<Arc<str>>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        string(before, value.as_bytes(), out);
    }
}

/// For values without a quote, a backslash or a control character, as tokens (RFC 9110 §5.6.2) are. `before`
/// ends with the quote.
fn plain<const N: usize>(before: &'static [u8; N], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    out.extend_from_slice(value);
    out.push(b'"');
}

/// An instance's address with its port. The way over `fmt`, which only IPv6 goes, costs ten times as much.
fn instance<const N: usize>(before: &'static [u8; N], address: SocketAddr, out: &mut Vec<u8>) {
    use std::io::Write;
    out.extend_from_slice(before);
    if address.is_ipv4() {
        out.extend_from_slice(AddressText::of(address.ip()).as_bytes());
        out.push(b':');
        decimal(address.port(), out);
    } else {
        // Needs no escaping: an IPv6 scope is a number in `std`.
        write!(out, "{address}").expect("writing to a Vec does not fail");
    }
    out.push(b'"');
}

fn number<const N: usize>(before: &'static [u8; N], value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    decimal(value, out);
}

fn decimal(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `12.345`: milliseconds with microseconds behind the point.
fn milliseconds<const N: usize>(before: &'static [u8; N], value: Duration, out: &mut Vec<u8>) {
    let micros = value.subsec_micros();
    number(before, value.as_secs().saturating_mul(1000).saturating_add(u64::from(micros / 1000)), out);
    let digit = |n: u32| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]);
}

fn hex(bytes: [u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/0.9",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The least that a record can hold, at the given path.
    pub(in crate::telemetry) fn record(path: &str) -> LogRecord {
        LogRecord {
            time: UNIX_EPOCH,
            request_id: None,
            trace_id: [0; 16],
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            method: Method::GET,
            host: None,
            path: Bytes::copy_from_slice(path.as_bytes()),
            route: None,
            service: None,
            asked: Asked::Nobody,
            status: 404,
            reason: Some(Reason::RouteNotFound),
            bytes_in: 0,
            bytes_out: 12,
            duration: Duration::from_micros(1_234_567),
            upstream_duration: None,
            attempts: 0,
            subject: None,
            protocol: Version::HTTP_11,
            listener: None,
            tls: false,
        }
    }

    fn line(record: &LogRecord) -> String {
        let mut out = Vec::new();
        LineFormat::new().write(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_unknown_is_absent() {
        assert_eq!(
            line(&record("/nowhere")),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"client\":\"127.0.0.1\",\"method\":\"GET\",\
             \"path\":\"/nowhere\",\"status\":404,\"reason\":\"route_not_found\",\"bytes_in\":0,\
             \"bytes_out\":12,\"duration_ms\":1234.567,\"gateway_ms\":1234.567,\"attempts\":0,\
             \"protocol\":\"HTTP/1.1\",\"tls\":false}\n"
        );
    }

    fn given(id: &str) -> RequestId {
        let name = http::HeaderName::from_static("x-request-id");
        let headers = crate::http::fields::Fields::from_iter([(
            name.clone(),
            http::HeaderValue::from_str(id).unwrap(),
        )]);
        RequestId::of(&headers, &name)
    }

    fn full() -> LogRecord {
        LogRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_795_249_860_042),
            request_id: Some(given("r-1")),
            trace_id: [0x1f; 16],
            client: "2001:db8::7".parse().unwrap(),
            host: Some(Bytes::from_static(b"api.example.com")),
            route: Some("users".into()),
            service: Some("user-service".into()),
            asked: Asked::Instance("127.0.0.1:8001".parse().unwrap()),
            status: 200,
            reason: None,
            duration: Duration::from_micros(5_006),
            upstream_duration: Some(Duration::from_micros(4_999)),
            attempts: 2,
            subject: Some("alice".into()),
            protocol: Version::HTTP_2,
            listener: Some("https".into()),
            tls: true,
            ..record("/users")
        }
    }

    #[test]
    fn the_documentation_lists_every_field() {
        let mut record = full();
        record.reason = Some(Reason::PartFailed);
        let fields: serde_json::Map<String, Value> = serde_json::from_str(&line(&record)).unwrap();
        let page = include_str!("../../docs/observability.md");
        let table: Vec<_> =
            page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('|')).collect();
        for field in fields.keys() {
            let listed = table.iter().any(|(names, _)| names.split('`').any(|name| name == field));
            assert!(listed, "{field} is not documented");
        }
    }

    #[test]
    fn all_that_can_be_known() {
        assert_eq!(
            line(&full()),
            "{\"time\":\"2026-11-21T08:31:00.042Z\",\"request_id\":\"r-1\",\
             \"trace_id\":\"1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f\",\"client\":\"2001:db8::7\",\"method\":\"GET\",\
             \"host\":\"api.example.com\",\"path\":\"/users\",\"route\":\"users\",\"service\":\"user-service\",\
             \"instance\":\"127.0.0.1:8001\",\"status\":200,\"bytes_in\":0,\"bytes_out\":12,\
             \"duration_ms\":5.006,\"gateway_ms\":0.007,\"upstream_ms\":4.999,\"attempts\":2,\
             \"subject\":\"alice\",\"protocol\":\"HTTP/2\",\"listener\":\"https\",\"tls\":true}\n"
        );
    }

    #[test]
    fn an_aggregate_names_no_instance_but_its_parts() {
        let asked = Asked::Parts(r#"{"user":1.500}"#.into());
        let line = line(&LogRecord { asked, ..record("/") });
        assert!(line.contains(r#","path":"/","timings":{"user":1.500},"status":404,"#), "{line}");
    }

    #[test]
    fn a_batch_names_no_instance_but_counts_its_items() {
        let line = line(&LogRecord { asked: Asked::Items(3), ..record("/") });
        assert!(line.contains(r#","path":"/","items":3,"status":404,"#), "{line}");
    }

    #[test]
    fn more_time_upstream_than_in_all_leaves_none_for_the_gateway() {
        let mut odd = record("/");
        odd.upstream_duration = Some(Duration::from_secs(9));
        assert!(line(&odd).contains("\"gateway_ms\":0.000,"));
    }

    proptest! {
        #[test]
        fn any_record_is_one_line_of_json_that_reads_back(
            path: Vec<u8>, host: Vec<u8>, route: String, subject: String, id in "[-._~:/+=@a-zA-Z0-9]{1,40}",
            client: IpAddr, instance: Option<SocketAddr>, trace: [u8; 16], micros: u64, bytes: u64,
        ) {
            let record = LogRecord {
                path: path.clone().into(),
                host: Some(host.clone().into()),
                route: Some(route.as_str().into()),
                subject: Some(subject.as_str().into()),
                request_id: Some(given(&id)),
                client,
                asked: instance.map_or(Asked::Nobody, Asked::Instance),
                trace_id: trace,
                duration: Duration::from_micros(micros),
                bytes_in: bytes,
                ..record("")
            };
            let line = line(&record);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let value: Value = serde_json::from_str(&line).unwrap();
            let path = String::from_utf8_lossy(&path);
            let host = String::from_utf8_lossy(&host);
            prop_assert_eq!(value["path"].as_str(), Some(&*path));
            prop_assert_eq!(value["host"].as_str(), Some(&*host));
            prop_assert_eq!(value["route"].as_str(), Some(route.as_str()));
            prop_assert_eq!(value["subject"].as_str(), Some(subject.as_str()));
            prop_assert_eq!(value["request_id"].as_str(), Some(id.as_str()));
            prop_assert_eq!(value["client"].as_str().unwrap().parse::<IpAddr>().unwrap(), client);
            let instance = instance.map(|i| i.to_string());
            prop_assert_eq!(value["instance"].as_str(), instance.as_deref());
            prop_assert_eq!(value["bytes_in"].as_u64(), Some(bytes));
            prop_assert!(value["duration_ms"].is_number());
        }
    }
}
