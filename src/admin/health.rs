//! `/health`: the process is alive. `/ready`: traffic should be sent here.

use http::{Response, StatusCode};
use serde_json::json;

use super::{Readiness, reply};
use crate::http::small_server::SmallBody;

pub(super) fn alive() -> Response<SmallBody> {
    reply::json(StatusCode::OK, &json!({ "status": "ok" }))
}

pub(super) fn ready(readiness: Readiness) -> Response<SmallBody> {
    match readiness {
        Readiness::Ready => reply::json(StatusCode::OK, &json!({ "status": "ready" })),
        Readiness::NotReady(reasons) => {
            let document = json!({ "status": "not_ready", "reasons": reasons });
            reply::json(StatusCode::SERVICE_UNAVAILABLE, &document)
        }
    }
}
