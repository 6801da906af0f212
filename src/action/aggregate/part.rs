//! One part of an aggregate: a call to a service whose answer must be JSON, whole and not too large.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::join::{Join, JoinWork};
use super::shape::Shape;
use super::template::{Given, Target, Text};
use crate::action::{Attempts, upstream_request};
use crate::exchange::Exchange;
use crate::http::body::{ClientBody, RequestBody};
use crate::http::field_lines::FieldLines;
use crate::http::fields::Fields;
use crate::http::target;
use crate::reason::Reason;
use crate::request::Request;
use crate::service::{self, Call, CallError, Caller, Head, Progress, Service, UpstreamBody, Wish};

pub struct Part {
    pub name: Arc<str>,
    pub call: PartCall,
    /// The places of the parts that must have ended before this one begins.
    pub needs: Box<[usize]>,
    pub required: bool,
    pub fallback: Fallback,
    /// It is asked only when a part has failed that it stands in for.
    pub is_spare: bool,
}

/// What stands in for a part that failed.
pub enum Fallback {
    /// Compact JSON.
    Value(Bytes),
    Part(usize),
}

pub struct PartCall {
    pub service: Arc<Service>,
    pub target: Target,
    pub headers: Box<[(HeaderName, Text)]>,
    /// Never empty.
    pub accept: Box<[RangeInclusive<u16>]>,
    pub timeout: Option<Duration>,
    pub max_body: u64,
    pub shape: Shape,
    pub join: Option<Join>,
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
    /// The request needs a value that isn't there, or that can't stand where it should.
    MissingValue,
    /// What is selected isn't there, or is no object or list where it has to be.
    WrongShape,
    /// There are more elements to ask for than `max_items` allows.
    TooManyItems,
    /// The answer for many elements has none for this one.
    NotInBatch,
    /// That of an element.
    Told(Told),
}

/// What `_errors` says of a failure.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub status: StatusCode,
    pub reason: Reason,
}

impl PartError {
    /// What `_errors` says of it, and the log where the part was required.
    pub fn reason(&self) -> Reason {
        match self {
            PartError::Call(error) => error.reason(),
            PartError::Status(StatusCode::NOT_FOUND) | PartError::NotInBatch => Reason::PartNotFound,
            PartError::Status(_) => Reason::PartFailed,
            PartError::Body(reason) => *reason,
            PartError::TooLarge => Reason::PartTooLarge,
            PartError::NotJson => Reason::PartNotJson,
            PartError::TimedOut => Reason::PartTimeout,
            PartError::BadPath => Reason::InvalidPath,
            PartError::MissingValue => Reason::PartMissingValue,
            PartError::WrongShape => Reason::PartWrongShape,
            PartError::TooManyItems => Reason::PartTooManyItems,
            PartError::Told(told) => told.reason,
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            PartError::Status(status) => *status,
            PartError::Told(told) => told.status,
            other => other.reason().status(),
        }
    }

