//! One instance as the value of a key in a store: `host:port`, a URL, or a JSON object.

use std::sync::Arc;

use serde::Deserialize;

use super::target::{Host, Scheme, Target};
use crate::service::discovered::MAX_PRIORITY;

/// As for the instances that the configuration itself lists.
const MAX_WEIGHT: u32 = 1000;
const MAX_ZONE_BYTES: usize = 64;
const MAX_BYTES: usize = 4096;

/// Why a value is no instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("it has no value")]
    Empty,
    #[error("its value is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("its value is not UTF-8")]
    NotUtf8,
    #[error("its value is not a JSON object with \"url\", or with \"host\" and \"port\"")]
    Json,
    #[error("its value is not http://host:port")]
    Address,
    #[error("its weight is not from 1 to {MAX_WEIGHT}")]
    Weight,
    #[error("its zone is not 1 to {MAX_ZONE_BYTES} bytes")]
    Zone,
    #[error("its priority is not from 0 to {MAX_PRIORITY}")]
    Priority,
}

/// Members that it doesn't have are not looked at: other programs keep theirs beside these.
#[derive(Deserialize)]
struct Written {
    url: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    weight: Option<u32>,
    zone: Option<String>,
    priority: Option<u32>,
    /// As etcd's own library for gRPC names writes it.
    #[serde(rename = "Addr")]
    address: Option<String>,
}

pub fn target(value: &[u8]) -> Result<Target, EntryError> {
    if value.len() > MAX_BYTES {
        return Err(EntryError::TooLarge);
    }
    let text = std::str::from_utf8(value).map_err(|_| EntryError::NotUtf8)?.trim();
    match text.as_bytes().first() {
        None => Err(EntryError::Empty),
        Some(b'{') => serde_json::from_str(text).map_err(|_| EntryError::Json).and_then(written),
        Some(b'"') => at(&serde_json::from_str::<String>(text).map_err(|_| EntryError::Json)?, 1, None),
        Some(_) => at(text, 1, None),
    }
}

fn written(written: Written) -> Result<Target, EntryError> {
    let (weight, zone) = (written.weight, written.zone.map(Arc::from));
    match (written.url.or(written.address), written.host, written.port) {
        (Some(url), ..) => at_weighted(&url, weight, zone, written.priority),
        (None, Some(host), Some(port)) => {
            at_weighted(&with_port(&host, port), weight, zone, written.priority)
        }
        _ => Err(EntryError::Json),
    }
}

/// As [`at`], with a weight, a zone and a priority that somebody else has written.
pub fn at_weighted(
    text: &str,
    weight: Option<u32>,
    zone: Option<Arc<str>>,
    priority: Option<u32>,
) -> Result<Target, EntryError> {
    let weight = weight.unwrap_or(1);
    if !(1..=MAX_WEIGHT).contains(&weight) {
        return Err(EntryError::Weight);
    }
    if zone.as_ref().is_some_and(|zone| zone.is_empty() || zone.len() > MAX_ZONE_BYTES) {
        return Err(EntryError::Zone);
    }
    let priority = u8::try_from(priority.unwrap_or(0)).ok();
    let priority = priority.filter(|priority| *priority <= MAX_PRIORITY).ok_or(EntryError::Priority)?;
    Ok(at(text, weight, zone)?.with_priority(priority))
}

