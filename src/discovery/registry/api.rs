//! The registry's HTTP API.
//!
//! A browser on this machine can reach a loopback port too. Three rules keep foreign pages out: a
//! body must be declared as JSON (which a form can't do and a script may not without being asked),
//! a loopback registry answers only to hosts that no foreign name can stand for (DNS rebinding),
//! and there are no CORS headers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

use super::body;
use super::instance::{Instance, Metadata, Written, service_name_of};
use super::problem::ApiError;
use super::store::{Listed, Registered, Store};
use super::watch;
use crate::config::Secret;
use crate::http::small_server::{self, SmallBody};

/// Connections at one time: heartbeats come over short ones, and every watcher has one for itself.
const MAX_CONNECTIONS: usize = 2048;

/// What clients have to send, if anything; it can be replaced while the API is served.
pub type TokenSlot = Arc<ArcSwapOption<Secret>>;

/// Serves the API until dropped.
pub async fn serve(listener: TcpListener, store: Arc<Store>, token: TokenSlot) {
    // A listener that can't tell its address is treated like one for this machine only.
    let for_this_machine = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let api = Arc::new(Api::new(store, token, for_this_machine));
    small_server::serve_up_to(MAX_CONNECTIONS, listener, move |_peer, request| {
        let api = api.clone();
        async move { api.respond(request).await }
    })
    .await;
}

pub(super) struct Api {
    store: Arc<Store>,
    token: TokenSlot,
    for_this_machine: bool,
}

type Answer = Result<Response<SmallBody>, ApiError>;

impl Api {
    pub(super) fn new(store: Arc<Store>, token: TokenSlot, for_this_machine: bool) -> Self {
        Api { store, token, for_this_machine }
    }

    pub(super) async fn respond(&self, request: Request<Bytes>) -> Response<SmallBody> {
        self.answer(request).await.unwrap_or_else(ApiError::into_response)
    }

    async fn answer(&self, request: Request<Bytes>) -> Answer {
        self.check_host(&request)?;
        self.check_token(request.headers())?;
        let path = request.uri().path();
        let rest = path.strip_prefix("/registry/").ok_or(ApiError::NotFound)?;
        match rest.split_once('/').unwrap_or((rest, "")) {
            ("register", "") => self.register(posted(&request)?),
            ("heartbeat", "") => self.heartbeat(posted(&request)?),
            ("deregister", "") => self.deregister(posted(&request)?),
            ("services", "") => fetched(&request).map(|()| self.list()),
            ("services", name) => {
                fetched(&request)?;
                self.one(name)
            }
            ("discover", name) if !name.is_empty() => {
                fetched(&request)?;
                self.discover(name)
            }
            ("watch", name) if !name.is_empty() => {
                fetched(&request)?;
                let name = service_name_of(name)?;
                watch::answer(&self.store, &name, request.uri().query(), request.headers()).await
            }
            _ => Err(ApiError::NotFound),
        }
    }

