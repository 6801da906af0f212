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
    /// What else its source tells of it.
    pub description: Option<Arc<Description>>,
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
            description: None,
        })
    }

    pub fn with_priority(self, priority: u8) -> Target {
        Target { priority, ..self }
    }
}

impl Wanted {
    pub fn now(targets: Vec<Target>) -> Wanted {
        Wanted { targets: Some(targets.into()), ..Wanted::default() }
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
