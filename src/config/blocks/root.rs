//! The whole configuration: its blocks, and what must hold between them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use ipnet::IpNet;
use serde_json::Value as Json;

use super::authenticator::{AuthenticatorBody, CertificateBody};
use super::failover::OwnZone;
use super::observability::{Observability, STDOUT};
use super::overlap;
use super::policy::no_defaults;
use super::rate_limit::RateLimitBody;
use super::service::ServiceBody;
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{
    Admin, At, Authenticator, CertificateAuthenticator, Config, Defaults, KeyPart, Listener, Registry, Route,
    Workers,
};
use crate::config::reader::{NameTable, Reader};
use crate::config::text::quoted;
use crate::config::values::units::{Number, Size};
use crate::config::values::{Named, NonEmpty};
use crate::config::yaml::{Kind, Node};

/// Notes the names that the file defines, so that references can be checked wherever they stand,
/// and so that a definition with a mistake in it isn't taken for a missing one.
pub(in crate::config) fn prepare(root: &Node<'_>, reader: &mut Reader<'_>) {
    let Kind::Map(entries) = &root.kind else { return };
    for entry in entries.iter() {
        let table: &mut NameTable = match &*entry.key {
            "services" => &mut reader.names.services,
            "authenticators" => &mut reader.names.authenticators,
            "rate_limits" => &mut reader.names.rate_limits,
            _ => continue,
        };
        if let Kind::Map(named) = &entry.value.kind {
            named.iter().for_each(|entry| table.define(&entry.key));
        }
    }
}

block! {
    /// A configuration of Gatehouse.
    "a configuration" ConfigBlock => Config {
        /// Worker threads: a number, or auto for one per core that the process may use (the default).
        workers: Workers,
        /// Memory of the process from which on new requests are refused with 503. Default: no limit.
        max_memory: Size<{ 1 << 20 }, { 1 << 44 }>,
        /// Where the gateway is. Services prefer the instances of the same zone; empty means none. Default: none.
        zone: OwnZone,
        /// The addresses to accept connections on.
        listeners: NonEmpty<Listener> ["[{ name: http, bind: 0.0.0.0:8000 }]"],
        /// Networks whose Forwarded and X-Forwarded-* headers are believed. Default: none.
        trusted_proxies: Vec<IpNet>,
        /// The address of health, metrics and the status API. Default: none.
        admin: Admin,
        /// The built-in service registry. Default: none.
        registry: Registry,
        /// Sets of interchangeable instances, by name.
        services: Named<ServiceBody>,
        /// Ways for callers to prove who they are, by name.
        authenticators: Named<AuthenticatorBody>,
        /// How many requests, counted by what; by name.
        rate_limits: Named<RateLimitBody>,
        /// Policies of every route and of the gateway's own replies.
        defaults: Defaults,
        /// What to do with which requests. The most specific match counts, not the first.
        routes: Vec<Route>,
        /// What the gateway tells of itself.
        observability: Observability,
    }
    later { "shared_state", "tests" }
}

