//! The operator's HTTP interface: health, metrics, what the gateway knows about itself, and reload.
//!
//! It runs on the control side and never touches traffic. It knows the gateway only through
//! [`ControlSurface`]. Every answer but those of `/health` and `/ready` is behind the guard.

mod api;
mod guard;
mod health;
mod metrics;
mod reply;
pub mod view;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::net::TcpListener;

use crate::config::Secret;
use crate::http::small_server::{self, SmallBody};
use crate::telemetry::metrics::Format;
use view::{GatewayStatus, ReloadOutcome, RouteStatus, ServiceStatus};

/// What the admin interface shows of the gateway and may ask of it.
pub trait ControlSurface: Send + Sync + 'static {
    fn ready(&self) -> Readiness;

    fn status(&self) -> GatewayStatus;

    /// This and what follows is called on a thread where it may take a while.
    fn services(&self) -> Vec<ServiceStatus>;

    fn routes(&self) -> Vec<RouteStatus>;

    fn metrics(&self, format: Format) -> String;

    /// Reads the configuration file again and waits for what comes of it. It runs to its end even
    /// when the one who asked has gone.
    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadOutcome> + Send + '_>>;
}

/// Whether traffic should be sent to this gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Its listeners are open and it has a configuration.
    Ready,
    /// With at least one reason, such as `draining`.
    NotReady(Vec<String>),
}

pub struct Admin {
    surface: Arc<dyn ControlSurface>,
    token: ArcSwapOption<Secret>,
}

impl Admin {
    pub fn new(surface: Arc<dyn ControlSurface>, token: Option<Secret>) -> Arc<Self> {
        Arc::new(Admin { surface, token: ArcSwapOption::new(token.map(Arc::new)) })
    }

    /// Holds from the next request on, on open connections too.
    pub fn set_token(&self, token: Option<Secret>) {
        self.token.store(token.map(Arc::new));
    }

    /// Serves until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        // When the address cannot be told, it is treated as the stricter case.
        let loopback = listener.local_addr().map_or(true, |address| address.ip().is_loopback());
        let handler = move |_peer: SocketAddr, request: Request<Bytes>| {
            let admin = self.clone();
            async move { finish(admin.answer(request, loopback).await) }
        };
        small_server::serve(listener, handler).await;
    }

    async fn answer(&self, request: Request<Bytes>, loopback: bool) -> Response<SmallBody> {
        let path = request.uri().path();
        if !matches!(path, "/health" | "/ready")
            && let Err(refusal) = guard::check(&request, loopback, self.token.load().as_deref())
        {
            return refusal;
        }
        let Some(allowed) = allowed_methods(path) else {
            return reply::problem(
                StatusCode::NOT_FOUND,
                "not_found",
                "there are /health, /ready, /metrics, /api/status, /api/services, /api/routes and /api/reload",
            );
        };
        if !allowed.contains(request.method()) {
            return method_not_allowed(allowed);
        }
        match path {
            "/health" => health::alive(),
            "/ready" => health::ready(self.surface.ready()),
            "/metrics" => metrics::scrape(self.surface.clone(), request.headers()).await,
            "/api/status" => api::document(&self.surface.status()),
            "/api/services" => api::large(self.surface.clone(), |it| api::services(it.services())).await,
            "/api/routes" => api::large(self.surface.clone(), |it| api::routes(it.routes())).await,
            _ => api::reload(self.surface.clone()).await,
        }
    }
}

/// `None`: there is nothing of that path.
fn allowed_methods(path: &str) -> Option<&'static [Method]> {
    match path {
        "/health" | "/ready" | "/metrics" | "/api/status" | "/api/services" | "/api/routes" => {
            Some(&[Method::GET, Method::HEAD])
        }
        "/api/reload" => Some(&[Method::POST]),
        _ => None,
    }
}

fn method_not_allowed(allowed: &[Method]) -> Response<SmallBody> {
    let names = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let mut response = reply::problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &format!("this path takes {names}"),
    );
    let names = HeaderValue::from_str(&names).expect("method names are visible ASCII");
    response.headers_mut().insert(header::ALLOW, names);
    response
}

fn finish(mut response: Response<SmallBody>) -> Response<SmallBody> {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
