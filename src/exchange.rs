//! One request and its response, with all that is known about it. It lives until the last byte of the
//! response is gone, in whichever way that comes about, and is then counted and logged.

mod flow;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::http::body::{ClientBody, RequestBody};
use crate::http::fields::Fields;
use crate::http::forwarded::Scheme;
use crate::http::request_id::RequestId;
use crate::http::target::Target;
use crate::http::trace::TraceContext;
use crate::identity::Identity;
use crate::listener::{Connection, Upgrade};
use crate::policy::rate_limit::{Decision, RateLimiter};
use crate::reason::Reason;
use crate::route::{Params, Place};
use crate::service::{Copying, InformationalSink, Progress, Service, UpstreamBody};
use crate::telemetry::metrics::Finished;
use crate::telemetry::record::{Asked, LogRecord};
use crate::worker::{CurrentRoute, CurrentSnapshot};

pub use self::flow::{Desk, Flow};

/// A request as its connection hands it over.
pub struct Arrived {
    pub method: Method,
    pub version: Version,
    pub incoming: Incoming,
    /// The client's side of a tunnel, where it asked for one (RFC 9110 §7.8).
    pub upgrade: Option<Upgrade>,
    /// Where interim responses go.
    pub interim: Option<Rc<dyn InformationalSink>>,
}

/// What of a request is still to be understood.
pub struct Incoming {
    pub target: Target,
    pub fields: Fields,
    pub body: ClientBody,
    /// The length that the head announces.
    pub declared: Option<u64>,
}

/// What the service side of a request came to.
#[derive(Default)]
pub struct UpstreamRecord {
    pub service: Option<Arc<str>>,
    pub asked: Asked,
    pub attempts: u32,
    pub began: Option<Instant>,
    pub took: Option<Duration>,
}

impl UpstreamRecord {
    /// The record of a call to `service`, as it goes on.
    pub fn of(&mut self, service: &Service) -> &mut Self {
        self.service = Some(service.name.clone());
        self
    }
}

impl Progress for UpstreamRecord {
    fn attempt(&mut self, instance: SocketAddr, at: Instant) {
        self.asked = Asked::Instance(instance);
        self.attempts += 1;
        self.began.get_or_insert(at);
    }

    fn withdrawn(&mut self) {
        self.attempts -= 1;
    }

    fn answered_by(&mut self, instance: SocketAddr) {
        self.asked = Asked::Instance(instance);
    }
}

pub struct Exchange {
    pub connection: Rc<Connection>,
    pub snapshot: CurrentSnapshot,
    pub started: Instant,
    pub method: Method,
    pub version: Version,
    /// Until it is understood.
    pub incoming: Option<Incoming>,
    pub client: IpAddr,
    /// Both are known as soon as the head has been read.
    pub request_id: Option<RequestId>,
    pub trace: Option<TraceContext>,
    /// Lower case, without port.
    pub host: Option<Rc<str>>,
    /// The normalised path, without the query.
    pub path: String,
    pub query: Option<String>,
    pub origin: Option<HeaderValue>,
    pub route: Option<CurrentRoute>,
    pub params: Params,
    pub identity: Option<Arc<Identity>>,
    /// The limits that were asked, with what they said.
    pub spent: Vec<(Arc<RateLimiter>, Decision)>,
    pub body: Option<Rc<RequestBody>>,
    pub upgrade: Option<Upgrade>,
    pub interim: Option<Rc<dyn InformationalSink>>,
    pub upstream: UpstreamRecord,
    pub reason: Option<Reason>,
    /// The request came with a body, whether or not anyone has taken it.
    has_body: bool,
    /// It was answered as a browser's preflight.
    pub is_preflight: bool,
    status: Option<StatusCode>,
    sent: u64,
    complete: bool,
    /// When the last of the response's body was taken, or it broke off.
    ended: Option<Instant>,
    /// When the response was out, if that is known already.
    over: Option<Instant>,
}

