//! `/api/...`: what the gateway knows about itself, as JSON, and reload.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Map, json};

use super::view::{ReloadOutcome, RouteStatus, ServiceStatus};
use super::{ControlSurface, reply};
use crate::http::small_server::SmallBody;

/// A reload that takes longer goes on, but its caller is told to look later.
const RELOAD_WAIT: Duration = Duration::from_secs(60);

pub(super) fn document(document: &impl Serialize) -> Response<SmallBody> {
    reply::json(StatusCode::OK, document)
}

/// A document that may tell of ten thousand instances: making it would hold up discovery and health checks.
pub(super) async fn large(
    surface: Arc<dyn ControlSurface>,
    document: impl FnOnce(&dyn ControlSurface) -> Response<SmallBody> + Send + 'static,
) -> Response<SmallBody> {
    let made = tokio::task::spawn_blocking(move || document(&*surface)).await;
    made.unwrap_or_else(|_| {
        reply::problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the document could not be made")
    })
}

pub(super) fn services(services: Vec<ServiceStatus>) -> Response<SmallBody> {
    document(&json!({ "services": services }))
}

pub(super) fn routes(routes: Vec<RouteStatus>) -> Response<SmallBody> {
    document(&json!({ "routes": routes }))
}

pub(super) async fn reload(surface: Arc<dyn ControlSurface>) -> Response<SmallBody> {
    // A task of its own, so that a caller who hangs up does not stop it halfway.
    let task = tokio::spawn(async move { surface.reload().await });
    match tokio::time::timeout(RELOAD_WAIT, task).await {
        Ok(Ok(outcome)) => reloaded(outcome),
        Ok(Err(_)) => reply::problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the reload failed"),
        Err(_) => reply::problem(
            StatusCode::GATEWAY_TIMEOUT,
            "reload_timeout",
            "the reload is still going on: see last_reload in /api/status",
        ),
    }
}

fn reloaded(outcome: ReloadOutcome) -> Response<SmallBody> {
    match outcome {
        ReloadOutcome::Applied { changes } => document(&json!({ "result": "applied", "changes": changes })),
        ReloadOutcome::Unchanged => document(&json!({ "result": "unchanged" })),
        ReloadOutcome::Refused { problems } => reply::problem_with(
            StatusCode::UNPROCESSABLE_ENTITY,
            "configuration_refused",
            "the new configuration has errors; the old one keeps serving",
            Map::from_iter([("result".into(), "refused".into()), ("problems".into(), json!(problems))]),
        ),
    }
}
