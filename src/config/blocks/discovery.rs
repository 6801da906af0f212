//! `discovery`: where the instances of a service are looked up.

use std::collections::HashMap;
use std::time::Duration;

use http::Uri;

use super::listener::{Token, located};
use crate::config::block::{Place, block};
use crate::config::model::{
    At, ConsulSource, DnsSource, EtcdLogin, EtcdSource, InstanceSource, RegistrySource,
};
use crate::config::reader::Reader;
use crate::config::secret::Secret;
use crate::config::source::Span;
use crate::config::values::net::{DomainName, ServerUrl};
use crate::config::values::units::{Number, Wait};
use crate::config::values::{FilePath, NonEmpty};

pub(super) struct Discovery(pub InstanceSource);

block! {
    /// Where instances are looked up: exactly one of these.
    "a discovery block" DiscoveryBlock => Discovery {
        /// The built-in registry, or that of another gateway, under the service's own name.
        registry: Registry,
        /// A and AAAA records, or SRV records.
        dns: DnsSource,
        /// A YAML or JSON file that is read again when it changes.
        file: FileSource,
        /// The instances of a service in Consul whose checks pass.
        consul: ConsulSource,
        /// The keys below a prefix in etcd.
        etcd: EtcdSource,
    }
    later { "kubernetes" }
}

impl DiscoveryBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<Discovery> {
        let DiscoveryBlock { registry, dns, file, consul, etcd } = self;
        let given = [
            !registry.is_absent(),
            !dns.is_absent(),
            !file.is_absent(),
            !consul.is_absent(),
            !etcd.is_absent(),
        ];
        match given.iter().filter(|given| **given).count() {
            0 => {
                if !place.strays {
                    reader.error(
                        place.span,
                        "discovery needs a source",
                        "write one of `registry: {}`, `dns: { name: …, port: … }`, `file: { path: … }`, \
                         `consul: { address: …, service: … }` and `etcd: { endpoints: […], prefix: … }`",
                    );
                }
                None
            }
            1 => {
                let registry = registry.optional::<Registry>()?.map(|registry| match registry.0 {
                    None => InstanceSource::Registry,
                    Some(shared) => InstanceSource::SharedRegistry(shared),
                });
                let dns = dns.optional::<DnsSource>()?.map(InstanceSource::Dns);
                let file = file.optional::<FileSource>()?.map(|file| InstanceSource::File(file.0));
                let consul = consul.optional::<ConsulSource>()?.map(InstanceSource::Consul);
                let etcd = etcd.optional::<EtcdSource>()?.map(InstanceSource::Etcd);
                registry.or(dns).or(file).or(consul).or(etcd).map(Discovery)
            }
            _ => {
                reader.error(place.span, "discovery has more than one source", "keep one of them");
                None
            }
        }
    }
}

/// The gateway's own, unless it is one elsewhere.
struct Registry(Option<RegistrySource>);

block! {
    /// The built-in registry, or that of another gateway, under the service's own name.
    "a registry source" RegistrySourceBlock => Registry {
        /// The registry of another gateway. Default: this gateway's own.
        address: At<ServerUrl>,
        /// The token of that registry.
        token: At<Token>,
    }
}

impl RegistrySourceBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Registry> {
        let (address, token) = (self.address.optional::<At<ServerUrl>>(), self.token.optional::<At<Token>>());
        let (address, token) = (address?, token?);
        let Some(address) = address.map(server) else {
            let Some(token) = token else { return Some(Registry(None)) };
            let message = "a token is for the registry of another gateway, and none is named";
            reader.error(token.span, message, "add `address: http://10.0.0.5:8500`, say, or remove `token`");
            return None;
        };
        let token = token.and_then(|token| token.value.0);
        Some(Registry(Some(RegistrySource { address, token })))
    }
}

block! {
    /// Instances by name.
    "a dns source" DnsBlock => DnsSource {
        /// The name to resolve.
        name: At<DomainName> ["orders.internal"],
        /// The port of every instance. Not with `srv`.
        port: At<Number<1, 65_535>>,
        /// How often to ask; sooner where the records have a shorter TTL. Default 10s.
        refresh: Wait,
        /// Ask for SRV records, which bring ports and weights of their own. Default false.
        srv: bool,
    }
}

