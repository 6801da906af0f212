//! One part of an aggregate: a call to a service whose answer must be JSON, whole and not too large.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::exchange::Exchange;
use crate::http::body::{ClientBody, RequestBody};
use crate::http::field_lines::FieldLines;
use crate::http::fields::Fields;
use crate::http::target;
use crate::http::template::Template;
use crate::reason::Reason;
use crate::service::{self, Call, CallError, Caller, Head, Progress, Service, UpstreamBody, Wish};

pub struct Part {
    pub name: Arc<str>,
    pub service: Arc<Service>,
    pub path: Template,
    pub required: bool,
    /// Compact JSON that stands in for a part that failed.
    pub fallback: Bytes,
    pub max_body: u64,
}

/// Why there is no answer of a part to put in.
#[derive(Debug)]
pub enum PartError {
    Call(CallError),
    /// The instance answered, with a status that is no success.
    Status(StatusCode),
    /// The body broke off or stood still.
    Body(Reason),
    TooLarge,
    NotJson,
    TimedOut,
    BadPath,
}

impl PartError {
    /// What `_errors` says of it, and the log where the part was required.
    pub fn reason(&self) -> Reason {
        match self {
            PartError::Call(error) => error.reason(),
            PartError::Status(StatusCode::NOT_FOUND) => Reason::PartNotFound,
            PartError::Status(_) => Reason::PartFailed,
            PartError::Body(reason) => *reason,
            PartError::TooLarge => Reason::PartTooLarge,
            PartError::NotJson => Reason::PartNotJson,
            PartError::TimedOut => Reason::PartTimeout,
            PartError::BadPath => Reason::InvalidPath,
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            PartError::Status(status) => *status,
            other => other.reason().status(),
        }
    }

    /// The reason of the whole, when the part was required: its 404 stays 404, the rest is 502 or 504.
    pub fn reason_of_whole(&self) -> Reason {
        let reason = self.reason();
        match reason.status() {
            StatusCode::NOT_FOUND | StatusCode::BAD_GATEWAY => reason,
            StatusCode::GATEWAY_TIMEOUT => Reason::PartTimeout,
            _ => Reason::PartFailed,
        }
    }
}

impl Part {
    /// Fetches the part. Dropping the future cancels the call.
    pub async fn fetch(
        &self,
        caller: Caller<'_>,
        target: Option<PathAndQuery>,
        wish: Wish,
        (headers, lines): (Fields, FieldLines),
        deadline: Instant,
        progress: &mut dyn Progress,
    ) -> Result<Bytes, PartError> {
        let target = target.ok_or(PartError::BadPath)?;
        let call = Call {
            head: Head { method: Method::GET, target, host: None, headers, lines, informational: None },
            body: RequestBody::new(ClientBody::Empty, None, None),
            deadline: Some(deadline),
            wish,
        };
        let fetched = async {
            let answer =
                service::call(&self.service, caller, &call, progress).await.map_err(PartError::Call)?;
            let status = answer.response.status;
            if !status.is_success() {
                return Err(PartError::Status(status));
            }
            let whole = collect(answer.body, self.max_body).await?;
            if status == StatusCode::NO_CONTENT { Ok(Bytes::from_static(b"null")) } else { json(whole) }
        };
        tokio::time::timeout_at(deadline, fetched).await.unwrap_or(Err(PartError::TimedOut))
    }

    pub fn target(&self, exchange: &Exchange) -> Option<PathAndQuery> {
        target::path_of(self.path.render(&exchange.path, &exchange.params))
    }
}

async fn collect(mut body: UpstreamBody, limit: u64) -> Result<Bytes, PartError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(PartError::Body)?.into_data() else { continue };
        if (whole.len() + data.len()) as u64 > limit {
            return Err(PartError::TooLarge);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Checks that it is one JSON value, without building it, and cuts the space around it off.
fn json(whole: Bytes) -> Result<Bytes, PartError> {
    let value: &RawValue = serde_json::from_slice(&whole).map_err(|_| PartError::NotJson)?;
    Ok(whole.slice_ref(value.get().as_bytes()))
}

/// The client's fields as a part gets them: who asks and in which language, not what was sent along or
/// which piece of which version is wanted, for that was said of the whole.
pub fn request_fields(headers: &mut Fields) {
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        header::RANGE,
        header::ACCEPT_ENCODING,
        header::TRAILER,
        header::TE,
    ] {
        headers.remove(&name);
    }
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_one_json_value_passed_on_as_it_was_written() {
        let kept =
            json(Bytes::from_static(b" {\"a\": 1.0e2, \"a\":12345678901234567890}\n")).expect("it is JSON");
        assert_eq!(kept, "{\"a\": 1.0e2, \"a\":12345678901234567890}");
        for broken in ["", "{", "{} {}", "<html>", "{\"a\":}", "\u{feff}{}"] {
            assert!(json(Bytes::from(broken)).is_err(), "{broken:?} passed for JSON");
        }
        assert!(json(Bytes::from_static(b"\"\xff\"")).is_err(), "a string that is not UTF-8 passed for JSON");
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = "[".repeat(500_000) + &"]".repeat(500_000);
        assert!(json(Bytes::from(deep)).is_ok());
    }
}