    pub fn told(&self) -> Told {
        Told { status: self.status(), reason: self.reason() }
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

pub type RequestFields = (Fields, FieldLines);

/// The fields that parts' requests begin with.
pub struct Sent {
    usual: (Fields, FieldLines),
    /// With what the gateway adds in one list, for parts that set fields: each is there once then.
    whole: Option<Fields>,
    /// Which parts get the latter.
    sets: Vec<bool>,
}

impl Sent {
    /// Takes the client's fields out of `request`.
    pub fn of(parts: &[Part], exchange: &Exchange, request: &mut Request) -> Self {
        let mut headers = std::mem::take(&mut request.headers);
        request_fields(&mut headers);
        let host = request.host.as_deref();
        let sets: Vec<bool> = parts.iter().map(|part| !part.call.headers.is_empty()).collect();
        let whole = sets.contains(&true).then(|| {
            let mut headers = headers.clone();
            upstream_request::rewrite_whole(&mut headers, request.notable, exchange, host);
            headers
        });
        let lines = upstream_request::rewrite(&mut headers, request.notable, exchange, host);
        Sent { usual: (headers, lines), whole, sets }
    }

    pub fn of_part(&self, place: usize) -> RequestFields {
        match &self.whole {
            Some(whole) if self.sets[place] => (whole.clone(), FieldLines::default()),
            _ => self.usual.clone(),
        }
    }
}

/// All that is to be asked for a part, with every value in its place.
pub enum Work {
    One(PartRequest),
    Join(JoinWork),
}

/// What has come of it.
pub struct Performed {
    pub result: Result<Bytes, PartError>,
    /// Why the first element failed, and which of them did.
    pub failed: Option<(Told, Vec<usize>)>,
}

impl Performed {
    pub fn of(result: Result<Bytes, PartError>) -> Self {
        Performed { result, failed: None }
    }
}

pub struct PartRequest {
    target: PathAndQuery,
    headers: Fields,
    lines: FieldLines,
    wish: Wish,
}

impl PartRequest {
    pub fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// Gives it another target; whether that is one.
    pub fn retarget(&mut self, text: String) -> bool {
        let target = target::path_of(text);
        let is_one = target.is_some();
        self.target = target.unwrap_or_else(|| self.target.clone());
        is_one
    }
}

impl PartCall {
    pub fn work(
        &self,
        given: &Given<'_>,
        fields: impl Fn() -> RequestFields,
        wish: impl Fn(&str) -> Wish,
    ) -> Result<Work, PartError> {
        match &self.join {
            None => self.request(given, fields(), wish).map(Work::One),
            Some(join) => join.work(self, given, fields, wish).map(Work::Join),
        }
    }

    pub async fn perform(
        &self,
        caller: Caller<'_>,
        work: Work,
        deadline: Instant,
        (required, attempts): (bool, &mut u32),
    ) -> Performed {
        let now = Instant::now();
        let deadline = self.timeout.map_or(deadline, |timeout| deadline.min(now + timeout));
        match (work, &self.join) {
            (Work::Join(work), Some(join)) => {
                join.run(self, caller, work, deadline, (required, attempts)).await
            }
            (Work::One(request), _) => {
                let mut counted = Attempts::default();
                let answer = self.ask(caller, request, deadline, &mut counted).await;
                *attempts += counted.count;
                Performed::of(answer.and_then(|answer| self.shape.apply(answer)))
            }
            (Work::Join(_), None) => Performed::of(Err(PartError::WrongShape)),
        }
    }

    /// Two requests that have the same come to the same.
    pub fn identity(&self, request: &PartRequest) -> String {
        let mut identity = request.target.as_str().to_owned();
        for (name, _) in &self.headers {
            let value = request.headers.get(name).unwrap_or_default();
            identity.push('\n');
            identity.push_str(&String::from_utf8_lossy(value));
        }
        identity
    }

    pub fn request(
        &self,
        given: &Given<'_>,
        (mut headers, lines): RequestFields,
        wish: impl Fn(&str) -> Wish,
    ) -> Result<PartRequest, PartError> {
        let target = self.target.render(given)?;
        for (name, text) in &self.headers {
            headers.insert(name.clone(), text.field(given)?);
        }
        let wish = wish(target.path());
        Ok(PartRequest { target, headers, lines, wish })
    }

    /// One answer, as it is. Dropping the future cancels the call.
    pub async fn ask(
        &self,
        caller: Caller<'_>,
        request: PartRequest,
        deadline: Instant,
        progress: &mut dyn Progress,
    ) -> Result<Bytes, PartError> {
        if deadline <= Instant::now() {
            return Err(PartError::TimedOut);
        }
        let PartRequest { target, headers, lines, wish } = request;
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
            if !self.accept.iter().any(|range| range.contains(&status.as_u16())) {
                return Err(PartError::Status(status));
            }
            let whole = collect(answer.body, self.max_body).await?;
            if whole.is_empty() && may_be_empty(status) {
                Ok(Bytes::from_static(b"null"))
            } else {
                json(whole)
            }
        };
        tokio::time::timeout_at(deadline, fetched).await.unwrap_or(Err(PartError::TimedOut))
    }
}

/// An answer without content is one where the status says so, and where it is no plain success: who accepts a 404 has
/// no use for what it says.
fn may_be_empty(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) || !status.is_success()
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
fn request_fields(headers: &mut Fields) {
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