impl DnsBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<DnsSource> {
        let DnsBlock { name, port, refresh, srv } = self;
        let (name, refresh) = (name.required::<At<DomainName>>(), refresh.or(Duration::from_secs(10)));
        let (port, srv) = (port.optional::<At<Number<1, 65_535>>>()?, srv.or(false)?);
        match &port {
            Some(port) if srv => {
                reader.error(port.span, "SRV records bring their own ports", "remove `port`");
                return None;
            }
            None if !srv => {
                reader.error(
                    place.span,
                    "a dns source needs the key \"port\"",
                    "add `port: 8002`, or `srv: true`",
                );
                return None;
            }
            _ => {}
        }
        let name = name?;
        Some(DnsSource {
            name: At { value: name.value.0, span: name.span },
            port: port.map(|port| port.value.into()),
            refresh: refresh?,
            srv,
        })
    }
}

struct FileSource(At<std::path::PathBuf>);

block! {
    /// Instances listed in a file.
    "a file source" FileBlock => FileSource {
        /// The file, relative to the configuration.
        path: At<FilePath> ["instances/orders.yaml"],
    }
}

impl FileBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<FileSource> {
        self.path.required().map(located).map(FileSource)
    }
}

block! {
    /// The instances of a service in Consul whose checks pass.
    "a consul source" ConsulBlock => ConsulSource {
        /// Where Consul's HTTP API is.
        address: At<ServerUrl> ["http://127.0.0.1:8501"],
        /// The service's name in Consul.
        service: String ["orders"],
        /// Only instances with this tag.
        tag: String,
        /// Another datacenter than the agent's own.
        datacenter: String,
        /// The ACL token, which is sent in a header.
        token: Token,
    }
    later { "tls" }
}

impl ConsulBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<ConsulSource> {
        let (address, service) = (self.address.required::<At<ServerUrl>>(), self.service.required());
        let (tag, datacenter) = (self.tag.optional(), self.datacenter.optional());
        let token = self.token.optional::<Token>();
        Some(ConsulSource {
            address: address.map(server)?,
            service: service?,
            tag: tag?,
            datacenter: datacenter?,
            token: token?.and_then(|Token(secret)| secret),
        })
    }
}

block! {
    /// The keys below a prefix in etcd, each of which is an instance.
    "an etcd source" EtcdBlock => EtcdSource {
        /// The servers, asked in turn.
        endpoints: NonEmpty<At<ServerUrl>> ["[http://127.0.0.1:2379]"],
        /// What the keys begin with.
        prefix: String ["/services/orders/"],
        /// For etcd's authentication. Only with `password`.
        username: String,
        /// Only with `username`.
        password: At<Secret>,
    }
    later { "tls" }
}

impl EtcdBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<EtcdSource> {
        let EtcdBlock { endpoints, prefix, username, password } = self;
        let endpoints = endpoints.required::<NonEmpty<At<ServerUrl>>>();
        let endpoints = endpoints.and_then(|endpoints| each_once(endpoints.0, reader));
        let prefix = prefix.required();
        let (username, password) = (username.optional::<String>()?, password.optional::<At<Secret>>()?);
        let login = match (username, password) {
            (Some(username), Some(password)) => Some(EtcdLogin { username, password: password.value }),
            (None, None) => None,
            (Some(_), None) => {
                reader.error(place.span, "a username needs a password", "add `password: ${ETCD_PASSWORD}`");
                return None;
            }
            (None, Some(password)) => {
                reader.error(password.span, "a password needs a username", "add `username: gatehouse`, say");
                return None;
            }
        };
        Some(EtcdSource { endpoints: endpoints?, prefix: prefix?, login })
    }
}

fn each_once(endpoints: Vec<At<ServerUrl>>, reader: &mut Reader<'_>) -> Option<Vec<At<Uri>>> {
    let endpoints: Vec<At<Uri>> = endpoints.into_iter().map(server).collect();
    let mut first: HashMap<&Uri, Span> = HashMap::new();
    let mut right = true;
    for endpoint in &endpoints {
        if let Some(first) = first.insert(&endpoint.value, endpoint.span) {
            let url = endpoint.value.to_string();
            let message = format!("the endpoint {} is listed twice", url.trim_end_matches('/'));
            reader.error(endpoint.span, message, format!("keep that of line {}", first.line));
            right = false;
        }
    }
    right.then_some(endpoints)
}

fn server(url: At<ServerUrl>) -> At<Uri> {
    At { value: url.value.0, span: url.span }
}
