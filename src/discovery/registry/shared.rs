//! `discovery: { registry: { address: … } }` — the instances that are registered under the service's own name at
//! the registry of another gateway.
//!
//! One stream of events for each service, which begins with the whole set. A registry has something to say every
//! few seconds, if only that there is nothing new: that is how one that hangs is noticed. Whatever goes wrong ends
//! in asking anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::event_stream::{EventReader, Piece, TooLarge};
use super::instance::{MAX_METADATA_BYTES, MAX_VERSION_BYTES};
use super::source::priority_in;
use super::watch::KEEP_ALIVE;
use crate::config::RegistrySource;
use crate::discovery::entry::{self, EntryError};
use crate::discovery::remote::{self, Clients, PATIENCE, Pauses, RemoteError, Told, printable};
use crate::discovery::target::{Target, Wanted};
use crate::http::fetch::{FetchError, Fetcher};
use crate::service::discovered::Description;

/// Twice what a registry's own set may come to: ten thousand instances with as much metadata as there may be.
const MAX_EVENT_BYTES: usize = 64 * 1024 * 1024;
/// A registry that was silent for so long hangs.
const SILENCE: Duration = KEEP_ALIVE.saturating_add(PATIENCE);

/// Keeps `wanted` at what the registry says. Runs until dropped.
pub async fn follow(source: RegistrySource, service_name: Arc<str>, wanted: watch::Sender<Wanted>) {
    let server = Server::new(&source, service_name);
    let mut told = Told::new(wanted);
    if let Some((client, uri)) = server.heart() {
        told.feel(client, uri);
    }
    let mut pauses = Pauses::default();
    loop {
        let Err(error) = server.session(&mut told, &mut pauses).await;
        told.failed(format!("{}: {error}", server.address));
        tokio::time::sleep(pauses.next(told.longest_pause())).await;
    }
}

struct Server {
    clients: Clients,
    /// `http://host:port`
    address: String,
    service_name: Arc<str>,
    authorization: Option<HeaderValue>,
}

impl Server {
    fn new(source: &RegistrySource, service_name: Arc<str>) -> Server {
        let authorization = source.token.as_ref().and_then(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Server {
            clients: remote::clients([&source.address.value]),
            address: source.address.value.to_string().trim_end_matches('/').to_owned(),
            service_name,
            authorization,
        }
    }

    /// Where it answers without looking anything up: there is nothing, and it needs no token to say so.
    fn heart(&self) -> Option<(&Fetcher, Uri)> {
        let uri = format!("{}/", self.address).parse().ok()?;
        Some((&self.clients.feeling, uri))
    }

    /// Follows one stream until it fails.
    async fn session(&self, told: &mut Told, pauses: &mut Pauses) -> Result<Infallible, RemoteError> {
        let mut stream = self.watch().await?;
        let mut patience = PATIENCE;
        let mut fault = None;
        loop {
            let piece = tokio::time::timeout(patience, stream.next()).await;
            match piece.unwrap_or(Err(FetchError::Timeout(patience).into()))? {
                Piece::Event { name, data } if &*name == b"instances" => {
                    let ours = self.service_name.clone();
                    let set = remote::read(data, move |data| read(data, &ours)).await?;
                    told.targets(set.targets);
                    told.metadata(set.metadata);
                    fault = set.fault;
                    pauses.reset();
                    patience = SILENCE;
                }
                Piece::Event { .. } | Piece::Comment => told.still(),
            }
            if patience == SILENCE {
                told.well(fault.clone());
            }
        }
    }

    async fn watch(&self) -> Result<Stream, RemoteError> {
        let mut request = Request::new(Full::<Bytes>::default());
        let uri = format!("{}/registry/watch/{}", self.address, self.service_name);
        *request.uri_mut() = uri.parse().map_err(|_| FetchError::Url)?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        let response = remote::ask(&self.clients.asking, request, PATIENCE).await?;
        let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !content_type.is_some_and(|is| is.to_ascii_lowercase().starts_with(b"text/event-stream")) {
            return Err(RemoteError::Unreadable("it is no stream of events".to_owned()));
        }
        Ok(Stream { body: response.into_body(), events: EventReader::new(MAX_EVENT_BYTES) })
    }
}

struct Stream {
    body: Incoming,
    events: EventReader,
}

impl Stream {
    /// Nothing is lost when this is dropped while it waits.
    async fn next(&mut self) -> Result<Piece, RemoteError> {
        loop {
            let piece = self.events.next();
            if let Some(piece) = piece.map_err(|TooLarge| FetchError::TooLarge(MAX_EVENT_BYTES))? {
                return Ok(piece);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.events.push(frame.data_ref().map_or(&[], |data| &data[..])),
                Some(Err(error)) => return Err(FetchError::Body(error.into()).into()),
                None => return Err(RemoteError::Ended),
            }
        }
    }
}

/// What a registry has told.
#[derive(Debug, PartialEq)]
struct Set {
    targets: Vec<Target>,
    metadata: Option<Arc<str>>,
    /// What is wrong with some of the instances.
    fault: Option<String>,
}

/// As it stands in an event. Members that a later registry may add are not looked at.
#[derive(Deserialize)]
struct WrittenSet<'a> {
    service_name: String,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    instances: Vec<WrittenInstance<'a>>,
}

