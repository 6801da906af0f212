//! Addresses: to listen on, to trust, to send requests to.

use std::net::{IpAddr, SocketAddr};

use ::http::Uri;
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::http::{is_domain, is_host};
use super::text_schema;
use crate::config::block::Value;
use crate::config::reader::{Form, Reader};
use crate::config::yaml::Node;

impl Value for SocketAddr {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "an address to listen on",
            remedy: "write an IP address and a port: 127.0.0.1:8000, 0.0.0.0:8000 or [::]:8000",
        };
        reader.parse(node, &form, |text| {
            text.parse().map_err(|_| match text.rsplit_once(':') {
                Some(("", port)) if is_port(port) => Some(format!("write 0.0.0.0:{port} for all interfaces")),
                Some(("*", port)) if is_port(port) => {
                    Some(format!("write 0.0.0.0:{port} for all interfaces"))
                }
                Some(("localhost", port)) if is_port(port) => Some(format!("write 127.0.0.1:{port}")),
                None if is_port(text) => Some(format!("write 0.0.0.0:{text} for all interfaces")),
                None if text.parse::<IpAddr>().is_ok() => Some(format!("add a port: {text}:8000")),
                _ => None,
            })
        })
    }

    fn schema() -> Json {
        text_schema(r".+:[0-9]+")
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// A network in CIDR form, or a single address.
impl Value for IpNet {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form =
            Form { name: "a network", remedy: "write it as in 10.0.0.0/8 or fd00::/8, or a single address" };
        reader.parse(node, &form, |text| {
            if let Ok(address) = text.parse::<IpAddr>() {
                return Ok(IpNet::from(address));
            }
            let net: IpNet = text.parse().map_err(|_| None)?;
            match net.trunc() == net {
                true => Ok(net),
                false => Err(Some(format!("the address goes beyond the prefix: write {}", net.trunc()))),
            }
        })
    }

    fn schema() -> Json {
        text_schema(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?")
    }
}

/// `host:port` of an instance, and whether it is to be spoken to over TLS.
pub(in crate::config) struct InstanceUrl {
    pub authority: String,
    pub is_https: bool,
}

const INSTANCE: Form =
    Form { name: "the URL of an instance", remedy: "write http:// and host and port: http://127.0.0.1:8001" };

impl Value for InstanceUrl {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &INSTANCE, |text| {
            for (scheme, port) in [("http", "80"), ("https", "443")] {
                if let Some(rest) = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) {
                    let authority = instance(scheme, rest, port)?;
                    return Ok(InstanceUrl { authority, is_https: scheme == "https" });
                }
            }
            let plain = text.split_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port));
            Err(plain.then(|| format!("write http://{text}")))
        })
    }

    fn schema() -> Json {
        text_schema(r"https?://[^/?#@]+/?")
    }
}

fn instance(scheme: &str, rest: &str, usual_port: &str) -> Result<String, Option<String>> {
    if rest.contains('@') {
        return Err(Some("a URL with a user and password isn't supported here".to_owned()));
    }
    let authority = match rest.split_once(['/', '?', '#']) {
        None => rest,
        Some((authority, "")) if rest.ends_with('/') => authority,
        Some((authority, _)) => {
            return Err(Some(format!(
                "an instance has no path: write {scheme}://{authority}, and `rewrite` in the route"
            )));
        }
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, usual_port),
    };
    match port.parse::<u16>() {
        Ok(1..) if is_port(port) && is_host(host) => Ok(format!("{}:{port}", host.to_ascii_lowercase())),
        _ => Err(None),
    }
}

/// What a certificate is for: a domain name or an IP address.
pub(in crate::config) struct CertificateName(pub String);

impl Value for CertificateName {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "the name of a server",
            remedy: "write a name that the certificate is good for, as in users.internal, or an IP address",
        };
        reader.parse(node, &form, |text| {
            let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
            if bare.parse::<IpAddr>().is_ok() {
                return Ok(CertificateName(bare.to_owned()));
            }
            let name = text.strip_suffix('.').unwrap_or(text);
            match text.split_once(':') {
                _ if is_domain(name) => Ok(CertificateName(name.to_ascii_lowercase())),
                Some((host, port)) if is_domain(host) && is_port(port) => Err(Some(format!("write {host}"))),
                _ => Err(None),
            }
        })
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl From<CertificateName> for String {
    fn from(name: CertificateName) -> String {
        name.0
    }
}

/// An absolute `http` or `https` URL without user and password.
pub(in crate::config) struct Url(pub Uri);

impl Value for Url {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form =
            Form { name: "a URL", remedy: "write it in full: https://id.example.com/.well-known/jwks.json" };
        reader.parse(node, &form, |text| {
            let uri: Uri = text.parse().map_err(|_| None)?;
            let authority = uri.authority().ok_or(None)?;
            if authority.as_str().contains('@') {
                return Err(Some("write it without a user and password".to_owned()));
            }
            match uri.scheme_str() {
                Some("http" | "https") if is_host(authority.host()) => Ok(Url(uri)),
                _ => Err(None),
            }
        })
    }

    fn schema() -> Json {
        text_schema(r"https?://[^/?#@]+([/?].*)?")
    }
}

/// Where a server is: an `http` or `https` URL without a path, a user or a password.
pub(in crate::config) struct ServerUrl(pub Uri);

impl Value for ServerUrl {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "the URL of a server",
            remedy: "write scheme, host and port: http://127.0.0.1:2379, say",
        };
        reader.parse(node, &form, |text| {
            let uri: Uri = text.parse().map_err(|_| None)?;
            let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
                let plain = text.split_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port));
                return Err(plain.then(|| format!("write http://{text}")));
            };
            if authority.as_str().contains('@') {
                return Err(Some("write it without a user and password".to_owned()));
            }
            if !matches!(scheme, "http" | "https") || !is_host(authority.host()) {
                return Err(None);
            }
            match uri.path_and_query().map_or("/", |rest| rest.as_str()) {
                "/" => Ok(ServerUrl(uri)),
                _ => Err(Some(format!("write it without a path: {scheme}://{authority}"))),
            }
        })
    }

    fn schema() -> Json {
        text_schema(r"https?://[^/?#@]+/?")
    }
}

/// A name to ask DNS for.
pub(in crate::config) struct DomainName(pub String);

impl Value for DomainName {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a domain name", remedy: "write the name alone, as in orders.internal" };
        reader.parse(node, &form, |text| {
            let name = text.strip_suffix('.').unwrap_or(text);
            if is_domain(name) { Ok(DomainName(text.to_ascii_lowercase())) } else { Err(None) }
        })
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances() {
        assert_eq!(instance("http", "127.0.0.1:8001", "80"), Ok("127.0.0.1:8001".to_owned()));
        assert_eq!(instance("http", "Users.Internal:80/", "80"), Ok("users.internal:80".to_owned()));
        assert_eq!(instance("http", "users", "80"), Ok("users:80".to_owned()));
        assert_eq!(instance("http", "[::1]:9000", "80"), Ok("[::1]:9000".to_owned()));
        assert_eq!(instance("http", "[::1]", "80"), Ok("[::1]:80".to_owned()));
        assert_eq!(instance("https", "users", "443"), Ok("users:443".to_owned()));
        assert_eq!(instance("https", "users:8443/", "443"), Ok("users:8443".to_owned()));
        for wrong in ["", ":80", "a:0", "a:99999", "a:b", "u:p@h:1", "a:1/x", "a b:1", "[::1:80"] {
            assert!(instance("http", wrong, "80").is_err(), "{wrong}");
        }
    }
}
