//! One etcd server, asked through its HTTP gateway.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::wire::{self, Listed, News};
use crate::config::{EtcdLogin, EtcdSource};
use crate::discovery::remote::{self, Clients, PATIENCE, RemoteError};
use crate::http::fetch::{FetchError, Fetcher};
use crate::service::discovered::MAX_INSTANCES;

/// Enough for as many instances as a set holds, with a kilobyte and a half for each.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

pub struct Server {
    clients: Clients,
    prefix: String,
    login: Option<EtcdLogin>,
    /// `http://host:port`
    address: String,
    token: Option<HeaderValue>,
}

impl Server {
    pub fn new(source: &EtcdSource) -> Server {
        Server {
            clients: remote::clients(source.endpoints.iter().map(|endpoint| &endpoint.value)),
            prefix: source.prefix.clone(),
            login: source.login.clone(),
            address: String::new(),
            token: None,
        }
    }

    /// From now on that one is asked.
    pub fn turn_to(&mut self, endpoint: &Uri) {
        self.address = endpoint.to_string().trim_end_matches('/').to_owned();
        self.token = None;
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it says something that it needs nobody for.
    pub fn heart(&self) -> Option<(&Fetcher, Uri)> {
        let uri = format!("{}/version", self.address).parse().ok()?;
        Some((&self.clients.feeling, uri))
    }

    /// All keys, or the first of them. A quorum has agreed on the answer.
    pub async fn list(&mut self) -> Result<Listed, RemoteError> {
        self.ask_range(wire::range(&self.prefix, MAX_INSTANCES)).await
    }

    /// Only their number and the revision.
    pub async fn count(&mut self) -> Result<Listed, RemoteError> {
        self.ask_range(wire::count(&self.prefix)).await
    }

    async fn ask_range(&mut self, question: Value) -> Result<Listed, RemoteError> {
        let response = self.ask("/v3/kv/range", &question).await?;
        remote::read(remote::whole(response, MAX_ANSWER_BYTES).await?, wire::listed).await
    }

    /// The changes from a revision on.
    pub async fn watch(&mut self, from_revision: u64) -> Result<Watch, RemoteError> {
        let response = self.ask("/v3/watch", &wire::watch(&self.prefix, from_revision)).await?;
        Ok(Watch { body: response.into_body(), received: BytesMut::new(), searched: 0 })
    }

    /// A token lasts for minutes only, and none outlives a restart of the server.
    async fn ask(&mut self, path: &str, question: &Value) -> Result<Response<Incoming>, RemoteError> {
        if self.login.is_some() && self.token.is_some() {
            match self.post(path, question).await {
                Err(RemoteError::Refused { status: StatusCode::UNAUTHORIZED, .. }) => self.token = None,
                outcome => return outcome,
            }
        }
        self.authenticate().await?;
        self.post(path, question).await
    }

    async fn authenticate(&mut self) -> Result<(), RemoteError> {
        let Some(login) = &self.login else { return Ok(()) };
        let question = json!({ "name": login.username, "password": login.password.expose() });
        let response = self.post("/v3/auth/authenticate", &question).await?;
        let token = wire::token(&remote::whole(response, 64 * 1024).await?)?;
        let mut token = HeaderValue::try_from(token)
            .map_err(|_| RemoteError::Unreadable("its token can't be sent in a header".to_owned()))?;
        token.set_sensitive(true);
        self.token = Some(token);
        Ok(())
    }

    async fn post(&self, path: &str, question: &Value) -> Result<Response<Incoming>, RemoteError> {
        let mut request = Request::new(Full::new(Bytes::from(question.to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{}{path}", self.address).parse().map_err(|_| FetchError::Url)?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        remote::ask(&self.clients.asking, request, PATIENCE).await
    }
}

/// A watch: one answer that goes on for as long as it is read, a line for each change.
pub struct Watch {
    body: Incoming,
    received: BytesMut,
    /// How much of that holds no end of a line.
    searched: usize,
}

impl Watch {
    /// The next line. Nothing is lost when this is dropped while it waits.
    pub async fn next(&mut self) -> Result<News, RemoteError> {
        loop {
            let end = memchr::memchr(b'\n', &self.received[self.searched..]);
            if let Some(end) = end {
                let line = self.received.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return wire::news(&line);
            }
            self.searched = self.received.len();
            if self.received.len() > MAX_ANSWER_BYTES {
                return Err(FetchError::TooLarge(MAX_ANSWER_BYTES).into());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.received.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]))
                }
                Some(Err(error)) => return Err(FetchError::Body(error.into()).into()),
                None => return Err(RemoteError::Ended),
            }
        }
    }
}
