//! The fields that the requests of parts begin with.

use http::{HeaderName, HeaderValue, header};

use super::kept::Asker;
use super::part::{Part, PartCall};
use crate::action::upstream_request;
use crate::exchange::Exchange;
use crate::http::field_lines::FieldLines;
use crate::http::fields::Fields;
use crate::request::Request;

pub type RequestFields = (Fields, FieldLines);

pub struct Sent {
    usual: RequestFields,
    /// Those of the parts that want them otherwise.
    own: Vec<Option<Fields>>,
    /// Whose answers are kept, where some are.
    pub asker: Option<Asker>,
}

impl Sent {
    /// Takes the client's fields out of `request`.
    pub fn of(parts: &[Part], exchange: &Exchange, request: &mut Request) -> Self {
        let keeps = parts.iter().filter_map(Part::call).any(|call| call.service.stale.is_some());
        let asker = keeps.then(|| Asker::of(exchange, request));
        let mut headers = std::mem::take(&mut request.headers);
        strip(&mut headers);
        let host = request.host.as_deref();
        let is_own = |call: &PartCall| {
            !call.headers.is_empty() || call.forward_headers.is_some() || call.is_text || call.body.is_some()
        };
        // With what the gateway adds in one list: what a part sets is there once then.
        let of_part = |part: &Part| {
            let call = part.call().filter(|call| is_own(call))?;
            let mut headers = headers.clone();
            if let Some(names) = &call.forward_headers {
                only(&mut headers, names);
            }
            if call.is_text {
                headers.insert(
                    header::ACCEPT,
                    HeaderValue::from_static("text/plain, text/*, application/xml, */*;q=0.1"),
                );
            }
            upstream_request::rewrite_whole(&mut headers, request.notable, exchange, host);
            Some(headers)
        };
        let own = if parts.iter().filter_map(Part::call).any(is_own) {
            parts.iter().map(of_part).collect()
        } else {
            Vec::new()
        };
        let lines = upstream_request::rewrite(&mut headers, request.notable, exchange, host);
        Sent { usual: (headers, lines), own, asker }
    }

    pub fn of_part(&self, place: usize) -> RequestFields {
        match self.own.get(place) {
            Some(Some(own)) => (own.clone(), FieldLines::default()),
            _ => self.usual.clone(),
        }
    }
}

/// `Connection` stays until the fields that it names are gone.
fn only(headers: &mut Fields, names: &[HeaderName]) {
    headers.retain(|name, _| {
        let kept = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        names.iter().any(|known| kept(known.as_str())) || kept("accept") || kept("connection")
    });
}

/// Leaves the client's fields as a part gets them: who asks and in which language, not what was sent along or
/// which piece of which version is wanted, for that was said of the whole.
fn strip(headers: &mut Fields) {
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