    fn check_host(&self, request: &Request<Bytes>) -> Result<(), ApiError> {
        let Some(host) = named_host(request.uri(), request.headers()).filter(|_| self.for_this_machine)
        else {
            return Ok(());
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
        match bare.parse::<IpAddr>().is_ok() || bare.eq_ignore_ascii_case("localhost") {
            true => Ok(()),
            false => Err(ApiError::HostNotAllowed(host)),
        }
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(token) = &*self.token.load() else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).ok_or(ApiError::TokenMissing)?.as_bytes();
        let (scheme, guess) = given.split_at_checked(7).ok_or(ApiError::TokenMissing)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(ApiError::TokenMissing);
        }
        if token.matches(guess.trim_ascii()) { Ok(()) } else { Err(ApiError::TokenWrong) }
    }

    fn register(&self, body: &[u8]) -> Answer {
        let announcement = body::announcement(body)?;
        let registered = self.store.register(announcement)?;
        Ok(accepted("registered", registered))
    }

    fn heartbeat(&self, body: &[u8]) -> Answer {
        let announcement = body::announcement(body)?;
        let registered = self.store.heartbeat(announcement)?;
        Ok(accepted("alive", registered))
    }

    fn deregister(&self, body: &[u8]) -> Answer {
        let announcement = body::announcement(body)?;
        self.store.deregister(&announcement.key)?;
        Ok(small_server::json(StatusCode::OK, &json!({ "status": "deregistered" })))
    }

    fn discover(&self, name: &str) -> Answer {
        let name = service_name_of(name)?;
        let instance =
            self.store.discover(&name).ok_or_else(|| ApiError::NoInstance(name.as_ref().to_owned()))?;
        let url = format!("http://{}", instance.key.authority());
        Ok(document(&Chosen { instance: instance.written(), url }))
    }

    fn list(&self) -> Response<SmallBody> {
        let listed = self.store.list();
        let services = listed.iter().map(|listed| (&*listed.service_name, ListedService::of(listed)));
        document(&Services { services: services.collect() })
    }

    fn one(&self, name: &str) -> Answer {
        let name = service_name_of(name)?;
        let listed = self.store.listed(&name).ok_or_else(|| ApiError::NoService(name.as_ref().to_owned()))?;
        Ok(document(&ListedService::of(&listed)))
    }
}

#[derive(Serialize)]
struct Chosen<'a> {
    #[serde(flatten)]
    instance: Written<'a>,
    url: String,
}

#[derive(Serialize)]
struct Services<'a> {
    services: BTreeMap<&'a str, ListedService<'a>>,
}

#[derive(Serialize)]
struct ListedService<'a> {
    version: u64,
    metadata: &'a Metadata,
    instances: Vec<ListedInstance<'a>>,
}

#[derive(Serialize)]
struct ListedInstance<'a> {
    #[serde(flatten)]
    instance: Written<'a>,
    last_heartbeat_ms_ago: u64,
}

impl<'a> ListedService<'a> {
    fn of(listed: &'a Listed) -> Self {
        let instance = |(instance, silence): &'a (Arc<Instance>, Duration)| ListedInstance {
            instance: instance.written(),
            last_heartbeat_ms_ago: silence.as_millis() as u64,
        };
        ListedService {
            version: listed.version,
            metadata: &listed.metadata,
            instances: listed.instances.iter().map(instance).collect(),
        }
    }
}

fn document(document: &impl Serialize) -> Response<SmallBody> {
    // Nothing of it can fail to be JSON.
    let text = serde_json::to_vec(document).unwrap_or_default();
    small_server::reply(StatusCode::OK, "application/json", text)
}

fn accepted(status: &str, registered: Registered) -> Response<SmallBody> {
    let document = json!({
        "status": status,
        "created": registered.created,
        "version": registered.version,
        "heartbeat_ttl_ms": registered.heartbeat_ttl.as_millis() as u64,
    });
    small_server::json(StatusCode::OK, &document)
}

/// The body of a request that must be a POST of JSON.
fn posted(request: &Request<Bytes>) -> Result<&[u8], ApiError> {
    if request.method() != Method::POST {
        return Err(ApiError::Method("POST"));
    }
    let declared = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = declared.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    // A page can post other types to any address without being asked about it, but its browser says that it
    // is a page; `curl -d`, which declares a form, is not.
    if is_from_page(request.headers()) && !essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::MediaType);
    }
    Ok(request.body())
}

/// Browsers send at least one of these with every POST (Fetch standard, "HTTP-network-or-cache fetch").
fn is_from_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

fn fetched(request: &Request<Bytes>) -> Result<(), ApiError> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(ApiError::Method("GET, HEAD")),
    }
}

/// The host that the client believes it speaks to, without a port. `None` when it names none, which
/// no browser does.
fn named_host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let authority = match uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => String::from_utf8_lossy(headers.get(header::HOST)?.as_bytes()).into_owned(),
    };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => &authority,
    };
    Some(host.to_owned())
}
