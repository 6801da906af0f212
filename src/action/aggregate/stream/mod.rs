//! An aggregate whose parts go out as they come, in the order of the configuration. The head waits for the required parts, so that
//! one of them that fails decides the status, as it does elsewhere; what fails later can but break the response off.

mod passed;
mod run;
mod write;

use std::sync::Arc;

use http::{HeaderValue, StatusCode, header};

use self::run::Run;
use self::write::{Form, Trailers};
use super::document::MISSING_PARTS;
use super::{Aggregate, timing};
use crate::exchange::{Content, Exchange, Flow};
use crate::http::fields::Fields;
use crate::http::hop_by_hop;
use crate::http::response::Response;
use crate::refusal::Stop;
use crate::request::Request;

pub use self::passed::{Opened, Passed, Passes};

/// What goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// One document, unless the client prefers lines.
    Document,
    /// A line for each part.
    Lines,
}

pub async fn run(
    aggregate: &Arc<Aggregate>,
    stream: Stream,
    exchange: &mut Exchange,
    request: &mut Request,
) -> Result<Response<Content>, Stop> {
    let server_timing = aggregate.server_timing.as_ref();
    let tells_times = server_timing.is_some_and(|timing| timing.is_asked(&mut request.headers));
    let trailers = hop_by_hop::accepts_trailers(&request.headers).then_some(Trailers { tells_times });
    let form = match stream {
        Stream::Document if !prefers_lines(&request.headers) => Form::Document,
        _ => Form::Lines,
    };
    let mut run = Run::new(aggregate, exchange, request);
    run.until(|run| !run.waits_for_required()).await;
    exchange.upstream = run.record();
    if let Some(refusal) = run.refusal.take() {
        return Err(refusal.into());
    }
    let desk = run.desk.clone();
    let flow = Flow::new(desk, write::write(run, form, trailers));
    let mut response = Response::new(StatusCode::OK, Content::Written(Box::new(flow)));
    let kind = match form {
        Form::Document => "application/json",
        Form::Lines => "application/x-ndjson",
    };
    response.fields.append(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Nobody knows yet whether it will be whole.
    response.fields.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if stream == Stream::Document {
        response.fields.append(header::VARY, HeaderValue::from_static("accept"));
    }
    if trailers.is_some() {
        response.fields.append(header::TRAILER, HeaderValue::from_name(MISSING_PARTS));
        if tells_times {
            response.fields.append(header::TRAILER, HeaderValue::from_name(timing::SERVER_TIMING));
        }
    }
    Ok(response)
}

/// Whether the client names lines, and JSON not before them (RFC 9110 §12.5.1). What is said of `*/*` is said of the document.
fn prefers_lines(fields: &Fields) -> bool {
    let (mut lines, mut document) = (0.0, 0.0);
    for range in fields.get_all(&header::ACCEPT).flat_map(|value| value.split(|byte| *byte == b',')) {
        let mut pieces = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let kind = pieces.next().unwrap_or_default().to_ascii_lowercase();
        let weight = pieces.find_map(|piece| {
            let digits = piece.strip_prefix(b"q=").or_else(|| piece.strip_prefix(b"Q="))?;
            std::str::from_utf8(digits).ok()?.parse::<f32>().ok()
        });
        match &kind[..] {
            b"application/x-ndjson" => lines = weight.unwrap_or(1.0),
            b"application/json" => document = weight.unwrap_or(1.0),
            _ => {}
        }
    }
    lines > document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_those_who_prefer_them() {
        for (accept, wanted) in [
            ("application/x-ndjson", true),
            ("Application/X-NDJSON; q=0.5, */*;q=0.1", true),
            ("application/json;q=0.9, application/x-ndjson", true),
            ("application/json, application/x-ndjson", false),
            ("application/x-ndjson;q=0", false),
            ("*/*", false),
            ("", false),
        ] {
            let field = (header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(prefers_lines(&Fields::from_iter([field])), wanted, "{accept:?}");
        }
        assert!(!prefers_lines(&Fields::new()));
    }
}
