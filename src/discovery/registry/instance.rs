//! An instance as it announces itself, checked, and as the registry keeps it.
//!
//! An `Announcement` that exists is valid: whatever reads one doesn't check again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::target::Host;
use crate::service::discovered::Description;

/// Names and weights are bounded as they are in a configuration.
const MAX_SERVICE_NAME_BYTES: usize = 100;
const MAX_WEIGHT: u32 = 1000;
const MAX_ZONE_BYTES: usize = 64;
pub const MAX_VERSION_BYTES: usize = 64;
pub const MAX_METADATA_BYTES: usize = 2048;

/// What makes an instance the same instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub service_name: Arc<str>,
    /// An IP literal in its canonical form, without brackets, or a name in lower case.
    pub host: Arc<str>,
    pub port: u16,
}

/// A JSON object that the registry only hands on. It is kept as text: the tree of one takes many times as much.
#[derive(Clone, Default)]
pub struct Metadata(Option<Arc<RawValue>>);

/// What an instance says of itself. `None` is what it leaves out.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    pub key: Key,
    weight: Option<u32>,
    zone: Option<Arc<str>>,
    version: Option<Arc<str>>,
    metadata: Option<Metadata>,
    /// Of the service as a whole.
    service_metadata: Option<Metadata>,
}

/// A registered instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub key: Key,
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    /// Of the program that it runs.
    pub version: Option<Arc<str>>,
    pub metadata: Metadata,
}

/// A member of an announcement that can't be what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{member}\" {what}")]
pub struct InvalidMember {
    pub member: &'static str,
    pub what: String,
}

fn invalid<T>(member: &'static str, what: impl Into<String>) -> Result<T, InvalidMember> {
    Err(InvalidMember { member, what: what.into() })
}

impl Announcement {
    pub fn new(service_name: &str, host: &str, port: u16) -> Result<Self, InvalidMember> {
        if port == 0 {
            return invalid("port", "must be from 1 to 65535");
        }
        let key = Key { service_name: service_name_of(service_name)?, host: host_of(host)?, port };
        Ok(Announcement {
            key,
            weight: None,
            zone: None,
            version: None,
            metadata: None,
            service_metadata: None,
        })
    }

    pub fn with_weight(self, weight: u32) -> Result<Self, InvalidMember> {
        match weight {
            1..=MAX_WEIGHT => Ok(Announcement { weight: Some(weight), ..self }),
            _ => invalid("weight", format!("must be from 1 to {MAX_WEIGHT}")),
        }
    }

    pub fn with_zone(self, zone: &str) -> Result<Self, InvalidMember> {
        Ok(Announcement { zone: Some(line("zone", zone, MAX_ZONE_BYTES)?), ..self })
    }

    pub fn with_version(self, version: &str) -> Result<Self, InvalidMember> {
        Ok(Announcement { version: Some(line("version", version, MAX_VERSION_BYTES)?), ..self })
    }

    pub fn with_metadata(self, metadata: &Map<String, Value>) -> Result<Self, InvalidMember> {
        Ok(Announcement { metadata: Some(Metadata::new("metadata", metadata)?), ..self })
    }

    pub fn with_service_metadata(self, metadata: &Map<String, Value>) -> Result<Self, InvalidMember> {
        Ok(Announcement { service_metadata: Some(Metadata::new("service_metadata", metadata)?), ..self })
    }

    /// As JSON, with only what was given.
    pub fn to_json(&self) -> String {
        let written = Written {
            service_name: Some(&self.key.service_name),
            host: &self.key.host,
            port: self.key.port,
            weight: self.weight,
            zone: self.zone.as_deref(),
            version: self.version.as_deref(),
            metadata: self.metadata.as_ref(),
            service_metadata: self.service_metadata.as_ref(),
        };
        // Nothing of it can fail to be JSON.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// The instance that registering makes: what is left out has its default. And what it says of its service.
    pub fn into_instance(self) -> (Instance, Option<Metadata>) {
        let instance = Instance {
            key: self.key,
            weight: self.weight.unwrap_or(1),
            zone: self.zone,
            version: self.version,
            metadata: self.metadata.unwrap_or_default(),
        };
        (instance, self.service_metadata)
    }

    /// The instance after a heartbeat: what is left out stays as it was.
    pub fn applied_to(self, instance: &Instance) -> Instance {
        Instance {
            key: instance.key.clone(),
            weight: self.weight.unwrap_or(instance.weight),
            zone: self.zone.or_else(|| instance.zone.clone()),
            version: self.version.or_else(|| instance.version.clone()),
            metadata: self.metadata.unwrap_or_else(|| instance.metadata.clone()),
        }
    }
}

impl Metadata {
    fn new(member: &'static str, object: &Map<String, Value>) -> Result<Self, InvalidMember> {
        if object.is_empty() {
            return Ok(Metadata(None));
        }
        let Ok(text) = serde_json::value::to_raw_value(object) else { return invalid(member, "is no JSON") };
        match text.get().len() <= MAX_METADATA_BYTES {
            true => Ok(Metadata(Some(text.into()))),
            false => invalid(member, format!("is larger than {MAX_METADATA_BYTES} bytes as JSON")),
        }
    }