/// `host:port`, with the brackets that an IPv6 address needs.
pub fn with_port(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The instance at `http://host:port`, `https://host:port` or `host:port`.
pub fn at(text: &str, weight: u32, zone: Option<Arc<str>>) -> Result<Target, EntryError> {
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Some(Scheme::Http), rest.strip_suffix('/').unwrap_or(rest)),
        Some(("https", rest)) => (Some(Scheme::Https), rest.strip_suffix('/').unwrap_or(rest)),
        Some(_) => return Err(EntryError::Address),
        None => (None, text),
    };
    let default = scheme.map(|scheme| if scheme == Scheme::Https { "443" } else { "80" });
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, default),
    };
    let port = port.filter(|port| port.bytes().all(|b| b.is_ascii_digit())).ok_or(EntryError::Address)?;
    let authority = format!("{}:{port}", host.to_ascii_lowercase());
    let target = Target::from_authority(&authority, weight, zone).ok_or(EntryError::Address)?;
    let good = match &target.host {
        Host::Address(ip) => ip.is_ipv4() || host.starts_with('['),
        Host::Name(name) => {
            name.len() <= 253 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        }
    };
    if good { Ok(target.with_scheme(scheme)) } else { Err(EntryError::Address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Result<String, EntryError> {
        target(value.as_bytes())
            .map(|t| format!("{}*{}@{}", t.authority, t.weight, t.zone.unwrap_or_default()))
    }

    #[test]
    fn a_priority_is_read_and_bounded() {
        let priority = |value: &str| target(value.as_bytes()).map(|target| target.priority);
        assert_eq!(priority(r#"{"url":"users:1","priority":9}"#), Ok(9));
        assert_eq!(priority(r#"{"host":"users","port":1,"priority":null}"#), Ok(0));
        assert_eq!(priority(r#"{"url":"users:1","priority":10}"#), Err(EntryError::Priority));
        assert_eq!(priority(r#"{"url":"users:1","priority":1000}"#), Err(EntryError::Priority));
        assert_eq!(priority(r#"{"url":"users:1","priority":-1}"#), Err(EntryError::Json));
    }

    #[test]
    fn every_form_is_read() {
        for (value, expected) in [
            ("127.0.0.1:8001", "127.0.0.1:8001*1@"),
            (" http://Users.Internal:8001/\n", "users.internal:8001*1@"),
            ("http://users", "users:80*1@"),
            ("https://users", "users:443*1@"),
            ("https://users:8443/", "users:8443*1@"),
            ("[::1]:8001", "[::1]:8001*1@"),
            ("http://[::1]", "[::1]:80*1@"),
            (r#""127.0.0.1:8001""#, "127.0.0.1:8001*1@"),
            (r#"{"url":"http://127.0.0.1:8001","weight":2,"zone":"a","version":[1]}"#, "127.0.0.1:8001*2@a"),
            (r#"{"service_name":"users","host":"::1","port":8001,"metadata":{}}"#, "[::1]:8001*1@"),
            (r#"{"Op":0,"Addr":"127.0.0.1:8001","Metadata":null}"#, "127.0.0.1:8001*1@"),
        ] {
            assert_eq!(text(value), Ok(expected.to_owned()), "{value}");
        }
    }

    #[test]
    fn what_is_no_instance_is_told_by_its_fault() {
        for (value, expected) in [
            ("", EntryError::Empty),
            ("  \n", EntryError::Empty),
            ("127.0.0.1", EntryError::Address),
            ("users", EntryError::Address),
            ("users:0", EntryError::Address),
            ("users:+80", EntryError::Address),
            ("users:99999", EntryError::Address),
            (":80", EntryError::Address),
            ("::1:80", EntryError::Address),
            ("http://users:80/path", EntryError::Address),
            ("http://me:pw@users:80", EntryError::Address),
            ("a b:80", EntryError::Address),
            ("users\r\nx: y:80", EntryError::Address),
            ("ftp://users:80", EntryError::Address),
            ("{", EntryError::Json),
            ("{}", EntryError::Json),
            (r#"{"host":"users"}"#, EntryError::Json),
            (r#"{"host":"users","port":99999}"#, EntryError::Json),
            (r#"{"url":7}"#, EntryError::Json),
            (r#"{"url":"users:1","weight":0}"#, EntryError::Weight),
            (r#"{"url":"users:1","zone":""}"#, EntryError::Zone),
        ] {
            assert_eq!(text(value), Err(expected), "{value}");
        }
        assert_eq!(target(&[0xff, 0xfe]), Err(EntryError::NotUtf8));
        assert_eq!(target(&[b'1'; MAX_BYTES + 1]), Err(EntryError::TooLarge));
    }
}
