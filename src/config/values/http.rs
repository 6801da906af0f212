//! What HTTP gives its own syntax to: methods, header fields, hosts, origins.

use ::http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::{Value as Json, json};

use super::text_schema;
use crate::config::block::Value;
use crate::config::model::HostPattern;
use crate::config::reader::{Form, Reader, has_variables, shown};
use crate::config::source::Span;
use crate::config::text::quoted;
use crate::config::yaml::Node;

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

impl Value for Method {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form =
            Form { name: "a method", remedy: "write it in capitals: GET, POST, PUT, PATCH, DELETE …" };
        let method = reader.parse(node, &form, |text| {
            let capitals = text.to_ascii_uppercase();
            match text {
                "*" => Err(Some("leave the key out: every method is what it then means".to_owned())),
                "CONNECT" => Err(Some("CONNECT is not routed".to_owned())),
                _ if text != capitals && METHODS.contains(&&*capitals) => {
                    Err(Some(format!("methods are in capitals: {capitals}")))
                }
                _ if text != capitals => Err(None),
                _ => Method::from_bytes(text.as_bytes()).map_err(|_| None),
            }
        })?;
        if !METHODS.contains(&method.as_str())
            && let Some(near) = reader.suggestions.nearest(method.as_str(), METHODS)
            && !has_variables(node)
        {
            let message = format!("{} is not a method of HTTP", shown(node));
            reader.warning(node.span, message, format!("did you mean {near}?"));
        }
        Some(method)
    }

    fn schema() -> Json {
        text_schema("[A-Z0-9!#$%&'+.^_`|~-]+")
    }
}

/// A header name, in lower case.
impl Value for HeaderName {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &HEADER_NAME, |text| header_name(text).ok_or(None))
    }

    fn schema() -> Json {
        text_schema("[A-Za-z0-9!#$%&'*+.^_`|~-]+")
    }
}

const HEADER_NAME: Form =
    Form { name: "the name of a header", remedy: "use letters, digits and `-`, without a colon" };

fn header_name(text: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(text.as_bytes()).ok()
}

/// The name of a header, written as a key.
pub(in crate::config) fn header_key(key: &str, span: Span, reader: &mut Reader<'_>) -> Option<HeaderName> {
    let name = header_name(key);
    if name.is_none() {
        let message = format!("{} is not {}", quoted(key), HEADER_NAME.name);
        reader.error(span, message, HEADER_NAME.remedy);
    }
    name
}

/// Which way a message goes that a header is set or removed on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Direction {
    Request,
    Response,
}

/// Whether a configuration may touch the header. Framing and connection fields belong to the
/// gateway (RFC 9110 §7.6.1, RFC 9112 §6): a wrong one splits or smuggles messages.
pub(in crate::config) fn may_edit(
    name: &HeaderName,
    direction: Direction,
    span: Span,
    reader: &mut Reader<'_>,
) -> bool {
    let remedy = match name.as_str() {
        "content-length" | "transfer-encoding" | "trailer" | "te" => {
            "it follows from the body: remove it here"
        }
        "connection" | "keep-alive" | "proxy-connection" | "upgrade" | "http2-settings" => {
            "it belongs to one connection: remove it here"
        }
        "host" if direction == Direction::Request => {
            "use `host` under `forward`: preserve, instance or a fixed name"
        }
        _ => return true,
    };
    reader.error(span, format!("the header {name} is the gateway's own"), remedy);
    false
}

/// A header's value. Messages never show it, and neither does `Debug` where its name says secret.
pub(in crate::config) fn header_value(
    name: &HeaderName,
    node: &Node<'_>,
    reader: &mut Reader<'_>,
) -> Option<HeaderValue> {
    let form = Form { name: "the value of a header", remedy: "write a text" };
    let text = reader.text(node, &form)?;
    match HeaderValue::from_str(&text) {
        Ok(mut value) => {
            value.set_sensitive(crate::config::mask::is_secret(name.as_str()));
            Some(value)
        }
        Err(_) => {
            reader.error(
                node.span,
                "a header's value is one line of ASCII text",
                "remove line breaks and other control characters, and encode what isn't ASCII",
            );
            None
        }
    }
}

const HOST: Form = Form {
    name: "a host",
    remedy: "write a name as in api.example.com, or *.example.com for every name below it",
};