impl ConfigBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<Config> {
        self.check_addresses(reader);
        self.check_names(reader);
        self.check_registry(reader);
        self.check_claim_limits(reader);
        if let Some(routes) = self.routes.value() {
            overlap::warn(routes, reader);
        }
        if self.routes.is_absent() && !place.strays {
            reader.warning(place.span, "there are no routes, so every request gets a 404", "add `routes:`");
        }
        let observability = self.observability.or(Observability(STDOUT));
        let zone = self.zone.or(OwnZone(None))?.0;
        let services: Named<ServiceBody> = self.services.or(Named(Vec::new()))?;
        let authenticators: Named<AuthenticatorBody> = self.authenticators.or(Named(Vec::new()))?;
        let rate_limits: Named<RateLimitBody> = self.rate_limits.or(Named(Vec::new()))?;
        let services = services.0.into_iter().map(|(name, body)| body.named(name, zone.as_ref())).collect();
        let (tokens, certificates) = by_kind(authenticators);
        let config = Config {
            workers: self.workers.or(Workers::Auto)?,
            max_memory: self.max_memory.optional()?,
            listeners: self.listeners.required()?,
            trusted_proxies: self.trusted_proxies.or(Vec::new())?,
            admin: self.admin.optional()?,
            registry: self.registry.optional()?,
            services,
            zone,
            authenticators: tokens,
            certificate_authenticators: certificates,
            rate_limits: rate_limits.0.into_iter().map(|(name, body)| body.named(name)).collect(),
            defaults: self.defaults.or(no_defaults())?,
            routes: self.routes.or(Vec::new())?,
            access_log: observability?.0,
        };
        warn_unused(&config, reader);
        warn_unasked(&config, reader);
        Some(config)
    }

    /// No two on one port: neither the same address, nor one address and all of them.
    fn check_addresses(&self, reader: &mut Reader<'_>) {
        let listeners = self.listeners.value().map_or(&[][..], |list| &list.0);
        let mut taken: HashMap<u16, Vec<(&At<SocketAddr>, String)>> = HashMap::new();
        let named = listeners.iter().map(|l| (&l.bind, format!("the listener {}", quoted(&l.name.value))));
        let admin = self.admin.value().map(|admin| (&admin.bind, "admin".to_owned()));
        let registry = self.registry.value().map(|registry| (&registry.bind, "the registry".to_owned()));
        for (bind, owner) in named.chain(admin).chain(registry) {
            let taken = taken.entry(bind.value.port()).or_default();
            if let Some((_, other)) = taken.iter().find(|(other, _)| collide(&other.value, &bind.value)) {
                let message = format!("{} is taken: {other} listens there", bind.value);
                reader.error(bind.span, message, "give each a port of its own");
            }
            taken.push((bind, owner));
        }
    }

    fn check_names(&self, reader: &mut Reader<'_>) {
        if let Some(listeners) = self.listeners.value() {
            unique("listener", listeners.0.iter().map(|listener| &listener.name), reader);
        }
        if let Some(routes) = self.routes.value() {
            unique("route", routes.iter().map(|route| &route.name), reader);
        }
    }

    fn check_registry(&self, reader: &mut Reader<'_>) {
        let (Some(services), Field::Absent) = (self.services.value(), &self.registry) else { return };
        for span in services.0.iter().filter_map(|(_, body)| body.registry_span) {
            let remedy = "add `registry: { bind: 127.0.0.1:8500 }` at the top level";
            reader.error(span, "this service uses the built-in registry, which is not set up", remedy);
        }
    }

    /// A claim is known only of a caller who was authenticated.
    fn check_claim_limits(&self, reader: &mut Reader<'_>) {
        let (Some(limits), Some(routes)) = (self.rate_limits.value(), self.routes.value()) else { return };
        let counts_claim =
            |body: &RateLimitBody| body.key.iter().any(|part| matches!(part, KeyPart::Claim(_)));
        let limits = limits.0.iter().filter(|(_, body)| counts_claim(body));
        let limits: HashSet<&str> = limits.map(|(name, _)| name.value.as_str()).collect();
        let by_claim = |name: &str| limits.contains(name);
        let open = || routes.iter().filter(|route| route.authenticate.is_none());
        for limit in open().flat_map(|route| &route.rate_limits).filter(|limit| by_claim(&limit.value)) {
            let message =
                format!("{} counts by a claim, and this route has no `authenticate`", quoted(&limit.value));
            reader.error(limit.span, message, "add `authenticate: { with: [NAME] }`, or use a limit by ip");
        }
        let defaults = self.defaults.value().map_or(&[][..], |defaults| &defaults.rate_limits);
        for limit in defaults.iter().filter(|limit| by_claim(&limit.value)) {
            if let Some(route) = open().next() {
                let (limit_name, route) = (quoted(&limit.value), quoted(&route.name.value));
                let message =
                    format!("{limit_name} counts by a claim, and the route {route} has no `authenticate`");
                reader.error(limit.span, message, "name it in the routes that authenticate");
            }
        }
    }
}

/// Port 0 means any free port, so it never collides.
fn collide(one: &SocketAddr, other: &SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    one.port() != 0
        && one.port() == other.port()
        && same_family
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

fn unique<'n>(kind: &str, names: impl Iterator<Item = &'n At<String>>, reader: &mut Reader<'_>) {
    let mut first: HashMap<&str, u32> = HashMap::new();
    for name in names {
        match first.get(name.value.as_str()) {
            Some(line) => {
                let message = format!("two {kind}s are named {}", quoted(&name.value));
                reader.error(name.span, message, format!("rename one; the first is at line {line}"));
            }
            None => {
                first.insert(&name.value, name.span.line);
            }
        }
    }
}

fn by_kind(all: Named<AuthenticatorBody>) -> (Vec<Authenticator>, Vec<CertificateAuthenticator>) {
    let (mut tokens, mut certificates) = (Vec::new(), Vec::new());
    for (name, body) in all.0 {
        match body {
            AuthenticatorBody::Jwt(jwt) => tokens.push(Authenticator { name, jwt }),
            AuthenticatorBody::Certificate(CertificateBody { subjects, header }) => {
                certificates.push(CertificateAuthenticator { name, subjects, header });
            }
        }
    }
    (tokens, certificates)
}

/// Nobody shows a certificate that no listener asks for.
fn warn_unasked(config: &Config, reader: &mut Reader<'_>) {
    let mut tls = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    if tls.any(|tls| tls.client_certificates.is_some()) {
        return;
    }
    for authenticator in &config.certificate_authenticators {
        let message = "no listener asks clients for certificates, so nobody gets in by this";
        let remedy = "add `client_certificates` to the `tls` of a listener";
        reader.warning(authenticator.name.span, message, remedy);
    }
}

fn warn_unused(config: &Config, reader: &mut Reader<'_>) {
    let names = std::mem::take(&mut reader.names);
    let services = config.services.iter().map(|service| (&service.name, "service", &names.services));
    let authenticators =
        config.authenticators.iter().map(|a| (&a.name, "authenticator", &names.authenticators));
    let certificates = config.certificate_authenticators.iter();
    let certificates = certificates.map(|a| (&a.name, "authenticator", &names.authenticators));
    let limits = config.rate_limits.iter().map(|limit| (&limit.name, "rate limit", &names.rate_limits));
    for (name, kind, table) in services.chain(authenticators).chain(certificates).chain(limits) {
        if !table.used.contains(&name.value) {
            let message = format!("nothing uses the {kind} {}", quoted(&name.value));
            reader.warning(name.span, message, "name it in a route, or remove it");
        }
    }
    reader.names = names;
}

impl Value for Workers {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "auto" => Some(Workers::Auto),
            _ => Number::<1, 1024>::read(node, reader).map(|count| Workers::Count(count.into())),
        }
    }

    fn schema() -> Json {
        serde_json::json!({ "anyOf": [{ "const": "auto" }, Number::<1, 1024>::schema()] })
    }
}
