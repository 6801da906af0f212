//! Passes a request on to a service, and its response back, both as streams.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Body;

use super::tunnel;
use super::upstream_request;
use crate::exchange::{Content, Exchange};
use crate::http::fields::Fields;
use crate::http::forwarded::Scheme;
use crate::http::hop_by_hop;
use crate::http::problem;
use crate::http::response::Response;
use crate::http::target;
use crate::http::template::{StripPrefix, Template};
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};
use crate::request::Request;
use crate::service::{self, Answer, Call, CallError, Fallback, Head, Service, SessionCode};

pub struct Forward {
    pub service: Arc<Service>,
    pub rewrite: Rewrite,
    pub host: HostHeader,
}

pub enum Rewrite {
    None,
    StripPrefix(StripPrefix),
    Template(Box<Template>),
}

pub enum HostHeader {
    Preserve,
    Instance,
    Fixed(Box<Bytes>),
}

impl Forward {
    pub async fn run(
        &self,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Response<Content>, Stop> {
        // Boxed, so that the requests of other routes are no larger for it.
        if let Some(stale) = &self.service.stale {
            return Box::pin(self.run_keeping(stale, exchange, request)).await;
        }
        let wants_upgrade = exchange.upgrade.is_some();
        let call = self.call(exchange, request)?;
        let worker = exchange.connection.worker.clone();
        let record = exchange.upstream.of(&self.service);
        let answered = service::call(&self.service, worker.caller(), &call, record).await;
        match answered {
            Ok(answer) => {
                let session = answer.session;
                let response = pass_on(exchange, answer, wants_upgrade)?;
                Ok(self.stay(exchange, response, session))
            }
            Err(error) => self.failed(exchange, &error),
        }
    }

    /// Tells the client how to stay with the instance that answered it.
    pub(super) fn stay(
        &self,
        exchange: &Exchange,
        mut response: Response<Content>,
        session: Option<SessionCode>,
    ) -> Response<Content> {
        if let (Some(sticky), Some(code)) = (&self.service.sticky, session) {
            let over_tls = exchange.connection.facts.scheme() == Scheme::Https;
            response.fields.append(header::SET_COOKIE, sticky.cookie(code, over_tls));
        }
        response
    }

    // With two callers it is no longer taken into them by itself, and what it returns is large.
    #[inline(always)]
    pub(super) fn call(&self, exchange: &mut Exchange, request: &mut Request) -> Result<Call, Stop> {
        let target = self.target(exchange, request)?;
        let wish = super::wish(&self.service, exchange, target.path(), &request.headers);
        let upgrade = exchange
            .upgrade
            .is_some()
            .then(|| hop_by_hop::is_upgrade(&request.headers, exchange.version))
            .flatten();
        let mut headers = std::mem::take(&mut request.headers);
        let lines =
            upstream_request::rewrite(&mut headers, request.notable, exchange, request.host.as_deref());
        if let Some(protocol) = upgrade {
            hop_by_hop::write_upgrade(&mut headers, protocol);
        }
        let body = exchange.body.clone().expect("the size limits of every route have taken the body");
        body.keep_out_of_trailers(upstream_request::spoken_for(exchange));
        Ok(Call {
            head: Head {
                method: exchange.method.clone(),
                target,
                // HTTP/1.0 clients may name no host; HTTP/1.1, which instances are spoken to in, needs one: then it is
                // the instance's own.
                host: match &self.host {
                    HostHeader::Preserve => request.host.take(),
                    HostHeader::Instance => None,
                    HostHeader::Fixed(value) => Some(Bytes::clone(value)),
                },
                headers,
                lines,
                informational: exchange.interim.clone(),
            },
            body,
            deadline: None,
            wish,
        })
    }

    fn target(&self, exchange: &Exchange, request: &mut Request) -> Result<PathAndQuery, Stop> {
        if let (Rewrite::None, Some(target)) = (&self.rewrite, request.target.take()) {
            return Ok(target);
        }
        let path = &exchange.path;
        let mut target = match &self.rewrite {
            Rewrite::None => path.clone(),
            Rewrite::StripPrefix(prefix) => prefix.apply(path).to_owned(),
            Rewrite::Template(template) => template.render(path, &exchange.params),
        };
        if let Some(query) = &exchange.query {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(query);
        }
        target::path_of(target)
            .ok_or_else(|| Refusal::new(Reason::InvalidPath, "the path can't be passed on").into())
    }

    /// The service gave no answer: its fallback if it has one, else the reason.
    pub(super) fn failed(
        &self,
        exchange: &mut Exchange,
        error: &CallError,
    ) -> Result<Response<Content>, Stop> {
        let reason = error.reason();
        let servers_fault = reason.status().is_server_error();
        match &self.service.settings.fallback {
            Some(fallback) if servers_fault => {
                exchange.reason = Some(reason);
                self.service.metrics.fell_back(exchange.connection.worker.id);
                Ok(fall_back(fallback, reason))
            }
            _ => {
                let refusal = Refusal::new(reason, reason.description());
                // What is at the service now has gone by then, mostly.
                let is_full = matches!(error, CallError::OverLimit | CallError::QueueTimedOut);
                Err(if is_full {
                    refusal.with(header::RETRY_AFTER, HeaderValue::from_static("1"))
                } else {
                    refusal
                }
                .into())
            }
        }
    }
}

/// It says why, as every reply of the gateway's own does.
fn fall_back(fallback: &Fallback, reason: Reason) -> Response<Content> {
    let mut fields: Fields = fallback.fields.iter().cloned().collect();
    fields.append(problem::PROXY_STATUS, problem::proxy_status_of(reason));
    Response { fields, ..Response::new(fallback.status, Content::Whole(fallback.body.clone())) }
}

// As for `Forward::call`.
#[inline(always)]
pub(super) fn pass_on(
    exchange: &mut Exchange,
    answer: Answer,
    wants_upgrade: bool,
) -> Result<Response<Content>, Stop> {
    let Answer { mut response, body, upgrade, session: _ } = answer;
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return match (upgrade, exchange.upgrade.take()) {
            (Some(instance), Some(client)) if wants_upgrade => {
                Ok(tunnel::begin(client, instance, body, response))
            }
            // A switch that nobody asked for would leave both sides speaking past each other.
            _ => Err(Refusal::new(Reason::InvalidResponse, Reason::InvalidResponse.description()).into()),
        };
    }
    let bodiless = exchange.method == Method::HEAD || response.status == StatusCode::NOT_MODIFIED;
    let length = body.size_hint().exact().filter(|_| !bodiless);
    clean(&mut response.fields, length);
    Ok(response.map(|()| Content::Upstream(body)))
}

fn clean(fields: &mut Fields, length: Option<u64>) {
    hop_by_hop::strip_response(fields);
    let is_plain = |value: &[u8]| value.iter().all(u8::is_ascii_digit);
    let mut written = fields.get_all(&header::CONTENT_LENGTH);
    let is_clear = written.next().is_none_or(|first| is_plain(first) && written.next().is_none());
    drop(written);
    if !is_clear {
        // `2, 2` or two lines: they are known to agree on the length of a body, and one number is what
        // nobody behind can read in two ways (RFC 9110 §8.6). Without a body it tells nobody anything.
        fields.remove(&header::CONTENT_LENGTH);
        if let Some(length) = length {
            fields.append(header::CONTENT_LENGTH, length.into());
        }
    }
}
