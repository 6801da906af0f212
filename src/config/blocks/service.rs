//! `services`: where instances come from, and how they are used.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::discovery::Discovery;
use super::failover::{FailoverGiven, ZoneName};
use super::response::Fallback;
use super::service_tls::{Scheme, TlsOrTrue, agreed};
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{
    At, BreakerGiven, CircuitBreaker, Concurrency, HealthCheck, Hedging, InstanceSource, LoadBalancing,
    OutlierDetection, Pool, Protocol, Retries, RetriesGiven, Service, ServiceTls, StaticInstance,
    StaticResponse, Sticky, Timeouts, TimeoutsGiven,
};
use crate::config::reader::Reader;
use crate::config::source::Span;
use crate::config::values::NonEmpty;
use crate::config::values::net::InstanceUrl;
use crate::config::values::units::{Number, Wait};
use crate::config::yaml::{Kind, Node};

/// A service without its name, which is its key.
pub(super) struct ServiceBody {
    source: InstanceSource,
    /// Where `discovery: { registry: {} }` is written, which needs a registry.
    pub registry_span: Option<Span>,
    tls: Option<ServiceTls>,
    protocol: Protocol,
    load_balancing: LoadBalancing,
    slow_start: Option<Duration>,
    sticky: Option<Sticky>,
    failover: FailoverGiven,
    health_check: Option<HealthCheck>,
    outlier_detection: Option<OutlierDetection>,
    circuit_breaker: CircuitBreaker,
    retries: Retries,
    hedging: Option<Hedging>,
    timeouts: Timeouts,
    pool: Pool,
    concurrency: Option<Concurrency>,
    fallback: Option<StaticResponse>,
}

impl ServiceBody {
    /// For a gateway in this zone.
    pub fn named(self, name: At<String>, zone: Option<&String>) -> Service {
        Service {
            name,
            source: self.source,
            tls: self.tls,
            protocol: self.protocol,
            load_balancing: self.load_balancing,
            slow_start: self.slow_start,
            sticky: self.sticky,
            failover: self.failover.seen_from(zone),
            health_check: self.health_check,
            outlier_detection: self.outlier_detection,
            circuit_breaker: self.circuit_breaker,
            retries: self.retries,
            hedging: self.hedging,
            timeouts: self.timeouts,
            pool: self.pool,
            concurrency: self.concurrency,
            fallback: self.fallback,
        }
    }
}

block! {
    /// A named set of interchangeable instances. Exactly one of `instances` and `discovery` says where they are.
    "a service" ServiceBlock => ServiceBody {
        /// Fixed instances: URLs, or URLs with a weight.
        instances: At<NonEmpty<InstanceBlockOrUrl>>,
        /// Where instances are looked up.
        discovery: At<Discovery>,
        /// Speak TLS with all instances. Default: with those of https:// URLs, as the system trusts them.
        tls: TlsOrTrue,
        /// What is spoken with instances: http1 (the default), h2, or auto for what they agree on by ALPN.
        protocol: Protocol,
        /// How an instance is chosen. Default round_robin.
        load_balancing: LoadBalancing,
        /// How long an instance that joins or comes back takes to get to its share of the requests. Default: none.
        slow_start: Wait,
        /// A client stays with the instance that answered it first, by a cookie. Default: it doesn't.
        sticky: Sticky,
        /// How requests go over to other zones and priorities.
        failover: FailoverGiven,
        /// Ask every instance whether it is well. Default: not asked.
        health_check: HealthCheck,
        /// Stop using an instance that does worse than the others. Default: not compared.
        outlier_detection: OutlierDetection,
        /// Stop using an instance that fails. One breaker per instance; always on.
        circuit_breaker: BreakerGiven,
        /// Try again on another instance.
        retries: RetriesGiven,
        /// Ask another instance when the first is slow. Default: not done.
        hedging: Hedging,
        /// How long to wait for an instance.
        timeouts: TimeoutsGiven,
        /// Connections to an instance, over all workers.
        pool: Pool,
        /// Requests at once, over all workers and instances. Default: no bound.
        concurrency: Concurrency,
        /// The answer when no instance can give one.
        fallback: Fallback,
    }
}

