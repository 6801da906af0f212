//! A reply that the gateway makes itself, before it has become a response: a reason, a sentence for the
//! client, and fields such as a challenge.

use std::borrow::Cow;

use http::header::CONNECTION;
use http::{HeaderName, HeaderValue};

use crate::exchange::{Content, Exchange};
use crate::http::problem;
use crate::http::response::Response;
use crate::reason::Reason;

#[derive(Debug)]
pub struct Refusal {
    pub reason: Reason,
    /// Safe for anyone to read: no address, no key, no error text of a library.
    pub detail: Cow<'static, str>,
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

/// Why a request goes no further down the road. Boxed, because few do, and every step's result carries it.
pub enum Stop {
    Refuse(Box<Refusal>),
    /// It has its answer already, as a CORS preflight does.
    Answer(Box<Response<Content>>),
}

impl Refusal {
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Refusal { reason, detail: detail.into(), fields: Vec::new() }
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// The problem document; the exchange remembers the reason.
    pub fn respond(self, exchange: &mut Exchange) -> Response<Content> {
        exchange.reason = Some(self.reason);
        let id = exchange.request_id.as_ref().map_or("", |id| id.as_str());
        let mut response = problem::respond(self.reason, &self.detail, id).map(Content::Whole);
        for (name, value) in self.fields {
            response.fields.append(name, value);
        }
        if exchange.leaves_body_behind() {
            response.fields.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refuse(Box::new(refusal))
    }
}