impl Exchange {
    pub fn begin(connection: Rc<Connection>, arrived: Arrived) -> Box<Self> {
        let snapshot = connection.worker.snapshot();
        Self::of(connection, snapshot, arrived)
    }

    /// For a request that came within another one, by whose snapshot it is served.
    pub fn within(outer: &Exchange, arrived: Arrived) -> Box<Self> {
        Self::of(outer.connection.clone(), outer.snapshot.clone(), arrived)
    }

    // As `pipeline::respond`.
    #[inline(always)]
    fn of(connection: Rc<Connection>, snapshot: CurrentSnapshot, arrived: Arrived) -> Box<Self> {
        let Arrived { method, version, incoming, upgrade, interim } = arrived;
        connection.worker.request_began();
        Box::new(Exchange {
            started: Instant::now(),
            method,
            version,
            client: connection.facts.peer(),
            request_id: None,
            trace: None,
            host: None,
            path: String::new(),
            query: None,
            origin: None,
            route: None,
            params: Params::default(),
            identity: None,
            spent: Vec::new(),
            body: None,
            upgrade,
            interim,
            upstream: UpstreamRecord::default(),
            reason: None,
            has_body: !matches!(incoming.body, ClientBody::Empty),
            incoming: Some(incoming),
            is_preflight: false,
            status: None,
            sent: 0,
            complete: false,
            ended: None,
            over: None,
            snapshot,
            connection,
        })
    }

    /// For a request whose head could not be read: there is nothing to know but the connection.
    pub fn unread(connection: Rc<Connection>) -> Box<Self> {
        let target = Target::Uri(http::Uri::default());
        let incoming = Incoming { target, fields: Fields::new(), body: ClientBody::Empty, declared: None };
        let arrived = Arrived {
            method: Method::GET,
            version: Version::HTTP_11,
            incoming,
            upgrade: None,
            interim: None,
        };
        let mut exchange = Self::begin(connection, arrived);
        exchange.request_id = Some(RequestId::fresh());
        exchange
    }

    /// The route that takes the request; it counts as active there from now on.
    pub fn routed(&mut self, place: Place, params: Params) {
        let route = CurrentRoute::new(&self.snapshot, place);
        self.connection.worker.tally.began(route.clone());
        self.route = Some(route);
        self.params = params;
    }

    /// Fixes the status that goes out; from here on only the body can still fail.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The client is refused while it sends a body: its connection can't carry another request.
    pub fn leaves_body_behind(&self) -> bool {
        self.has_body && self.body.as_ref().is_none_or(|body| body.is_left_behind())
    }

    fn finish(&mut self) {
        let worker = self.connection.worker.clone();
        let now = self.over.unwrap_or_else(Instant::now);
        let duration = now - self.started;
        let body = self.body.as_ref();
        let received = body.map_or(0, |body| body.received());
        if !self.complete && self.reason.is_none() {
            self.reason = Some(Reason::ClientGone);
        }
        let status = self.status.map_or(Reason::ClientGone.status().as_u16(), |status| status.as_u16());
        let upstream =
            self.upstream.took.or(self.upstream.began.map(|began| self.ended.unwrap_or(now) - began));
        if worker.log.enabled() {
            worker.log.push(self.record(status, received, duration, upstream));
        }
        let finished = Finished {
            status,
            reason: self.reason,
            duration,
            upstream,
            bytes_in: received,
            bytes_out: self.sent,
        };
        match self.route.take() {
            Some(route) => worker.tally.ended(route, finished),
            None => {
                worker.unrouted.begin();
                worker.unrouted.finish(&finished);
            }
        }
    }

