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
    pub instance: Option<SocketAddr>,
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
        out.extend_from_slice(b"{\"time\":\"");
        self.stamp.write(record.time, out);
        out.push(b'"');
        if let Some(id) = &record.request_id {
            string("request_id", id.as_bytes(), out);
        }
        if record.trace_id != [0; 16] {
            string("trace_id", &hex(record.trace_id), out);
        }
        display("client", record.client, out);
        string("method", record.method.as_str().as_bytes(), out);
        if let Some(host) = &record.host {
            string("host", host, out);
        }
        string("path", &record.path, out);
        text("route", &record.route, out);
        text("service", &record.service, out);
        if let Some(instance) = record.instance {
            display("instance", instance, out);
        }
        number("status", u64::from(record.status), out);
        if let Some(reason) = record.reason {
            string("reason", reason.code().as_bytes(), out);
        }
        number("bytes_in", record.bytes_in, out);
        number("bytes_out", record.bytes_out, out);
        durations(record, out);
        number("attempts", u64::from(record.attempts), out);
        text("subject", &record.subject, out);
        string("protocol", protocol(record.protocol).as_bytes(), out);
        text("listener", &record.listener, out);
        key("tls", out);
        out.extend_from_slice(if record.tls { b"true" } else { b"false" });
        out.extend_from_slice(b"}\n");
    }
}

fn durations(record: &LogRecord, out: &mut Vec<u8>) {
    milliseconds("duration_ms", record.duration, out);
    let upstream = record.upstream_duration;
    milliseconds("gateway_ms", record.duration.saturating_sub(upstream.unwrap_or_default()), out);
    if let Some(upstream) = upstream {
        milliseconds("upstream_ms", upstream, out);
    }
}

/// `name` is one of ours: plain ASCII.
fn key(name: &'static str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn string(name: &'static str, value: &[u8], out: &mut Vec<u8>) {
    key(name, out);
    write_string(value, out);
}

fn text(name: &'static str, value: &Option<Arc<str>>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        string(name, value.as_bytes(), out);
    }
}

/// For addresses, whose text needs no escaping: an IPv6 scope is a number in `std`.
fn display(name: &'static str, value: impl std::fmt::Display, out: &mut Vec<u8>) {
    use std::io::Write;
    key(name, out);
    write!(out, "\"{value}\"").expect("writing to a Vec does not fail");
}

fn number(name: &'static str, value: u64, out: &mut Vec<u8>) {
    key(name, out);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `12.345`: milliseconds with microseconds behind the point.
fn milliseconds(name: &'static str, value: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    number(name, micros / 1000, out);
    let digit = |n: u64| b'0' + (n % 10) as u8;
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
            instance: None,
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
            instance: Some("127.0.0.1:8001".parse().unwrap()),
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
                instance,
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
