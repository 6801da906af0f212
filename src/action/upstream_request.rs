//! The fields of a request on its way to an instance: what RFC 9110 §7.6 takes away, what a gateway adds.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::exchange::Exchange;
use crate::http::notable::Notable;
use crate::http::{alike, forwarded, hop_by_hop, via};
use crate::policy;

/// What `Host` says to the instance.
pub enum Host<'h> {
    Client(Option<HeaderValue>),
    Instance,
    Fixed(&'h HeaderValue),
}

/// Makes the client's fields into those of the request to an instance.
pub fn rewrite(
    headers: &mut HeaderMap,
    notable: Notable,
    exchange: &Exchange,
    host: Host<'_>,
    client_host: Option<&HeaderValue>,
) {
    let snapshot = &exchange.snapshot;
    hop_by_hop::strip_request(headers, notable);
    // A 100 is ours to send, once a body is wanted; the instance is not asked for one.
    if notable.has(Notable::EXPECT) {
        headers.remove(header::EXPECT);
    }
    // Nobody but an authenticator says who the client is, on any route.
    for name in &snapshot.identity_headers {
        headers.remove(name);
    }
    if notable.has(Notable::UNDERSCORE) {
        alike::remove_imitations(headers, || spoken_for(exchange));
    }
    let facts = &exchange.connection.facts;
    let trusted = snapshot.trusted_proxies.contains(facts.peer());
    let has_claims = notable.has(Notable::ORIGIN_CLAIM);
    forwarded::rewrite_request(headers, facts, client_host, trusted, has_claims);
    via::append(headers, exchange.version);
    if let Some(trace) = &exchange.trace {
        trace.write(headers, notable.has(Notable::TRACE_STATE));
    }
    if let Some(id) = &exchange.request_id {
        headers.insert(snapshot.request_id_header.clone(), id.as_header().clone());
    }
    if let Some(identity) = &exchange.identity {
        for (name, value) in &identity.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
    policy::on_upstream_request(exchange, headers);
    match host {
        Host::Client(Some(value)) => drop(headers.insert(header::HOST, value)),
        Host::Fixed(value) => drop(headers.insert(header::HOST, value.clone())),
        Host::Client(None) | Host::Instance => drop(headers.remove(header::HOST)),
    }
}

static FRAMING: [HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// The fields that only the gateway says something in: who the client is, where a message ends, and what the
/// configuration sets or takes away.
pub fn spoken_for(exchange: &Exchange) -> impl Iterator<Item = &HeaderName> {
    let snapshot = &exchange.snapshot;
    let edited = exchange.route.iter().flat_map(|route| route.policies.request_headers.names());
    snapshot.identity_headers.iter().chain([&snapshot.request_id_header]).chain(&FRAMING).chain(edited)
}