    fn record(
        &mut self,
        status: u16,
        received: u64,
        duration: Duration,
        upstream: Option<Duration>,
    ) -> LogRecord {
        LogRecord {
            time: SystemTime::now() - duration,
            request_id: self.request_id.take(),
            trace_id: self.trace.map_or([0; 16], |trace| trace.trace_id.to_bytes()),
            client: self.client,
            method: self.method.clone(),
            host: self.host.as_deref().map(|host| Bytes::copy_from_slice(host.as_bytes())),
            path: std::mem::take(&mut self.path).into(),
            route: self.route.as_ref().map(|route| route.name().clone()),
            service: self.upstream.service.take(),
            asked: std::mem::take(&mut self.upstream.asked),
            status,
            reason: self.reason,
            bytes_in: received,
            bytes_out: self.sent,
            duration,
            upstream_duration: upstream,
            attempts: u8::try_from(self.upstream.attempts).unwrap_or(u8::MAX),
            subject: self.identity.as_ref().and_then(|identity| identity.subject.as_deref().map(Arc::from)),
            protocol: self.version,
            listener: Some(self.connection.settings.name.clone()),
            tls: self.connection.facts.scheme() == Scheme::Https,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The body of a response on its way to the client. It owns the exchange: when it goes, that is over.
pub struct ResponseBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
}

pub enum Content {
    /// Whole and in memory; empty once it is sent.
    Whole(Bytes),
    /// As an instance sends it.
    Upstream(UpstreamBody),
    /// Likewise, and kept for the time of errors.
    Copied(Box<Copying>),
    /// Written while it goes out.
    Written(Box<Flow>),
}

impl Content {
    fn is_end(&self) -> bool {
        match self {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Upstream(body) => body.is_end_stream(),
            Content::Copied(body) => body.is_end_stream(),
            Content::Written(flow) => flow.is_end(),
        }
    }

    /// What has become known of the service side by it.
    fn tell(&self, exchange: &mut Exchange) {
        if let Content::Written(flow) = self
            && let Some(record) = flow.news()
        {
            exchange.upstream = record;
        }
    }
}

impl ResponseBody {
    pub fn new(content: Content, mut exchange: Box<Exchange>) -> Self {
        // No frame is ever taken of a body that is empty or stays behind (HEAD): it is complete now.
        exchange.complete = exchange.method == Method::HEAD || content.is_end();
        ResponseBody { content, exchange: Some(exchange) }
    }

    /// Its last frame is as good as sent: nobody has to look at the clock again.
    pub fn end(mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.over = exchange.ended;
        }
    }

    /// Nobody takes the rest of it, for that reason.
    pub fn give_up(mut self, reason: Reason) {
        if let Some(exchange) = &mut self.exchange {
            exchange.reason = Some(reason);
        }
    }

    /// The field of the response that says which request it is to.
    pub fn request_id(&self) -> Option<(&HeaderName, &[u8])> {
        let exchange = self.exchange.as_ref()?;
        Some((&exchange.snapshot.request_id_header, exchange.request_id.as_ref()?.as_bytes()))
    }

    /// Sends on what is left of the request while the client takes nothing of the response.
    pub fn send_on(&mut self, cx: &mut Context<'_>) {
        match &mut self.content {
            Content::Whole(_) => {}
            Content::Upstream(body) => body.send_on(cx),
            Content::Copied(body) => body.send_on(cx),
            Content::Written(flow) => flow.write_on(cx),
        }
        if let Some(exchange) = &mut self.exchange {
            self.content.tell(exchange);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Reason;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let this = &mut *self;
        let polled = match &mut this.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Upstream(body) => Pin::new(body).poll_frame(cx),
            Content::Copied(body) => Pin::new(&mut **body).poll_frame(cx),
            Content::Written(flow) => flow.poll_frame(cx),
        };
        let Some(exchange) = this.exchange.as_mut() else { return polled };
        this.content.tell(exchange);
        match &polled {
            Poll::Pending => return polled,
            Poll::Ready(None) => exchange.complete = true,
            Poll::Ready(Some(Err(reason))) => exchange.reason = Some(*reason),
            Poll::Ready(Some(Ok(frame))) => {
                exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                exchange.complete = this.content.is_end();
            }
        }
        if exchange.complete || exchange.reason.is_some() {
            exchange.ended = Some(Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(body) => body.size_hint(),
            Content::Copied(body) => body.size_hint(),
            Content::Written(_) => SizeHint::default(),
        }
    }
}
