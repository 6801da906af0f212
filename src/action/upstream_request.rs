//! The fields of a request on its way to an instance: what RFC 9110 §7.6 takes away, what a gateway adds.

use http::{HeaderName, header};

use crate::exchange::Exchange;
use crate::http::field_lines::{FieldLines, Sink};
use crate::http::fields::Fields;
use crate::http::notable::Notable;
use crate::http::{alike, forwarded, hop_by_hop, method_override, via};
use crate::policy;

/// Makes the client's fields into those of the request to an instance, without its `Host`. What the gateway adds is
/// returned beside them, unless somebody has a say in it still.
pub fn rewrite(
    headers: &mut Fields,
    notable: Notable,
    exchange: &Exchange,
    client_host: Option<&[u8]>,
) -> FieldLines {
    strip(headers, notable, exchange);
    let facts = &exchange.connection.facts;
    let trusted = exchange.snapshot.trusted_proxies.contains(facts.peer());
    if trusted || policy::edits_upstream_request(exchange) || claims_take_places(exchange) {
        write_whole(headers, exchange, client_host);
        return FieldLines::default();
    }
    if notable.has(Notable::ORIGIN_CLAIM) {
        forwarded::remove_claims(headers, trusted);
    }
    let mut lines = FieldLines::of_request();
    let mut sink = Sink::Lines(&mut lines);
    facts.write(client_host, &mut sink);
    add(exchange, &mut sink);
    lines
}

/// As [`rewrite`], for a request in whose fields somebody has a say yet: all of them are in `headers`.
pub fn rewrite_whole(
    headers: &mut Fields,
    notable: Notable,
    exchange: &Exchange,
    client_host: Option<&[u8]>,
) {
    strip(headers, notable, exchange);
    write_whole(headers, exchange, client_host);
}

fn write_whole(headers: &mut Fields, exchange: &Exchange, client_host: Option<&[u8]>) {
    let facts = &exchange.connection.facts;
    let trusted = exchange.snapshot.trusted_proxies.contains(facts.peer());
    forwarded::rewrite_request(headers, facts, client_host, trusted);
    add(exchange, &mut Sink::Fields(headers));
    policy::on_upstream_request(exchange, headers);
}

/// Takes away what ends here, and what only the gateway says something in.
fn strip(headers: &mut Fields, notable: Notable, exchange: &Exchange) {
    let snapshot = &exchange.snapshot;
    hop_by_hop::strip_request(headers, notable);
    // A 100 is ours to send, once a body is wanted; the instance is not asked for one.
    if notable.has(Notable::EXPECT) {
        headers.remove(&header::EXPECT);
    }
    // Nobody but an authenticator says who the client is, on any route.
    if notable.has(Notable::OURS) {
        headers.remove(&snapshot.request_id_header);
        for name in &snapshot.identity_headers {
            headers.remove(name);
        }
    }
    if notable.has(Notable::METHOD_OVERRIDE) {
        headers.retain(|name, _| !method_override::overrides_method(name));
    }
    for name in &snapshot.override_headers {
        headers.remove(name);
    }
    if notable.has(Notable::UNDERSCORE) {
        alike::remove_imitations(headers, || spoken_for(exchange));
    }
    if let Some(trace) = &exchange.trace
        && notable.has(Notable::TRACE_PARENT.and(Notable::TRACE_STATE))
    {
        trace.strip(headers);
    }
}

/// Whether a claim is to stand where the gateway says something by itself: of two lines a service might believe the
/// wrong one.
fn claims_take_places(exchange: &Exchange) -> bool {
    let is_ours = |name: &HeaderName| {
        *name == exchange.snapshot.request_id_header
            || matches!(name.as_str(), "via" | "traceparent")
            || forwarded::claims_origin(name.as_str().as_bytes())
    };
    exchange.identity.iter().flat_map(|identity| &identity.headers).any(|(name, _)| is_ours(name))
}

/// What the gateway says by itself, but for where the request came from.
fn add(exchange: &Exchange, to: &mut Sink<'_>) {
    via::append(to, exchange.version);
    if let Some(trace) = &exchange.trace {
        trace.write(to);
    }
    if let Some(id) = &exchange.request_id {
        id.write(&exchange.snapshot.request_id_header, to);
    }
    for (name, value) in exchange.identity.iter().flat_map(|identity| &identity.headers) {
        to.set(name, value);
    }
}

static FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// The fields that only the gateway says something in: who the client is, where a message ends, which method
/// it has, and what the configuration sets or takes away.
pub fn spoken_for(exchange: &Exchange) -> impl Iterator<Item = &HeaderName> {
    let snapshot = &exchange.snapshot;
    let edited =
        exchange.route.iter().flat_map(|route| &route.policies.request_headers).flat_map(|edit| edit.names());
    let overrides = snapshot.override_headers.iter().chain(&method_override::NAMES);
    snapshot
        .identity_headers
        .iter()
        .chain([&snapshot.request_id_header])
        .chain(&FRAMING)
        .chain(overrides)
        .chain(edited)
}
