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
use tokio::sync::watch;

use super::event_stream::{EventReader, Piece, TooLarge};
use super::source::Placing;
use super::watch::KEEP_ALIVE;
use crate::config::RegistrySource;
use crate::discovery::entry::{self, EntryError};
use crate::discovery::remote::{self, Clients, PATIENCE, Pauses, RemoteError, Told, printable};
use crate::discovery::target::{Target, Wanted};
use crate::http::fetch::{FetchError, Fetcher};

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
                    let (targets, now) = remote::read(data, move |data| targets_of(data, &ours)).await?;
                    told.targets(targets);
                    fault = now;
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

/// What is told of a service. Members that a later registry may add are not looked at.
#[derive(Deserialize)]
struct Set {
    service_name: String,
    instances: Vec<Registered>,
}

#[derive(Deserialize)]
struct Registered {
    host: String,
    port: u16,
    weight: Option<u32>,
    zone: Option<String>,
    #[serde(default)]
    metadata: Placing,
}

/// The instances, and what is wrong with some. It is an error if something is wrong with all.
fn targets_of(data: &[u8], ours: &str) -> Result<(Vec<Target>, Option<String>), RemoteError> {
    let unreadable = |error: serde_json::Error| RemoteError::Unreadable(printable(&error.to_string()));
    let set: Set = serde_json::from_slice(data).map_err(unreadable)?;
    if set.service_name != ours {
        let other = printable(&set.service_name);
        return Err(RemoteError::Unreadable(format!("it is about the service {other}")));
    }
    let mut targets = Vec::with_capacity(set.instances.len());
    let mut fault = None;
    for registered in &set.instances {
        match target_of(registered) {
            Ok(target) => targets.push(target),
            Err(error) => {
                let place = printable(&entry::with_port(&registered.host, registered.port));
                fault.get_or_insert(format!("the instance {place} can't be used: {error}"));
            }
        }
    }
    match fault {
        Some(fault) if targets.is_empty() => Err(RemoteError::Unreadable(fault)),
        fault => Ok((targets, fault)),
    }
}

fn target_of(registered: &Registered) -> Result<Target, EntryError> {
    let authority = entry::with_port(&registered.host, registered.port);
    let zone = registered.zone.as_deref().map(Arc::from);
    let target = entry::at_weighted(&authority, registered.weight, zone, None)?;
    Ok(target.with_priority(registered.metadata.priority()))
}