impl Value for HostPattern {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &HOST, |text| {
            let host = text.to_ascii_lowercase();
            if host == "*" {
                return Err(Some("leave `hosts` out: any host is what it then means".to_owned()));
            }
            if let Some((_, rest)) = host.split_once("://") {
                let authority = rest.split('/').next().and_then(|authority| authority.rsplit('@').next());
                let name = authority.and_then(|a| a.split(':').next()).filter(|name| is_host(name));
                return Err(name.map(|name| format!("write the host alone: {name}")));
            }
            if let Some((name, port)) = host.rsplit_once(':')
                && is_host(name)
                && port.bytes().all(|b| b.is_ascii_digit())
            {
                return Err(Some(format!("write it without the port, which isn't matched: {name}")));
            }
            match host.strip_prefix("*.") {
                Some(rest) if is_domain(rest) => Ok(HostPattern::Wildcard(rest.to_owned())),
                None if is_host(&host) => Ok(HostPattern::Exact(host)),
                _ => Err(None),
            }
        })
    }

    fn schema() -> Json {
        text_schema(r"(\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
    }
}

/// A domain name or an IPv4 address, or an IPv6 address in brackets.
pub(in crate::config) fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_domain(text),
    }
}

/// Labels as in DNS; underscores too, which the names of services often hold.
pub(in crate::config) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// `*`, or an origin as browsers write it (RFC 6454 §6.2): lower case, no default port, no path.
#[derive(Clone)]
pub(in crate::config) enum Origin {
    Any,
    Exact(String),
}

impl Value for Origin {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "an origin",
            remedy: "write scheme and host, and a port unless it is the usual one: https://shop.example.com",
        };
        reader.parse(node, &form, |text| {
            if text == "*" {
                return Ok(Origin::Any);
            }
            if text == "null" {
                return Err(Some("\"null\" is what any sandboxed page sends: name real origins".to_owned()));
            }
            if text.contains('*') {
                return Err(Some("write every origin out, or `*` alone for any".to_owned()));
            }
            let origin = text.to_ascii_lowercase();
            let uri: Uri = origin.parse().map_err(|_| None)?;
            let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
                return Err(None);
            };
            if !matches!(scheme, "http" | "https")
                || !is_host(authority.host())
                || authority.as_str().contains('@')
            {
                return Err(None);
            }
            if origin.len() > scheme.len() + 3 + authority.as_str().len() {
                return Err(Some(format!("an origin has no path: write {scheme}://{authority}")));
            }
            let usual = if scheme == "https" { 443 } else { 80 };
            Ok(Origin::Exact(match authority.port_u16() {
                Some(port) if port != usual => format!("{scheme}://{}:{port}", authority.host()),
                _ => format!("{scheme}://{}", authority.host()),
            }))
        })
    }

    fn schema() -> Json {
        text_schema(r"\*|[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+")
    }
}

/// The name of a cookie (RFC 6265 §4.1.1: a token).
pub(in crate::config) struct CookieName(pub String);

impl Value for CookieName {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "the name of a cookie", remedy: "use letters, digits, `-`, `_` and `.`" };
        reader.parse(node, &form, |text| match header_name(text) {
            Some(_) => Ok(CookieName(text.to_owned())),
            None => Err(None),
        })
    }

    fn schema() -> Json {
        text_schema("[A-Za-z0-9!#$%&'*+.^_`|~-]+")
    }
}

impl From<CookieName> for String {
    fn from(name: CookieName) -> String {
        name.0
    }
}

/// `name: value` for header fields, in the order of the file; each name at most once.
pub(in crate::config) struct HeaderFields(pub Vec<(HeaderName, Span, Option<HeaderValue>)>);

impl Value for HeaderFields {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of headers")?;
        let mut fields = Vec::with_capacity(entries.len());
        let mut seen = std::collections::HashSet::new();
        for entry in entries {
            let Some(name) = header_key(&entry.key, entry.key_span, reader) else { continue };
            if !seen.insert(name.clone()) {
                let message = format!("the header {name} is set twice");
                reader.error(entry.key_span, message, "keep one of them: case makes no difference");
            }
            let value = header_value(&name, &entry.value, reader);
            fields.push((name, entry.key_span, value));
        }
        Some(HeaderFields(fields))
    }

    fn schema() -> Json {
        json!({ "type": ["object", "null"], "additionalProperties": { "type": ["string", "number", "boolean"] } })
    }
}

impl HeaderFields {
    /// The fields, if the configuration may set them all on messages of that direction.
    pub fn checked(
        self,
        direction: Direction,
        reader: &mut Reader<'_>,
    ) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let checked: Vec<_> = self
            .0
            .into_iter()
            .map(|(name, span, value)| may_edit(&name, direction, span, reader).then_some((name, value?)))
            .collect();
        checked.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_hosts() {
        for good in ["a", "example.com", "10.0.0.1", "user_service.local", "x-1.y"] {
            assert!(is_domain(good) && is_host(good), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "ä.de", "a/b", "example.com."] {
            assert!(!is_domain(bad), "{bad}");
        }
        assert!(is_host("[::1]") && !is_host("::1") && !is_host("[::1"));
    }
}