#[derive(Deserialize)]
struct WrittenInstance<'a> {
    host: String,
    port: u16,
    weight: Option<u32>,
    zone: Option<String>,
    version: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

/// It is an error if something is wrong with all instances.
fn read(data: &[u8], ours: &str) -> Result<Set, RemoteError> {
    let unreadable = |error: serde_json::Error| RemoteError::Unreadable(printable(&error.to_string()));
    let set: WrittenSet<'_> = serde_json::from_slice(data).map_err(unreadable)?;
    if set.service_name != ours {
        let other = printable(&set.service_name);
        return Err(RemoteError::Unreadable(format!("it is about the service {other}")));
    }
    let mut targets = Vec::with_capacity(set.instances.len());
    let mut fault = None;
    for instance in &set.instances {
        match target_of(instance) {
            Ok(target) => targets.push(target),
            Err(error) => {
                let place = printable(&entry::with_port(&instance.host, instance.port));
                fault.get_or_insert(format!("the instance {place} can't be used: {error}"));
            }
        }
    }
    match fault {
        Some(fault) if targets.is_empty() => Err(RemoteError::Unreadable(fault)),
        fault => Ok(Set { targets, metadata: object(set.metadata), fault }),
    }
}

fn target_of(instance: &WrittenInstance<'_>) -> Result<Target, EntryError> {
    let authority = entry::with_port(&instance.host, instance.port);
    let zone = instance.zone.as_deref().map(Arc::from);
    let target = entry::at_weighted(&authority, instance.weight, zone, None)?;
    let priority = instance.metadata.map_or(0, |metadata| priority_in(metadata.get()));
    let version = instance.version.as_deref().filter(|version| version.len() <= MAX_VERSION_BYTES);
    let (version, metadata) = (version.map(Arc::from), object(instance.metadata));
    let given = version.is_some() || metadata.is_some();
    let description = given.then(|| Arc::new(Description { version, metadata }));
    Ok(Target { description, ..target.with_priority(priority) })
}

/// Metadata as a registry takes it, which this one need not be. An empty object is none.
fn object(metadata: Option<&RawValue>) -> Option<Arc<str>> {
    let text = metadata?.get();
    let good = text.starts_with('{') && text != "{}" && text.len() <= MAX_METADATA_BYTES;
    good.then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(instances: &str) -> Result<Set, String> {
        let text = format!(
            r#"{{"service_name":"users","version":7,"metadata":{{"team":"x"}},"new":[],"instances":[{instances}]}}"#
        );
        read(text.as_bytes(), "users").map_err(|error| error.to_string())
    }

    #[test]
    fn a_set_is_read_as_a_registry_writes_it() {
        let read = set(
            r#"{"service_name":"users","host":"::1","port":1,"weight":3,"zone":"z","version":"1.2","metadata":{"a":[1]}},
               {"service_name":"users","host":"users-2.internal","port":2,"weight":1,"metadata":{}}"#,
        )
        .expect("good");
        assert_eq!((read.metadata.as_deref(), &read.fault), (Some(r#"{"team":"x"}"#), &None));
        let [first, second] = &read.targets[..] else { panic!("{read:?}") };
        assert_eq!((&*first.authority, first.weight, first.zone.as_deref()), ("[::1]:1", 3, Some("z")));
        let description = first.description.as_ref().expect("given");
        assert_eq!(description.version.as_deref(), Some("1.2"));
        assert_eq!(description.metadata.as_deref(), Some(r#"{"a":[1]}"#));
        assert_eq!((&*second.authority, &second.description), ("users-2.internal:2", &None));
        assert_eq!(set("").expect("none is an answer").targets, []);
    }

    #[test]
    fn what_can_be_used_is_and_the_rest_is_told() {
        let good = r#"{"host":"10.0.0.1","port":1,"metadata":7,"version":null}"#;
        let read = set(&format!(r#"{good},{{"host":"a b","port":2}}"#)).expect("one is good");
        assert_eq!((read.targets.len(), &read.targets[0].description), (1, &None));
        let fault = "the instance a b:2 can't be used: its value is not http://host:port";
        assert_eq!(read.fault.as_deref(), Some(fault));
        let many = "x".repeat(3000);
        let large =
            format!(r#"{{"host":"10.0.0.1","port":1,"metadata":{{"a":"{many}"}},"version":"{many}"}}"#);
        assert_eq!(set(&large).expect("good").targets[0].description, None);
        for garbage in [
            r#"{"host":"10.0.0.1"}"#,
            r#"{"host":"10.0.0.1","port":70000}"#,
            r#"{"host":"10.0.0.1","port":0}"#,
            r#"{"host":"10.0.0.1","port":1,"weight":0}"#,
            r#"{"host":"10.0.0.1","port":1,"weight":-1}"#,
            "7",
            "{",
        ] {
            assert!(set(garbage).is_err(), "{garbage}");
        }
    }
}
