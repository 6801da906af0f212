//! The other side of the registry: an instance that keeps itself registered.
//!
//! It never gives up and never hurries: failures are retried after a pause that grows to a third of
//! the TTL, so that a registry that comes back is not run over.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;

use super::Announcement;
use crate::config::Secret;

/// For one request, from connecting to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Until the registry has said what its TTL is.
const ASSUMED_TTL: Duration = Duration::from_secs(30);
/// Between heartbeats, whatever TTL a registry claims to have.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the registry's URL must be http://host:port, not {0}")]
    Url(Uri),
    #[error("the registry's token can't be sent in a header")]
    Token,
    #[error("the registry can't be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the registry's answer broke off or was too large")]
    Answer(#[source] Box<dyn Error + Send + Sync>),
    #[error("the registry did not answer within {}s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the registry does not know the instance")]
    Unknown,
    #[error("the registry answered {status}: {detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("the registry's answer is not what a registry answers")]
    Unreadable(#[source] serde_json::Error),
}

/// One instance's connection to a registry.
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    /// `http://host:port`, without a path.
    registry: String,
    authorization: Option<HeaderValue>,
    announcement: Bytes,
}

/// What the client tells about itself, at each change.
#[derive(Debug)]
pub enum Event {
    Registered,
    Failed(ClientError),
}

impl Client {
    /// `registry` is `http://host:port`; a path is not allowed.
    pub fn new(
        registry: &Uri,
        announcement: &Announcement,
        token: Option<&Secret>,
    ) -> Result<Self, ClientError> {
        let authority = registry.authority().filter(|_| registry.scheme_str() == Some("http"));
        let authority = authority.filter(|_| registry.path() == "/" && registry.query().is_none());
        let authority = authority.ok_or_else(|| ClientError::Url(registry.clone()))?;
        let authorization = match token {
            Some(token) => {
                let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
                let mut value = value.map_err(|_| ClientError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build_http();
        let registry = format!("http://{authority}");
        Ok(Client { http, registry, authorization, announcement: announcement.to_json().into() })
    }

    /// Stays registered until `stop` is over, then deregisters, which takes at most two seconds.
    pub async fn run_until(&self, stop: impl Future<Output = ()>, on_event: impl FnMut(Event)) {
        tokio::select! {
            () = stop => {}
            never = self.keep_registered(on_event) => match never {},
        }
        // A registry that can't be reached now forgets the instance by itself.
        let _ = self.deregister().await;
    }

    /// Registers, sends heartbeats, and registers again whenever the registry has forgotten.
    pub async fn keep_registered(&self, mut on_event: impl FnMut(Event)) -> std::convert::Infallible {
        let mut interval = ASSUMED_TTL / 3;
        let mut registered = false;
        let mut failures = 0_u32;
        loop {
            let answer = match registered {
                false => self.register().await,
                true => self.heartbeat().await,
            };
            match answer {
                Ok(ttl) => {
                    if !registered || failures > 0 {
                        on_event(Event::Registered);
                    }
                    (registered, failures) = (true, 0);
                    interval = (ttl / 3).max(LEAST_INTERVAL);
                    tokio::time::sleep(interval).await;
                }
                // Registering follows at once: every moment is one without requests.
                Err(ClientError::Unknown) if registered => registered = false,
                Err(error) => {
                    if failures == 0 {
                        on_event(Event::Failed(error));
                    }
                    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(interval);
                    failures = failures.saturating_add(1);
                    // Half of it at random: instances that lost the registry together come back apart.
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                }
            }
        }
    }

    /// Returns the TTL within which heartbeats are expected.
    pub async fn register(&self) -> Result<Duration, ClientError> {
        self.post("register").await
    }

    /// Likewise.
    pub async fn heartbeat(&self) -> Result<Duration, ClientError> {
        self.post("heartbeat").await
    }

    pub async fn deregister(&self) -> Result<(), ClientError> {
        match self.post("deregister").await {
            Ok(_) | Err(ClientError::Unknown) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn post(&self, verb: &str) -> Result<Duration, ClientError> {
        tokio::time::timeout(TIMEOUT, self.exchange(verb)).await.unwrap_or(Err(ClientError::Timeout))
    }

    async fn exchange(&self, verb: &str) -> Result<Duration, ClientError> {
        let mut request = Request::new(Full::new(self.announcement.clone()));
        *request.method_mut() = Method::POST;
        let uri = format!("{}/registry/{verb}", self.registry).parse();
        *request.uri_mut() = uri.expect("an authority that was a URI's with a constant path is a URI");
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let response = self.http.request(request).await.map_err(ClientError::Unreachable)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(ClientError::Answer)?.to_bytes();
        if status.is_success() {
            let answer: Accepted = serde_json::from_slice(&body).map_err(ClientError::Unreadable)?;
            return Ok(answer.heartbeat_ttl_ms.map_or(ASSUMED_TTL, Duration::from_millis));
        }
        let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
        match problem.code.as_str() {
            "instance_unknown" => Err(ClientError::Unknown),
            _ => Err(ClientError::Refused { status, detail: problem.detail }),
        }
    }
}

#[derive(Deserialize)]
struct Accepted {
    heartbeat_ttl_ms: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    detail: String,
}
