//! `discovery: { consul: … }` — the instances of a service whose checks pass.
//!
//! Consul answers a question with the index of its state, and the next question with that index only when
//! something has changed, or after [`QUIET`]. That pause is also the bound within which a server that hangs
//! is noticed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::Full;
use serde::Deserialize;
use tokio::sync::watch;

use super::entry::{at, with_port};
use super::remote::{self, Clients, PATIENCE, Pauses, QUIET, RemoteError, Told};
use super::target::{Target, Wanted};
use crate::config::ConsulSource;
use crate::http::fetch::{FetchError, Fetcher};
use crate::service::discovered::{MAX_PRIORITY, MAX_WEIGHT};

/// Six kilobytes for each of as many instances as a set holds: Consul tells all of a node and its checks.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Longer names are left out, as they are refused elsewhere.
const MAX_ZONE_BYTES: usize = 64;
/// Between an answer and the next question: changes that come at once are one.
const PAUSE: Duration = Duration::from_millis(20);
/// Where the index went back, the more so: servers that disagree would otherwise be asked without end.
const PAUSE_AFTER_RESET: Duration = Duration::from_millis(250);

/// Keeps `wanted` at what Consul says. Runs until dropped.
pub async fn follow(source: ConsulSource, wanted: watch::Sender<Wanted>) {
    let server = Server::new(&source);
    let mut told = Told::new(wanted);
    if let Some((client, uri)) = server.heart() {
        told.feel(client, uri);
    }
    let mut pauses = Pauses::default();
    let mut index = 0;
    let mut fault = None;
    loop {
        let pause = match server.ask(index).await {
            Ok(Answer { changed, index: now }) => {
                match changed {
                    Some((targets, now)) => {
                        told.targets(targets);
                        fault = now;
                    }
                    None => told.still(),
                }
                told.well(fault.clone());
                pauses.reset();
                let before = index;
                index = index_after(before, now);
                if index < before { PAUSE_AFTER_RESET } else { PAUSE }
            }
            Err(error) => {
                told.failed(format!("{}: {error}", server.address));
                index = 0;
                pauses.next(told.longest_pause())
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// What to wait from. An index that went back is of another state, to be asked for anew; one of zero
/// would never be waited from ("Blocking Queries" in Consul's documentation has both rules).
fn index_after(before: u64, now: u64) -> u64 {
    if now < before { 0 } else { now.max(1) }
}

struct Server {
    clients: Clients,
    /// `http://host:port`
    address: String,
    /// Path and query of a question, without the index.
    question: String,
    token: Option<HeaderValue>,
}

struct Answer {
    /// The instances, and what is wrong with some. `None` if nothing has changed.
    changed: Option<(Vec<Target>, Option<String>)>,
    index: u64,
}

impl Server {
    fn new(source: &ConsulSource) -> Server {
        let mut question = format!("/v1/health/service/{}?passing=true", encoded(&source.service));
        for (name, value) in [("tag", &source.tag), ("dc", &source.datacenter)] {
            if let Some(value) = value {
                question += &format!("&{name}={}", encoded(value));
            }
        }
        let token = source.token.as_ref().and_then(|token| {
            let mut token = HeaderValue::from_str(token.expose()).ok()?;
            token.set_sensitive(true);
            Some(token)
        });
        Server {
            clients: remote::clients([&source.address.value]),
            address: source.address.value.to_string().trim_end_matches('/').to_owned(),
            question,
            token,
        }
    }

    /// Where it says something that it needs nothing for but a leader, and no token.
    fn heart(&self) -> Option<(&Fetcher, Uri)> {
        let uri = format!("{}/v1/status/leader", self.address).parse().ok()?;
        Some((&self.clients.feeling, uri))
    }

    /// Waits for a state beyond `index`, or, with 0, doesn't wait.
    async fn ask(&self, index: u64) -> Result<Answer, RemoteError> {
        let mut uri = format!("{}{}", self.address, self.question);
        // It adds up to a sixteenth to what it was asked to wait, so that clients don't come back together.
        let patience = if index == 0 { PATIENCE } else { QUIET + QUIET / 16 + PATIENCE };
        if index > 0 {
            uri += &format!("&index={index}&wait={}s", QUIET.as_secs());
        }
        let mut request = Request::new(Full::<Bytes>::default());
        *request.uri_mut() = uri.parse::<Uri>().map_err(|_| FetchError::Url)?;
        if let Some(token) = &self.token {
            request.headers_mut().insert("x-consul-token", token.clone());
        }
        let response = remote::ask(&self.clients.asking, request, patience).await?;
        let now = index_of(response.headers())?;
        if now == index && index > 0 {
            return Ok(Answer { changed: None, index });
        }
        let filtered = response.headers().get("x-consul-results-filtered-by-acls");
        let filtered = filtered.is_some_and(|value| value == "true");
        let body = remote::whole(response, MAX_ANSWER_BYTES).await?;
        let changed = remote::read(body, targets_of).await?;
        match filtered && changed.0.is_empty() {
            // A token that may see nothing is not a service that has nothing.
            true => Err(RemoteError::Filtered),
            false => Ok(Answer { changed: Some(changed), index: now }),
        }
    }
}

fn index_of(headers: &HeaderMap) -> Result<u64, RemoteError> {
    let index = headers.get("x-consul-index").and_then(|value| value.to_str().ok()?.parse().ok());
    index.ok_or_else(|| RemoteError::Unreadable("it has no X-Consul-Index".to_owned()))
}

/// One of the list that `/v1/health/service/…` is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checked {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
    meta: Option<HashMap<String, String>>,
    locality: Option<Locality>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID", default)]
    id: String,
    /// Empty where it is the node's.
    #[serde(default)]
    address: String,
    port: u16,
    weights: Option<Weights>,
    meta: Option<HashMap<String, String>>,
    locality: Option<Locality>,
}

/// Where it is, as far as Consul was told.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Locality {
    #[serde(default)]
    zone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: i64,
}

/// The instances, and what is wrong with some. It is an error if something is wrong with all.
fn targets_of(answer: &[u8]) -> Result<(Vec<Target>, Option<String>), RemoteError> {
    let unreadable =
        |error: serde_json::Error| RemoteError::Unreadable(remote::printable(&error.to_string()));
    let list: Vec<Checked> = serde_json::from_slice(answer).map_err(unreadable)?;
    let mut targets = Vec::with_capacity(list.len());
    let mut fault = None;
    for checked in &list {
        match target_of(checked) {
            Some(target) => targets.push(target),
            None => {
                let id = remote::printable(&checked.service.id);
                fault.get_or_insert(format!("the instance {id} has no address with a port"));
            }
        }
    }
    // It promises no order.
    targets.sort_unstable_by(|a, b| a.authority.cmp(&b.authority));
    match fault {
        Some(fault) if targets.is_empty() => Err(RemoteError::Unreadable(fault)),
        fault => Ok((targets, fault)),
    }
}

fn target_of(checked: &Checked) -> Option<Target> {
    let host = match checked.service.address.trim() {
        "" => checked.node.address.trim(),
        address => address,
    };
    let weight = checked.service.weights.as_ref().map_or(1, |weights| weights.passing);
    // Zero is a very small chance, as it is in the SRV records that Consul makes of these.
    let weight = u32::try_from(weight.max(1)).unwrap_or(MAX_WEIGHT).min(MAX_WEIGHT);
    let target = at(&with_port(host, checked.service.port), weight, zone_of(checked)).ok()?;
    Some(target.with_priority(priority_of(&checked.service)))
}

/// What the service says of itself counts before what its node says.
fn zone_of(Checked { node, service }: &Checked) -> Option<Arc<str>> {
    let named = |meta: &Option<HashMap<String, String>>| meta.as_ref()?.get("zone").cloned();
    let located = |locality: &Option<Locality>| Some(locality.as_ref()?.zone.clone());
    let all = [named(&service.meta), located(&service.locality), named(&node.meta), located(&node.locality)];
    let zone = all.into_iter().flatten().find(|zone| !zone.is_empty() && zone.len() <= MAX_ZONE_BYTES);
    zone.map(Into::into)
}

/// Consul only keeps what a service says: what is no priority there is none.
fn priority_of(service: &Service) -> u8 {
    let priority = service.meta.as_ref().and_then(|meta| meta.get("priority")?.trim().parse::<u8>().ok());
    priority.unwrap_or(0).min(MAX_PRIORITY)
}

/// Text as a segment of a path or a value of a query (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(byte.into()),
            false => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_follow_the_rules() {
        assert_eq!(index_after(0, 17), 17);
        assert_eq!(index_after(17, 17), 17);
        assert_eq!(index_after(17, 18), 18);
        assert_eq!(index_after(17, 5), 0, "it went back");
        assert_eq!(index_after(0, 0), 1, "zero would never wait");
        let mut headers = HeaderMap::new();
        assert!(index_of(&headers).is_err());
        headers.insert("x-consul-index", HeaderValue::from_static("x"));
        assert!(index_of(&headers).is_err());
        headers.insert("x-consul-index", HeaderValue::from_static("17"));
        assert_eq!(index_of(&headers).ok(), Some(17));
    }

    #[test]
    fn a_list_is_read_as_consul_writes_it() {
        let (targets, fault) = targets_of(
            br#"[{"Node":{"ID":"x","Node":"n","Address":"10.0.0.9","Datacenter":"dc1"},
                  "Service":{"ID":"orders-2","Service":"orders","Tags":["v2"],"Address":"","Port":8002,
                             "Weights":{"Passing":3,"Warning":1}},"Checks":[{"Status":"passing"}]},
                 {"Node":{"Address":"10.0.0.9"},"Service":{"ID":"orders-1","Address":"::1","Port":8001,
                             "Weights":{"Passing":0,"Warning":0}}},
                 {"Node":{"Address":"10.0.0.9"},"Service":{"ID":"orders-3","Address":"Orders.Internal","Port":80}},
                 {"Node":{"Address":"10.0.0.9"},"Service":{"ID":"orders-4","Port":0}}]"#,
        )
        .expect("good");
        let read: Vec<_> = targets.iter().map(|target| (&*target.authority, target.weight)).collect();
        assert_eq!(read, [("10.0.0.9:8002", 3), ("[::1]:8001", 1), ("orders.internal:80", 1)]);
        assert_eq!(fault.as_deref(), Some("the instance orders-4 has no address with a port"));
        assert_eq!(targets_of(b"[]").expect("none is an answer"), (vec![], None));
    }

    #[test]
    fn zones_and_priorities_are_read_where_consul_has_them() {
        let read = |service: &str, node: &str| {
            let list = format!(
                r#"[{{"Node":{{"Address":"10.0.0.9"{node}}},"Service":{{"ID":"a","Address":"h","Port":80{service}}}}}]"#
            );
            let (targets, _) = targets_of(list.as_bytes()).expect("good");
            (targets[0].zone.as_deref().unwrap_or_default().to_owned(), targets[0].priority)
        };
        let located = r#","Locality":{"Region":"r","Zone":"b"}"#;
        assert_eq!(read("", ""), (String::new(), 0));
        assert_eq!(read(r#","Meta":{"zone":"a","priority":"2"}"#, located), ("a".to_owned(), 2));
        assert_eq!(read(located, r#","Meta":{"zone":"c"}"#), ("b".to_owned(), 0));
        assert_eq!(
            read(r#","Meta":{"zone":""},"Locality":null"#, r#","Meta":{"zone":"c"}"#),
            ("c".to_owned(), 0)
        );
        assert_eq!(read(r#","Meta":null"#, located), ("b".to_owned(), 0));
        for (priority, wanted) in [("200", 9), ("300", 0), ("-1", 0), ("first", 0), (" 1 ", 1)] {
            let meta = format!(r#","Meta":{{"priority":"{priority}"}}"#);
            assert_eq!(read(&meta, "").1, wanted, "{priority}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for answer in
            ["", "{}", "null", "<html>", "[{}]", r#"[{"Node":{"Address":"h"},"Service":{"Port":0}}]"#]
        {
            assert!(targets_of(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("orders-v2.x_~"), "orders-v2.x_~");
        assert_eq!(encoded("a/b?c&d é"), "a%2Fb%3Fc%26d%20%C3%A9");
    }
}