impl ServiceBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<ServiceBody> {
        let schemes = self.instances.value().map_or_else(Vec::new, |listed| schemes(&listed.value.0));
        let source = source(self.instances, self.discovery, place.span, reader);
        let tls = self.tls.optional::<TlsOrTrue>();
        let tls = tls.and_then(|tls| agreed(tls.map(|tls| tls.0), &schemes, reader));
        let protocol = self.protocol.or(Protocol::Http1);
        let load_balancing = self.load_balancing.or(LoadBalancing::RoundRobin);
        let slow_start = self.slow_start.optional::<Wait>();
        let sticky = self.sticky.optional();
        let failover = self.failover.or(FailoverGiven::default());
        let (health_check, outlier_detection) =
            (self.health_check.optional(), self.outlier_detection.optional());
        let circuit_breaker = self.circuit_breaker.or(BreakerGiven::default());
        let retries = self.retries.or(RetriesGiven::default());
        let timeouts = self.timeouts.or(TimeoutsGiven::default());
        let pool = self.pool.or(Pool::default());
        let (concurrency, hedging) = (self.concurrency.optional(), self.hedging.optional());
        let (source, registry_span) = source?;
        Some(ServiceBody {
            source,
            registry_span,
            tls: tls?,
            protocol: protocol?,
            load_balancing: load_balancing?,
            slow_start: slow_start?.map(|wait| wait.0),
            sticky: sticky?,
            failover: failover?,
            health_check: health_check?,
            outlier_detection: outlier_detection?,
            circuit_breaker: circuit_breaker?.over(&CircuitBreaker::default()),
            retries: retries?.over(&Retries::default()),
            timeouts: timeouts?.over(&Timeouts::default()),
            pool: pool?,
            concurrency: concurrency?,
            hedging: hedging?,
            fallback: self.fallback.optional()?,
        })
    }
}

fn source(
    instances: Field<At<NonEmpty<InstanceBlockOrUrl>>>,
    discovery: Field<At<Discovery>>,
    span: Span,
    reader: &mut Reader<'_>,
) -> Option<(InstanceSource, Option<Span>)> {
    if let (Some(instances), Some(discovery)) = (instances.value(), discovery.value()) {
        let span = instances.span.max(discovery.span);
        reader.error(span, "both `instances` and `discovery` are given", "keep one of them");
        return None;
    }
    match (instances, discovery) {
        (Field::Absent, Field::Absent) => {
            reader.error(
                span,
                "a service needs `instances` or `discovery`",
                "add `instances: [http://127.0.0.1:8001]` or `discovery: { registry: {} }`",
            );
            None
        }
        (Field::Read(instances), Field::Absent) => {
            unique(instances.value.0, reader).map(|source| (source, None))
        }
        (Field::Absent, Field::Read(discovery)) => {
            let registry = matches!(discovery.value.0, InstanceSource::Registry).then_some(discovery.span);
            Some((discovery.value.0, registry))
        }
        _ => None,
    }
}

fn unique(instances: Vec<InstanceBlockOrUrl>, reader: &mut Reader<'_>) -> Option<InstanceSource> {
    let instances: Vec<StaticInstance> = instances.into_iter().map(|listed| listed.instance).collect();
    let mut first: HashMap<&str, Span> = HashMap::new();
    let mut right = true;
    for instance in &instances {
        if let Some(first) = first.insert(&instance.authority.value, instance.authority.span) {
            let message = format!("the instance {} is listed twice", instance.authority.value);
            let remedy = format!("keep that of line {}, with `weight: 2` if it should get more", first.line);
            reader.error(instance.authority.span, message, remedy);
            right = false;
        }
    }
    right.then_some(InstanceSource::Static(instances))
}

fn schemes(instances: &[InstanceBlockOrUrl]) -> Vec<Scheme> {
    instances.iter().map(|listed| listed.scheme).collect()
}

/// `http://host:port`, or `{ url: http://host:port, weight: 2 }`.
struct InstanceBlockOrUrl {
    instance: StaticInstance,
    scheme: Scheme,
}

impl InstanceBlockOrUrl {
    fn new(url: At<InstanceUrl>, weight: u32, zone: Option<String>, priority: u8) -> Self {
        let At { value: InstanceUrl { authority, is_https }, span } = url;
        let authority = At { value: authority, span };
        let instance = StaticInstance { authority, weight, zone, priority };
        InstanceBlockOrUrl { instance, scheme: Scheme { is_https, span } }
    }
}

impl Value for InstanceBlockOrUrl {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(node.kind, Kind::Map(_)) {
            return Detailed::read(node, reader).map(|Detailed(instance)| instance);
        }
        At::read(node, reader).map(|url| InstanceBlockOrUrl::new(url, 1, None, 0))
    }

    fn schema() -> Json {
        json!({ "anyOf": [InstanceUrl::schema(), Detailed::schema()] })
    }
}

struct Detailed(InstanceBlockOrUrl);

block! {
    /// One address of a service.
    "an instance" InstanceBlock => Detailed {
        /// `http://host:port`, or `https://host:port`.
        url: At<InstanceUrl> ["http://127.0.0.1:8001"],
        /// Its share of the requests, relative to the others. Default 1.
        weight: Number<1, 1000>,
        /// Where it is. Gateways of the same zone prefer it.
        zone: ZoneName,
        /// 0 to 9: it gets requests when too few instances of lower numbers are usable. Default 0.
        priority: Number<0, 9>,
    }
}

impl InstanceBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Detailed> {
        let (url, weight) = (self.url.required::<At<InstanceUrl>>(), self.weight.or(1u32));
        let (zone, priority) = (self.zone.optional::<ZoneName>(), self.priority.or(0u8));
        let zone = zone?.map(|zone| zone.0);
        Some(Detailed(InstanceBlockOrUrl::new(url?, weight?, zone, priority?)))
    }
}
