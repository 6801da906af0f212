//! `health_check`: how instances are asked whether they are well.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::resilience::Ratio;
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{At, HealthCheck, HealthProbe, HttpProbe, StatusRange};
use crate::config::reader::{Form, Reader};
use crate::config::source::Span;
use crate::config::text::quoted;
use crate::config::values::path;
use crate::config::values::units::{Number, Percent, Wait};
use crate::config::values::{NonEmpty, text_schema};
use crate::config::yaml::{Kind, Node};

block! {
    /// Ask every instance whether it is well: by exactly one of `path`, `grpc` and `tcp`.
    "a health check" HealthBlock => HealthCheck {
        /// What to GET over HTTP: a path, with a query where it needs one.
        path: Target,
        /// Ask by the gRPC health protocol.
        grpc: Grpc,
        /// Only connect.
        tcp: Tcp,
        /// From one question to the next. Default 5s.
        interval: Wait,
        /// By how much of it an interval is longer or shorter at random, so that not all are asked together. Default 10%.
        jitter: Percent<0>,
        /// For the answer. Default 1s.
        timeout: At<Wait>,
        /// Good answers in a row that bring an instance back. Default 2.
        healthy_after: Number<1, 100>,
        /// Bad ones in a row that take it out. Default 3.
        unhealthy_after: Number<1, 100>,
        /// Statuses of good answers: one, or a list. Only with `path`. Default 200-299.
        expect_status: At<Statuses>,
        /// What must be in the first 64 KiB of the body. Only with `path`. Default: the body is not read.
        expect_body: At<String>,
        /// With fewer of the instances healthy than this, the others get requests too; `off` for never. Default off.
        panic_threshold: Ratio,
    }
}

/// Of `expect_body`: it is searched for in every answer.
const LONGEST_TEXT: usize = 1024;

impl HealthBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<HealthCheck> {
        let HealthBlock { path, grpc, tcp, expect_status, expect_body, .. } = self;
        let probe = probe(Probes { path, grpc, tcp, expect_status, expect_body }, &place, reader);
        let interval: Duration = self.interval.or(Duration::from_secs(5))?;
        let timeout = self.timeout.optional::<At<Wait>>()?;
        if let Some(timeout) = timeout.as_ref().filter(|timeout| timeout.value.0 > interval) {
            reader.warning(
                timeout.span,
                "the health check's timeout is longer than its interval",
                "write a timeout shorter than the interval",
            );
        }
        let usual = interval.min(Duration::from_secs(1));
        Some(HealthCheck {
            probe: probe?,
            interval,
            jitter: self.jitter.or(10u8)?,
            timeout: timeout.map_or(usual, |timeout| timeout.value.0),
            healthy_after: self.healthy_after.or(2u32)?,
            unhealthy_after: self.unhealthy_after.or(3u32)?,
            panic_threshold: self.panic_threshold.or(Ratio(None))?.0,
        })
    }
}

/// The keys that say how to ask, and what is a good answer.
struct Probes {
    path: Field<Target>,
    grpc: Field<Grpc>,
    tcp: Field<Tcp>,
    expect_status: Field<At<Statuses>>,
    expect_body: Field<At<String>>,
}

fn probe(probes: Probes, place: &Place, reader: &mut Reader<'_>) -> Option<HealthProbe> {
    let Probes { path, grpc, tcp, expect_status, expect_body } = probes;
    let (is_http, is_grpc, is_tcp) = (!path.is_absent(), !grpc.is_absent(), !tcp.is_absent());
    match [is_http, is_grpc, is_tcp].iter().filter(|given| **given).count() {
        0 if place.meant.iter().any(|meant| ["path", "grpc", "tcp"].contains(meant)) => return None,
        0 => {
            reader.error(
                place.span,
                "a health check needs to know how to ask",
                "add `path: /health`, `grpc: {}` or `tcp: {}`",
            );
            return None;
        }
        1 => {}
        _ => {
            reader.error(
                place.span,
                "a health check asks in one way only",
                "keep one of `path`, `grpc` and `tcp`",
            );
            return None;
        }
    }
    let (path, grpc, tcp) = (path.optional(), grpc.optional::<Grpc>(), tcp.optional::<Tcp>());
    let status = expect_status.optional::<At<Statuses>>()?;
    let body = expect_body.optional::<At<String>>()?;
    if is_http {
        return Some(HealthProbe::Http(HttpProbe {
            path: path??,
            expect_status: status
                .map_or_else(|| vec![StatusRange { from: 200, to: 299 }], |statuses| statuses.value.0),
            expect_body: expected_text(body, reader)?,
        }));
    }
    let asks_more = |span: Span, key: &str, reader: &mut Reader<'_>| {
        let message = format!("`{key}` is about the answer to a GET, and none is sent");
        reader.error(span, message, "remove it, or ask with `path: /health`");
    };
    if let Some(status) = &status {
        asks_more(status.span, "expect_status", reader);
    }
    if let Some(body) = &body {
        asks_more(body.span, "expect_body", reader);
    }
    if status.is_some() || body.is_some() {
        return None;
    }
    grpc?.map(|Grpc(grpc)| HealthProbe::Grpc { service: grpc.service }).or(tcp?.map(|_| HealthProbe::Tcp))
}

