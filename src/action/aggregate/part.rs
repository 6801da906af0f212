//! One part of an aggregate: a call to a service whose answer must be JSON, whole and not too large.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::time::Instant;

use super::body::{self, Body, Coding};
use super::join::{Join, JoinWork};
use super::kept::{Fetched, Keys, Old};
use super::sent::RequestFields;
use super::shape::Shape;
use super::stream::{Opened, Passed, Passes};
use super::template::{Given, Target, Text};
use crate::action::Attempts;
use crate::http::field_lines::FieldLines;
use crate::http::fields::Fields;
use crate::http::target;
use crate::reason::Reason;
use crate::service::{self, Answer, Call, CallError, Caller, Head, Progress, Service, Wish};

pub struct Part {
    pub name: Arc<str>,
    pub source: Source,
    /// The places of the parts that must have ended before this one begins.
    pub needs: Box<[usize]>,
    pub required: bool,
    pub fallback: Fallback,
    /// It is asked only when a part has failed that it stands in for.
    pub is_spare: bool,
}

pub enum Source {
    Call(Box<PartCall>),
    Static(Bytes),
}

impl Part {
    pub fn call(&self) -> Option<&PartCall> {
        match &self.source {
            Source::Call(call) => Some(call),
            Source::Static(_) => None,
        }
    }
}

/// What stands in for a part that failed.
pub enum Fallback {
    /// Compact JSON.
    Value(Bytes),
    Part(usize),
}

pub struct PartCall {
    pub service: Arc<Service>,
    pub method: Method,
    pub target: Target,
    pub body: Option<Body>,
    pub forward_headers: Option<Box<[HeaderName]>>,
    pub is_text: bool,
    pub headers: Box<[(HeaderName, Text)]>,
    /// Never empty.
    pub accept: Box<[RangeInclusive<u16>]>,
    pub timeout: Option<Duration>,
    pub max_body: u64,
    /// Its answer goes out as it comes, with this bound.
    pub passes: Option<Passes>,
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
    NotText,
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
            PartError::NotText => Reason::PartNotText,
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

/// All that is to be asked for a part, with every value in its place.
pub enum Work {
    One(PartRequest),
    Join(JoinWork),
}

/// What has come of it.
pub struct Performed {
    pub result: Result<Bytes, PartError>,
    /// Why the first element failed, and which of them did; none of them where the part is one answer and an older one
    /// stands in.
    pub failed: Option<(Told, Vec<usize>)>,
    /// How old the oldest of the answers is that stand in for others.
    pub age_s: Option<u64>,
}

impl Performed {
    pub fn of(result: Result<Bytes, PartError>) -> Self {
        Performed { result, failed: None, age_s: None }
    }

