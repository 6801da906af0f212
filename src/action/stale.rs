//! A forward whose route keeps the last good answers: one of them is given where the client would get an error.

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::forward::{Forward, pass_on};
use crate::clock::{self, Millis};
use crate::exchange::{Content, Exchange};
use crate::http::forwarded::Scheme;
use crate::http::problem;
use crate::http::response::Response;
use crate::reason::Reason;
use crate::refusal::Stop;
use crate::request::Request;
use crate::service::{self, Answer, Asked, CallError, Failure, Kept, Stale};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What would have been answered otherwise.
enum Cause {
    /// By the gateway.
    Reason(Reason),
    /// By an instance.
    Status(StatusCode),
}

impl Forward {
    pub(super) async fn run_keeping(
        &self,
        stale: &Stale,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Response<Content>, Stop> {
        let wants_upgrade = exchange.upgrade.is_some();
        let asked = asked(exchange, request);
        let call = self.call(exchange, request)?;
        let worker = exchange.connection.worker.clone();
        let record = exchange.upstream.of(&self.service);
        let answered = service::call(&self.service, worker.caller(), &call, record).await;
        if !wants_upgrade
            && let Some(cause) = self.cause(&answered)
            && let Some(kept) = stale.find(&asked, clock::now())
        {
            exchange.reason = Some(Reason::StaleIfError);
            self.service.metrics.gave_stale(worker.id);
            return Ok(give(&kept, &cause));
        }
        match answered {
            Ok(answer) => {
                stale.learn(&asked, answer.response.status);
                let session = answer.session;
                let response = pass_on(exchange, answer, wants_upgrade)?;
                let response = keep(stale, &asked, exchange, response);
                Ok(self.stay(exchange, response, session))
            }
            Err(error) => self.failed(exchange, &error),
        }
    }

    fn cause(&self, answered: &Result<Answer, CallError>) -> Option<Cause> {
        match answered {
            Err(error) => {
                Some(error.reason()).filter(|reason| reason.status().is_server_error()).map(Cause::Reason)
            }
            Ok(answer) => match answer.response.status {
                // Nobody has asked for it.
                StatusCode::SWITCHING_PROTOCOLS => Some(Cause::Reason(Reason::InvalidResponse)),
                status => {
                    let is_failure = self.service.settings.breaker_failures.contains(Failure::Status(status));
                    is_failure.then_some(Cause::Status(status))
                }
            },
        }
    }
}

/// Before anything of the request is changed on its way to an instance.
fn asked(exchange: &Exchange, request: &Request) -> Asked {
    let scheme = match exchange.connection.facts.scheme() {
        Scheme::Https => "https",
        Scheme::Http => "http",
    };
    let host = request.host.as_deref().map(String::from_utf8_lossy).unwrap_or_default().to_ascii_lowercase();
    let mut key = format!("{scheme}://{host}{}", exchange.path);
    if let Some(query) = &exchange.query {
        key.extend(["?", query]);
    }
    Asked {
        key,
        method: exchange.method.clone(),
        is_identified: exchange.identity.is_some() || request.headers.contains(&header::AUTHORIZATION),
        is_own: false,
        has_body: exchange.body.as_ref().is_some_and(|body| !body.is_empty()),
        headers: request.headers.clone(),
        spoken_for: exchange.snapshot.identity_headers.clone(),
    }
}

/// Keeps the response while it is passed on, where it may be kept.
fn keep(stale: &Stale, asked: &Asked, exchange: &Exchange, response: Response<Content>) -> Response<Content> {
    let Response { status, fields, phrase, body } = response;
    let delay = exchange.upstream.began.map(|began| began.elapsed()).unwrap_or_default();
    let body = match body {
        Content::Upstream(body) => match stale.to_keep(asked, status, &fields, clock::now(), delay) {
            Some(kept) => match stale.copy(kept, body) {
                Ok(copying) => Content::Copied(Box::new(copying)),
                Err(body) => Content::Upstream(body),
            },
            None => Content::Upstream(body),
        },
        other => other,
    };
    Response { status, fields, phrase, body }
}

fn give(kept: &Kept, cause: &Cause) -> Response<Content> {
    let (age, left) = kept.age_and_freshness(Millis::of(tokio::time::Instant::now()));
    let mut fields = kept.fields();
    fields.insert(header::AGE, age.into());
    // "hit" is what did not go forward, or found nobody there (RFC 9211 §2.1).
    let (cache_status, proxy_status) = match cause {
        Cause::Reason(reason) => (
            format!("gatehouse; hit; ttl={left}; detail={}", reason.code()),
            problem::proxy_status_of(*reason),
        ),
        Cause::Status(status) => (
            format!("gatehouse; fwd=stale; fwd-status={}; ttl={left}", status.as_u16()),
            value(&format!("gatehouse; received-status={}", status.as_u16())),
        ),
    };
    fields.append(CACHE_STATUS, value(&cache_status));
    fields.append(problem::PROXY_STATUS, proxy_status);
    Response { fields, ..Response::new(StatusCode::OK, Content::Whole(kept.body.clone())) }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("words and numbers are visible ASCII")
}
