//! The admin interface's documents and problem documents.

use http::{Response, StatusCode};
use serde::Serialize;

use crate::http::small_server::{SmallBody, reply};

/// Indented: people read these with curl.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response<SmallBody> {
    typed(status, "application/json", document)
}

/// RFC 9457. `code` is stable.
pub(super) fn problem(status: StatusCode, code: &str, detail: &str) -> Response<SmallBody> {
    problem_with(status, code, detail, serde_json::Map::new())
}

pub(super) fn problem_with(
    status: StatusCode,
    code: &str,
    detail: &str,
    more: serde_json::Map<String, serde_json::Value>,
) -> Response<SmallBody> {
    #[derive(Serialize)]
    struct Problem<'a> {
        status: u16,
        title: &'a str,
        detail: &'a str,
        code: &'a str,
        #[serde(flatten)]
        more: serde_json::Map<String, serde_json::Value>,
    }
    let title = status.canonical_reason().unwrap_or("Error");
    let problem = Problem { status: status.as_u16(), title, detail, code, more };
    typed(status, "application/problem+json", &problem)
}

fn typed(status: StatusCode, content_type: &'static str, document: &impl Serialize) -> Response<SmallBody> {
    let mut text = serde_json::to_string_pretty(document)
        .expect("our documents have string keys and serialise without errors of their own");
    text.push('\n');
    reply(status, content_type, text)
}