/// A path, and perhaps a query, as it is sent.
struct Target(String);

impl Value for Target {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a path", remedy: "write a path that begins with `/`" };
        reader.parse(node, &form, |text| {
            if text.contains('#') {
                return Err(Some("what follows # is never sent: leave it out".to_owned()));
            }
            let (path, query) = text.split_once('?').unwrap_or((text, ""));
            if path.contains(['{', '}']) {
                return Err(Some("a brace is written %7B or %7D".to_owned()));
            }
            path::normal(path)?;
            let odd = |c: &char| !c.is_ascii_graphic() || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`');
            let Some(odd) = query.chars().find(odd) else { return Ok(Target(text.to_owned())) };
            let encoded: String = odd.encode_utf8(&mut [0; 4]).bytes().map(|b| format!("%{b:02X}")).collect();
            Err(Some(format!("in the query, {} is written {encoded}", quoted(&odd.to_string()))))
        })
    }

    fn schema() -> Json {
        text_schema("/[^#]*")
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.0
    }
}

/// `None` when it is too long.
fn expected_text(text: Option<At<String>>, reader: &mut Reader<'_>) -> Option<Option<String>> {
    match text {
        Some(text) if text.value.len() > LONGEST_TEXT => {
            let message = format!("this text is longer than {LONGEST_TEXT} bytes");
            reader.error(text.span, message, "write a part of it that says enough");
            None
        }
        text => Some(text.map(|text| text.value)),
    }
}

/// Blocks that are mostly empty, so that one may think that they want a value.
struct Tcp(TcpProbe);
struct Grpc(GrpcProbe);

impl Value for Tcp {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(node.kind, Kind::Scalar(_)) {
            reader.error(node.span, "there is nothing to say about a tcp check", "write `tcp: {}`");
            return None;
        }
        TcpProbe::read(node, reader).map(Tcp)
    }

    fn schema() -> Json {
        TcpProbe::schema()
    }
}

impl Value for Grpc {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(node.kind, Kind::Scalar(_)) {
            reader.error(
                node.span,
                "expected a grpc check, found text",
                "write `grpc: {}`, or `grpc: { service: users.v1.Users }`",
            );
            return None;
        }
        GrpcProbe::read(node, reader).map(Grpc)
    }

    fn schema() -> Json {
        GrpcProbe::schema()
    }
}

struct TcpProbe;

block! {
    /// Only connect: an instance that accepts the connection is well.
    "a tcp check" TcpBlock => TcpProbe {}
}

impl TcpBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<TcpProbe> {
        Some(TcpProbe)
    }
}

struct GrpcProbe {
    service: String,
}

block! {
    /// Call `grpc.health.v1.Health/Check`: an instance that says SERVING is well.
    "a grpc check" GrpcBlock => GrpcProbe {
        /// Which of the server's services to ask about, as in `users.v1.Users`. Default: the server as a whole.
        service: At<String>,
    }
}

impl GrpcBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<GrpcProbe> {
        let service = self.service.optional::<At<String>>()?;
        if let Some(long) = service.as_ref().filter(|service| service.value.len() > LONGEST_TEXT) {
            let message = format!("this name is longer than {LONGEST_TEXT} bytes");
            reader.error(long.span, message, "write the service's full name, as in users.v1.Users");
            return None;
        }
        Some(GrpcProbe { service: service.map_or_else(String::new, |service| service.value) })
    }
}

/// `200-299`, or a list of such.
struct Statuses(Vec<StatusRange>);

impl Value for Statuses {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.kind {
            Kind::List(_) => NonEmpty::read(node, reader).map(|list| Statuses(list.0)),
            _ => StatusRange::read(node, reader).map(|range| Statuses(vec![range])),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [StatusRange::schema(), NonEmpty::<StatusRange>::schema()] })
    }
}
