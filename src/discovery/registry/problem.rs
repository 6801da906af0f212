//! Everything that the registry's API refuses, as problem documents (RFC 9457) with a stable code.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::body::BodyError;
use super::store::StoreError;
use crate::http::small_server::{self, SmallBody};

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    Body(#[from] BodyError),
    #[error("{0}")]
    InvalidName(#[from] super::InvalidMember),
    #[error("{0}")]
    InvalidQuery(String),
    #[error("send the registry's token as \"Authorization: Bearer …\"")]
    TokenMissing,
    #[error("this is not the registry's token")]
    TokenWrong,
    #[error(
        "the Host {0:?} is neither an IP address nor localhost, and this registry is for this machine only"
    )]
    HostNotAllowed(String),
    #[error(
        "there is nothing here: see POST /registry/register, /registry/heartbeat, /registry/deregister, \
             GET /registry/services, /registry/services/{{name}}, /registry/discover/{{name}}, /registry/watch/{{name}}"
    )]
    NotFound,
    #[error("{0} has no instance")]
    NoInstance(String),
    #[error("nobody has registered as {0}")]
    NoService(String),
    #[error("this takes {0}")]
    Method(&'static str),
    #[error("send the body with \"Content-Type: application/json\"")]
    MediaType,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("too many clients are watching: try again later")]
    TooManyWatchers,
}

impl ApiError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            ApiError::Body(BodyError::Json(_)) => (StatusCode::BAD_REQUEST, "invalid_json"),
            ApiError::Body(_) | ApiError::InvalidName(_) => (StatusCode::BAD_REQUEST, "invalid_member"),
            ApiError::InvalidQuery(_) => (StatusCode::BAD_REQUEST, "invalid_query"),
            ApiError::TokenMissing => (StatusCode::UNAUTHORIZED, "token_missing"),
            ApiError::TokenWrong => (StatusCode::UNAUTHORIZED, "token_wrong"),
            ApiError::HostNotAllowed(_) => (StatusCode::FORBIDDEN, "host_not_allowed"),
            ApiError::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            ApiError::NoInstance(_) => (StatusCode::NOT_FOUND, "no_instance"),
            ApiError::NoService(_) => (StatusCode::NOT_FOUND, "no_service"),
            ApiError::Store(StoreError::Unknown(_)) => (StatusCode::NOT_FOUND, "instance_unknown"),
            ApiError::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            ApiError::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            ApiError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "registry_full"),
            ApiError::TooManyWatchers => (StatusCode::SERVICE_UNAVAILABLE, "too_many_watchers"),
        }
    }

    /// The header field that the status demands or that helps to do better next time.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            ApiError::TokenMissing => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"registry\"")))
            }
            ApiError::TokenWrong => Some((
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"registry\", error=\"invalid_token\""),
            )),
            ApiError::Method(allowed) => Some((header::ALLOW, HeaderValue::from_static(allowed))),
            ApiError::MediaType => Some((header::ACCEPT, HeaderValue::from_static("application/json"))),
            ApiError::TooManyWatchers => Some((header::RETRY_AFTER, HeaderValue::from_static("5"))),
            _ => None,
        }
    }

    pub fn into_response(self) -> Response<SmallBody> {
        let (status, code) = self.status_and_code();
        let document = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "code": code,
        });
        let mut response = small_server::reply(status, "application/problem+json", document.to_string());
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
