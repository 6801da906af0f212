//! What a source wants published: hosts with ports, of which some are names yet to be resolved.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::service::discovered::Description;

/// An instance as its source writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: Host,
    pub port: u16,
    pub weight: u32,
    /// What `host: instance` sends.
    pub authority: Arc<str>,
    pub zone: Option<Arc<str>>,
    /// 0 for those that are used first.
    pub priority: u8,
    /// What it speaks, where its source says that.
    pub scheme: Option<Scheme>,
    /// What else its source tells of it.
    pub description: Option<Arc<Description>>,
}

/// Plain HTTP, or HTTP over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Address(IpAddr),
    /// In lower case.
    Name(Arc<str>),
}

/// The targets of a source at one moment, and what is wrong with the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// `None` until the source has answered for the first time. Empty when it said "none".
    pub targets: Option<Arc<[Target]>>,
    /// Why the source can't be read now; `targets` are then the last good ones.
    pub fault: Option<String>,
    /// What it tells of the service: a JSON object.
    pub metadata: Option<Arc<str>>,
}

impl Host {
    /// An IP literal, with or without the brackets that URLs put around IPv6, or else a name.
    pub fn parse(text: &str) -> Host {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match bare {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => text.parse::<IpAddr>().ok(),
        };
        match address {
            Some(address) => Host::Address(address.to_canonical()),
            None => Host::Name(text.to_ascii_lowercase().into()),
        }
    }
}

impl Target {
    /// From `host:port`; `None` when that is not what it is.
    pub fn from_authority(authority: &str, weight: u32, zone: Option<Arc<str>>) -> Option<Target> {
        let (host, port) = authority.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| Target {
            host: Host::parse(host),
            port,
            weight,
            authority: authority.into(),
            zone,
            priority: 0,
            scheme: None,
            description: None,
        })
    }

    pub fn with_priority(self, priority: u8) -> Target {
        Target { priority, ..self }
    }

    pub fn with_scheme(self, scheme: Option<Scheme>) -> Target {
        Target { scheme, ..self }
    }
}

impl Wanted {
    pub fn now(targets: Vec<Target>) -> Wanted {
        Wanted { targets: Some(targets.into()), ..Wanted::default() }
    }

    /// Without those instances of which the source says that they speak otherwise than the service does. When that is all
    /// of them, there is nothing new.
    pub fn agreeing(mut self, over_tls: bool) -> Wanted {
        let wrong = if over_tls { Scheme::Http } else { Scheme::Https };
        let is_wrong = |target: &&Target| target.scheme == Some(wrong);
        let targets = self.targets.as_deref().unwrap_or_default();
        let Some(first) = targets.iter().find(is_wrong) else { return self };
        let why = match wrong {
            Scheme::Http => "http, and the service has `tls`",
            Scheme::Https => "https, and the service has no `tls`",
        };
        let count = targets.iter().filter(is_wrong).count();
        let fault = match count {
            1 => format!("{} is left out: it is {why}", first.authority),
            _ => format!("{count} instances are left out: {} is {why}", first.authority),
        };
        let left: Vec<Target> = targets.iter().filter(|target| !is_wrong(target)).cloned().collect();
        self.targets = (!left.is_empty()).then(|| left.into());
        self.fault = Some(self.fault.map_or_else(|| fault.clone(), |before| format!("{before}; {fault}")));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_literal_or_a_name_with_a_port() {
        let host = |text| Target::from_authority(text, 1, None).map(|target| target.host);
        assert_eq!(host("127.0.0.1:80"), Some(Host::Address([127, 0, 0, 1].into())));
        assert_eq!(host("[::1]:80"), Some(Host::Address(IpAddr::V6(Ipv6Addr::LOCALHOST))));
        assert_eq!(host("[::ffff:10.0.0.1]:80"), Some(Host::Address([10, 0, 0, 1].into())));
        assert_eq!(host("Users.Internal:80"), Some(Host::Name("users.internal".into())));
        assert_eq!(host("users.internal"), None);
        assert_eq!(host("users.internal:0"), None);
        assert_eq!(host("users.internal:65536"), None);
        assert_eq!(host(":80"), None);
    }
}
