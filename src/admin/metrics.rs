//! `/metrics`, in the form that the scraper prefers.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};

use super::{ControlSurface, reply};
use crate::http::small_server::{self, SmallBody};
use crate::telemetry::metrics::Format;

pub(super) async fn scrape(surface: Arc<dyn ControlSurface>, headers: &HeaderMap) -> Response<SmallBody> {
    let format = preferred(headers);
    // Adding up and writing a hundred thousand routes would hold up health checks and heartbeats.
    match tokio::task::spawn_blocking(move || surface.metrics(format)).await {
        Ok(text) => small_server::reply(StatusCode::OK, format.content_type(), text),
        Err(_) => reply::problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the scrape failed"),
    }
}

/// OpenMetrics when it is accepted by name and nothing that fits the older form is liked better
/// (RFC 9110 §12.5.1).
fn preferred(headers: &HeaderMap) -> Format {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (mut open, mut older) = (0, 0);
    for (range, quality) in ranges.flat_map(|value| value.split(',')).map(range_and_quality) {
        match range {
            "application/openmetrics-text" => open = open.max(quality),
            "text/plain" => older = older.max(quality),
            _ => {}
        }
    }
    if open > 0 && open >= older { Format::OpenMetrics } else { Format::Prometheus }
}

/// The quality in thousandths; an unreadable one is none.
fn range_and_quality(text: &str) -> (&str, u16) {
    let mut pieces = text.split(';').map(str::trim);
    let range = pieces.next().unwrap_or_default();
    let quality = pieces.find_map(|piece| piece.strip_prefix("q="));
    let thousandths = |q: &str| q.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16);
    (range, quality.map_or(1000, thousandths))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scraper_chooses() {
        let chosen =
            |accept: &str| preferred(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for open in [prometheus, "application/openmetrics-text", "text/plain , application/openmetrics-text"]
        {
            assert_eq!(chosen(open), Format::OpenMetrics, "{open}");
        }
        for older in [
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.1,text/plain;q=0.2",
            "application/openmetrics-text;q=x",
            ",;,q=1",
        ] {
            assert_eq!(chosen(older), Format::Prometheus, "{older}");
        }
        assert_eq!(preferred(&HeaderMap::new()), Format::Prometheus);
    }
}