    /// The text, unless it is that of an empty object.
    pub fn given(&self) -> Option<Arc<str>> {
        self.0.as_ref().map(|text| text.get().into())
    }

    /// Compact JSON.
    pub fn text(&self) -> &str {
        self.0.as_ref().map_or("{}", |text| text.get())
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(text) => text.serialize(serializer),
            None => Map::new().serialize(serializer),
        }
    }
}

/// An instance as documents have it.
#[derive(Serialize)]
pub struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<&'a str>,
    pub host: &'a str,
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<&'a Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_metadata: Option<&'a Metadata>,
}

impl Key {
    /// `host:port` as it stands in a URL.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.service_name, self.authority())
    }
}

impl Instance {
    /// What requests don't need.
    pub fn description(&self) -> Option<Arc<Description>> {
        let (version, metadata) = (self.version.clone(), self.metadata.given());
        let given = version.is_some() || metadata.is_some();
        given.then(|| Arc::new(Description { version, metadata }))
    }

    pub fn written(&self) -> Written<'_> {
        Written {
            service_name: Some(&self.key.service_name),
            host: &self.key.host,
            port: self.key.port,
            weight: Some(self.weight),
            zone: self.zone.as_deref(),
            version: self.version.as_deref(),
            metadata: Some(&self.metadata),
            service_metadata: None,
        }
    }
}

/// One line of text.
fn line(member: &'static str, text: &str, max_bytes: usize) -> Result<Arc<str>, InvalidMember> {
    if text.is_empty() || text.len() > max_bytes || text.chars().any(char::is_control) {
        return invalid(member, format!("must be 1 to {max_bytes} bytes of text"));
    }
    Ok(text.into())
}

/// A name as configurations write them: it is part of URLs, logs and metrics.
pub fn service_name_of(text: &str) -> Result<Arc<str>, InvalidMember> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || text.len() > MAX_SERVICE_NAME_BYTES || !text.bytes().all(fits) {
        return invalid(
            "service_name",
            format!(
                "must be 1 to {MAX_SERVICE_NAME_BYTES} letters, digits, '-', '_' or '.', \
                 and begin with a letter or digit"
            ),
        );
    }
    Ok(text.into())
}

fn host_of(text: &str) -> Result<Arc<str>, InvalidMember> {
    match Host::parse(text) {
        Host::Address(ip) if ip.is_unspecified() => invalid(
            "host",
            format!("can't be {ip}: that is where a service listens, not where it is reached"),
        ),
        Host::Address(ip) if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            invalid("host", format!("can't be {ip}, which is not the address of one host"))
        }
        Host::Address(ip) => Ok(ip.to_string().into()),
        Host::Name(name) if text.contains([':', '/']) => invalid(
            "host",
            format!("must be an IP address or a name alone, without scheme and port: {name:?}"),
        ),
        Host::Name(name) => match name.strip_suffix('.').unwrap_or(&name) {
            name if is_host_name(name) => Ok(name.into()),
            name => invalid("host", format!("is neither an IP address nor a host name: {name:?}")),
        },
    }
}

/// RFC 1123 §2.1, with the underscore that container networks allow. A last label of digits only
/// would be a mistyped IPv4 address.
fn is_host_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(label) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Result<String, String> {
        Announcement::new("users", text, 80)
            .map(|announcement| announcement.key.authority())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn hosts_have_one_spelling() {
        assert_eq!(host("127.0.0.1").as_deref(), Ok("127.0.0.1:80"));
        assert_eq!(host("[::1]").as_deref(), Ok("[::1]:80"));
        assert_eq!(host("0:0:0:0:0:0:0:1").as_deref(), Ok("[::1]:80"));
        assert_eq!(host("::ffff:10.0.0.1").as_deref(), Ok("10.0.0.1:80"));
        assert_eq!(host("Users_1.Internal.").as_deref(), Ok("users_1.internal:80"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "10.0.0.256",
            "127.1",
            "http://a",
            "a:80",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a/b",
            "é",
            "a\0b",
            "[::1",
            "fe80::1%eth0",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert!(host(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn the_bounds_of_members_hold() {
        let announcement = || Announcement::new("users", "a", 80).expect("valid");
        assert!(Announcement::new("users", "a", 0).is_err());
        assert!(Announcement::new("a/b", "a", 80).is_err());
        assert!(Announcement::new("", "a", 80).is_err());
        assert!(Announcement::new("..", "a", 80).is_err());
        assert!(Announcement::new(&"a".repeat(101), "a", 80).is_err());
        assert!(announcement().with_weight(0).is_err());
        assert!(announcement().with_weight(1001).is_err());
        assert!(announcement().with_weight(1000).is_ok());
        assert!(announcement().with_zone("").is_err());
        let metadata = |bytes: usize| Map::from_iter([("k".to_owned(), Value::from("v".repeat(bytes)))]);
        assert!(announcement().with_metadata(&metadata(2040)).is_ok());
        assert!(announcement().with_metadata(&metadata(2048)).is_err());
        assert!(announcement().with_service_metadata(&metadata(2048)).is_err());
        assert!(announcement().with_version("1.4.2+build/7").is_ok());
        for version in ["", "1\n2", &"1".repeat(65)] {
            assert!(announcement().with_version(version).is_err(), "{version:?}");
        }
    }
}