    fn one((result, old): Answered) -> Self {
        match (result, old) {
            (Err(error), Some(old)) => Performed {
                result: Ok(old.value),
                failed: Some((error.told(), Vec::new())),
                age_s: Some(old.age_s),
            },
            (result, _) => Performed::of(result),
        }
    }
}

/// What has come of one request, and the last good answer that stands in where it has failed.
pub type Answered = (Result<Bytes, PartError>, Option<Old>);

pub struct PartRequest {
    target: PathAndQuery,
    headers: Fields,
    lines: FieldLines,
    body: Bytes,
    wish: Wish,
    /// Under what its answer is kept, where it is.
    keys: Option<Box<Keys>>,
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
                let shaped = |answer| self.shape.apply(answer);
                let answered = self.ask(caller, request, deadline, &mut counted, shaped).await;
                *attempts += counted.count;
                Performed::one(answered)
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
        if self.body.is_some() {
            identity.push_str("\n\n");
            identity.push_str(&String::from_utf8_lossy(&request.body));
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
        let value = |(name, text): &(HeaderName, Text)| Ok((name.clone(), text.field(given)?));
        let own: Vec<(HeaderName, HeaderValue)> = self.headers.iter().map(value).collect::<Result<_, _>>()?;
        let keys = self.service.stale.as_ref().and(given.asker).map(|asker| {
            let sets = own.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            Box::new(asker.keys(&headers, given.identity, sets))
        });
        for (name, value) in own {
            headers.insert(name, value);
        }
        let body = match &self.body {
            Some(body) => body.render(given)?,
            None => Bytes::new(),
        };
        if self.body.is_some() && !headers.contains(&header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let wish = wish(target.path());
        Ok(PartRequest { target, headers, lines, body, wish, keys })
    }

    /// One answer, in its shape. Dropping the future cancels the call.
    pub async fn ask(
        &self,
        caller: Caller<'_>,
        mut request: PartRequest,
        deadline: Instant,
        progress: &mut dyn Progress,
        shaped: impl FnOnce(Bytes) -> Result<Bytes, PartError>,
    ) -> Answered {
        let kept = request.keys.take().map(|keys| Box::new(keys.with(&request.target)));
        let fetched = self.fetch(caller, request, deadline, progress).await;
        self.with_kept(kept, fetched, shaped, caller)
    }

    async fn fetch(
        &self,
        caller: Caller<'_>,
        request: PartRequest,
        deadline: Instant,
        progress: &mut dyn Progress,
    ) -> Result<Fetched, PartError> {
        let began = Instant::now();
        let fetched = async {
            let answer = self.answer(caller, request, deadline, progress).await?;
            let (status, fields) = (answer.response.status, answer.response.fields);
            let coding = body::coding(&fields)?;
            let is_surely_whole = !answer.body.ends_with_connection();
            let whole = body::collect(answer.body, self.max_body).await?;
            let body = self.content(whole, status, &fields, coding)?;
            Ok(Fetched { body, status, fields, began, is_surely_whole })
        };
        tokio::time::timeout_at(deadline, fetched).await.unwrap_or(Err(PartError::TimedOut))
    }

    /// The answer to a request, with a status that is accepted.
    async fn answer(
        &self,
        caller: Caller<'_>,
        request: PartRequest,
        deadline: Instant,
        progress: &mut dyn Progress,
    ) -> Result<Answer, PartError> {
        if deadline <= Instant::now() {
            return Err(PartError::TimedOut);
        }
        let PartRequest { target, headers, lines, body, wish, keys: _ } = request;
        let call = Call {
            head: Head {
                method: self.method.clone(),
                target,
                host: None,
                headers,
                lines,
                informational: None,
            },
            body: body::of(body),
            deadline: Some(deadline),
            wish,
        };
        let answer = service::call(&self.service, caller, &call, progress).await.map_err(PartError::Call)?;
        let status = answer.response.status;
        match self.accept.iter().any(|range| range.contains(&status.as_u16())) {
            true => Ok(answer),
            false => Err(PartError::Status(status)),
        }
    }

    /// What a whole body says.
    fn content(
        &self,
        whole: Bytes,
        status: StatusCode,
        fields: &Fields,
        coding: Coding,
    ) -> Result<Bytes, PartError> {
        if whole.is_empty() && may_be_empty(status) {
            return Ok(Bytes::from_static(b"null"));
        }
        let whole = body::decode(whole, coding, self.max_body)?;
        if self.is_text { body::text(&whole, fields) } else { body::json(whole) }
    }

    /// One answer that goes out as it comes, as far as its beginning. An answer that is encoded is held whole.
    pub async fn open(
        &self,
        caller: Caller<'_>,
        request: PartRequest,
        deadline: Instant,
        progress: &mut dyn Progress,
        passes: Passes,
    ) -> Result<Opened, PartError> {
        let deadline = self.timeout.map_or(deadline, |timeout| deadline.min(Instant::now() + timeout));
        let opening = async {
            let answer = self.answer(caller, request, deadline, progress).await?;
            let (status, fields) = (answer.response.status, answer.response.fields);
            match body::coding(&fields)? {
                Coding::Plain => Passed::open(answer.body, passes, may_be_empty(status)).await,
                coding => {
                    let whole = body::collect(answer.body, self.max_body).await?;
                    self.content(whole, status, &fields, coding).map(Opened::Whole)
                }
            }
        };
        tokio::time::timeout_at(deadline, opening).await.unwrap_or(Err(PartError::TimedOut))
    }
}

/// An answer without content is one where the status says so, and where it is no plain success: who accepts a 404 has
/// no use for what it says.
fn may_be_empty(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) || !status.is_success()
}
