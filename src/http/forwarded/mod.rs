//! Who the client is, and telling instances: `X-Forwarded-*` and `Forwarded` (RFC 7239).
//!
//! Invariants:
//! - From a peer that is no trusted proxy, nothing that claims where a request came from reaches an
//!   instance or counts here: all such fields (`claims_origin`) are removed before ours are written.
//! - From a trusted proxy they are kept and added to, and both notations tell the same story. Where it
//!   sends both, `X-Forwarded-For` is the one that is believed: most proxies write that one and pass
//!   a client's `Forwarded` through as it is.
//! - Names with underscores are removed from any peer's requests: CGI and its descendants read `X_Real_IP`
//!   and `X-Real-IP` as one, and no proxy writes the former.
//! - `X-Real-IP` and its relatives are not written: a chain says more, and one way is enough.

mod address;
mod chain;
mod trusted;

use std::cell::OnceCell;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;

use http::header::{FORWARDED, HeaderName, HeaderValue};

pub use trusted::TrustedProxies;

pub use self::address::AddressText;
use super::field_lines::{FieldLines, Sink};
use super::fields::Fields;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The most addresses of a chain that are walked or repeated in the other notation.
const MAX_HOPS: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// What is the same for all requests of a connection. Many have no more than one, so that nothing is kept ready
/// before somebody has asked for it.
#[derive(Debug)]
pub struct ConnFacts {
    peer: IpAddr,
    peer_text: AddressText,
    local_port: u16,
    scheme: Scheme,
    /// Most connections ask for one host only.
    first_host: OnceCell<FirstHost>,
}

/// The first host that was asked for, and what instances are told of such requests.
#[derive(Debug)]
struct FirstHost {
    name: Rc<str>,
    lines: FieldLines,
    /// Where in the lines the host stands as it was written.
    host: Range<usize>,
}

impl FirstHost {
    fn is(&self, host: &[u8]) -> bool {
        self.lines.as_bytes()[self.host.clone()] == *host
    }
}

/// Field lines that are longer than those of most requests.
const LINES_BYTES: usize = 192;

impl ConnFacts {
    pub fn new(peer: IpAddr, local_port: u16, scheme: Scheme) -> ConnFacts {
        let peer = peer.to_canonical();
        ConnFacts { peer, peer_text: AddressText::of(peer), local_port, scheme, first_host: OnceCell::new() }
    }

    /// An IPv4 address that came in the clothes of IPv6 is an IPv4 address here.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    pub fn peer_text(&self) -> &str {
        self.peer_text.as_str()
    }

    fn peer_value(&self) -> HeaderValue {
        HeaderValue::from_str(self.peer_text()).expect("an address is visible ASCII")
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Says where a request of this connection came from, when its peer is the client. The message has none of
    /// these fields, or they are replaced.
    pub fn write(&self, host: Option<&[u8]>, to: &mut Sink<'_>) {
        match (self.first_host.get(), to) {
            (Some(known), Sink::Lines(lines)) if host.is_some_and(|host| known.is(host)) => {
                lines.extend(&known.lines)
            }
            (_, to) => self.write_each(host, to),
        }
    }

    fn write_each(&self, host: Option<&[u8]>, to: &mut Sink<'_>) {
        self.write_peer(to);
        self.write_host(host, to);
    }

    fn write_peer(&self, to: &mut Sink<'_>) {
        to.set_text(&X_FORWARDED_FOR, self.peer_text.as_bytes());
        to.set_text(&X_FORWARDED_PROTO, self.scheme.as_str().as_bytes());
        to.set_text(&X_FORWARDED_PORT, itoa::Buffer::new().format(self.local_port).as_bytes());
    }

    fn write_host(&self, host: Option<&[u8]>, to: &mut Sink<'_>) {
        if let Some(host) = host {
            to.set_text(&X_FORWARDED_HOST, host);
        }
        match to {
            Sink::Fields(headers) => headers.insert(FORWARDED, self.forwarded_element(host)),
            Sink::Lines(lines) => lines.push_with(&FORWARDED, |text| self.push_element(text, host)),
        }
    }

    /// The name in `host`: the one that was read of it before, or what `read` makes of it.
    pub fn name_of<E>(&self, host: &[u8], read: impl FnOnce() -> Result<Rc<str>, E>) -> Result<Rc<str>, E> {
        if let Some(known) = self.first_host.get().filter(|known| known.is(host)) {
            return Ok(known.name.clone());
        }
        let name = read()?;
        self.first_host.get_or_init(|| self.first_host(host, name.clone()));
        Ok(name)
    }

    fn first_host(&self, host: &[u8], name: Rc<str>) -> FirstHost {
        let mut lines = FieldLines::with_capacity(LINES_BYTES);
        self.write_peer(&mut Sink::Lines(&mut lines));
        let start = lines.as_bytes().len() + X_FORWARDED_HOST.as_str().len() + ": ".len();
        self.write_host(Some(host), &mut Sink::Lines(&mut lines));
        FirstHost { name, lines, host: start..start + host.len() }
    }

    fn forwarded_element(&self, host: Option<&[u8]>) -> HeaderValue {
        let mut text = Vec::with_capacity(64 + host.map_or(0, <[u8]>::len));
        self.push_element(&mut text, host);
        as_value(text).expect("addresses and schemes are visible ASCII, and push_host escapes what it writes")
    }

    /// `for=…;proto=…;host=…`
    fn push_element(&self, text: &mut Vec<u8>, host: Option<&[u8]>) {
        push_for(text, Some(self.peer));
        text.extend_from_slice(b";proto=");
        text.extend_from_slice(self.scheme.as_str().as_bytes());
        if let Some(host) = host {
            push_host(text, host);
        }
    }
}

/// The client's address: the peer's, or when that is a trusted proxy, the nearest address of its
/// chain that is none. A chain's entry that is no address ends the walk at the proxy which wrote it.
pub fn resolve_client(peer: IpAddr, headers: &Fields, trusted: &TrustedProxies) -> IpAddr {
    let peer = peer.to_canonical();
    if !trusted.contains(peer) {
        return peer;
    }
    if headers.contains(&X_FORWARDED_FOR) {
        walk(peer, chain::x_forwarded_for(headers), trusted)
    } else if headers.contains(&FORWARDED) {
        let elements = chain::forwarded(headers);
        walk(peer, elements.iter().rev().map(|element| element.node), trusted)
    } else {
        peer
    }
}

/// `hops` begin with the one that the peer wrote.
fn walk(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &TrustedProxies) -> IpAddr {
    let mut client = peer;
    for hop in hops.take(MAX_HOPS) {
        let Some(address) = hop else { break };
        client = address;
        if !trusted.contains(address) {
            break;
        }
    }
    client
}

/// Writes where the request came from into what is forwarded. `host` is the one that the client asked
/// for; `trusted` says whether the connection's peer is a trusted proxy.
pub fn rewrite_request(headers: &mut Fields, facts: &ConnFacts, host: Option<&[u8]>, trusted: bool) {
    remove_claims(headers, trusted);
    if trusted {
        extend_chain(headers, facts, host);
    } else {
        facts.write(host, &mut Sink::Fields(headers));
    }
}

/// Removes what says where a request came from: all of it, or what no trusted proxy writes.
pub fn remove_claims(headers: &mut Fields, trusted: bool) {
    headers.retain(|name, _| !claims_origin(name) || (trusted && !name.contains(&b'_')));
}

/// Whether a field says from which address, over which scheme, for which host or path, or from which user a
/// request came to a proxy. `name` is in lower case; underscores count as hyphens.
pub fn claims_origin(name: &[u8]) -> bool {
    // This runs for every field of every request, and few begin like these.
    let (prefixes, names): (&[&str], &[&str]) = match name.first() {
        Some(b'c') => (&[], &["cf-connecting-ip", "cf-connecting-ipv6", "client-ip"]),
        Some(b'f') => {
            (&[], &["fastly-client-ip", "fly-client-ip", "forwarded", "forwarded-for", "front-end-https"])
        }
        Some(b't') => (&[], &["true-client-ip"]),
        Some(b'x') => (
            &["x-forwarded-", "x-original-"],
            &[
                "x-client-ip",
                "x-cluster-client-ip",
                "x-envoy-external-address",
                "x-forwarded",
                "x-originating-ip",
                "x-real-ip",
                "x-remote-addr",
                "x-remote-ip",
                "x-rewrite-url",
                "x-scheme",
                "x-url-scheme",
            ],
        ),
        _ => return false,
    };
    let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
    let begins = |with: &str| name.len() >= with.len() && name.iter().copied().zip(with.bytes()).all(same);
    prefixes.iter().any(|prefix| begins(prefix))
        || names.iter().any(|known| known.len() == name.len() && begins(known))
}

/// Adds this hop to what a trusted proxy said. What it did not say is told as we saw it.
fn extend_chain(headers: &mut Fields, facts: &ConnFacts, host: Option<&[u8]>) {
    let ours = facts.forwarded_element(host);
    // Empty when X-Forwarded-For is there, which then is the one that counts.
    let mut said = Vec::new();
    if headers.contains(&X_FORWARDED_FOR) {
        let rebuilt = chain_as_forwarded(headers, &ours);
        headers.insert(FORWARDED, rebuilt);
        let extended = join_lines(headers, &X_FORWARDED_FOR, 0, &facts.peer_value());
        headers.insert(X_FORWARDED_FOR.clone(), extended);
    } else {
        said = chain::forwarded(headers);
        headers.insert(X_FORWARDED_FOR.clone(), chain_as_x_forwarded_for(&said, facts));
        let extended = join_lines(headers, &FORWARDED, chain::unreadable_lines(headers), &ours);
        headers.insert(FORWARDED, extended);
    }

    let first = said.first();
    let said_anything = headers.contains(&X_FORWARDED_PROTO) || headers.contains(&X_FORWARDED_HOST);
    if !headers.contains(&X_FORWARDED_PORT) && !said_anything && first.is_none() {
        // Beside another's scheme or host, our port would make a URL that exists nowhere.
        headers.insert(X_FORWARDED_PORT.clone(), HeaderValue::from(facts.local_port));
    }
    if !headers.contains(&X_FORWARDED_PROTO) {
        let proto = first.and_then(|first| as_value(first.proto.clone()?));
        let ours = || HeaderValue::from_static(facts.scheme.as_str());
        headers.insert(X_FORWARDED_PROTO.clone(), proto.unwrap_or_else(ours));
    }
    if !headers.contains(&X_FORWARDED_HOST) {
        let said = first.and_then(|first| as_value(first.host.clone()?));
        if let Some(host) = said.or_else(|| as_value(host?.to_vec())) {
            headers.insert(X_FORWARDED_HOST.clone(), host);
        }
    }
}

/// `X-Forwarded-For` (with the proxy's proto and host in its first element) and our element, as RFC 7239
/// writes them (§7.4).
fn chain_as_forwarded(headers: &Fields, ours: &HeaderValue) -> HeaderValue {
    let mut hops: Vec<Option<IpAddr>> = chain::x_forwarded_for(headers).take(MAX_HOPS).collect();
    hops.reverse();
    let mut text = Vec::with_capacity(64 * (hops.len() + 1));
    for (position, hop) in hops.into_iter().enumerate() {
        push_for(&mut text, hop);
        if position == 0 {
            if let Some(proto) = headers.get(&X_FORWARDED_PROTO).and_then(chain::first_of_list)
                && (proto.eq_ignore_ascii_case(b"http") || proto.eq_ignore_ascii_case(b"https"))
            {
                text.extend_from_slice(b";proto=");
                text.extend_from_slice(proto);
            }
            if let Some(host) = headers.get(&X_FORWARDED_HOST).and_then(chain::first_of_list) {
                push_host(&mut text, host);
            }
        }
        text.extend_from_slice(b", ");
    }
    text.extend_from_slice(ours.as_bytes());
    as_value(text).unwrap_or_else(|| ours.clone())
}

fn chain_as_x_forwarded_for(said: &[chain::Element], facts: &ConnFacts) -> HeaderValue {
    if said.is_empty() {
        return facts.peer_value();
    }
    let mut text = String::with_capacity(48 * (said.len() + 1));
    for element in said {
        match element.node {
            Some(address) => text.push_str(&address.to_string()),
            None => text.push_str("unknown"),
        }
        text.push_str(", ");
    }
    text.push_str(facts.peer_text());
    as_value(text.into_bytes()).unwrap_or_else(|| facts.peer_value())
}

/// All lines of a list field but the first `skip`, and one more element, on one line.
fn join_lines(headers: &Fields, name: &HeaderName, skip: usize, last: &HeaderValue) -> HeaderValue {
    let mut text = Vec::with_capacity(128);
    for line in headers.get_all(name).skip(skip).filter(|line| !line.is_empty()) {
        text.extend_from_slice(line);
        text.extend_from_slice(b", ");
    }
    text.extend_from_slice(last.as_bytes());
    as_value(text).unwrap_or_else(|| last.clone())
}

/// RFC 7239 §6: IPv6 addresses stand in brackets and, because of the colons, in quotes.
fn push_for(text: &mut Vec<u8>, node: Option<IpAddr>) {
    match node {
        Some(address @ IpAddr::V4(_)) => {
            text.extend_from_slice(b"for=");
            text.extend_from_slice(AddressText::of(address).as_bytes());
        }
        Some(address @ IpAddr::V6(_)) => {
            text.extend_from_slice(b"for=\"[");
            text.extend_from_slice(AddressText::of(address).as_bytes());
            text.extend_from_slice(b"]\"");
        }
        None => text.extend_from_slice(b"for=unknown"),
    }
}

/// `;host=…`, quoted where it is no token. A host that is not ASCII is no host and is left out.
fn push_host(text: &mut Vec<u8>, host: &[u8]) {
    if host.is_empty() || !host.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return;
    }
    text.extend_from_slice(b";host=");
    if host.iter().all(|&byte| IS_TOKEN[usize::from(byte)]) {
        text.extend_from_slice(host);
        return;
    }
    text.push(b'"');
    let mut rest = host;
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        text.extend_from_slice(&rest[..at]);
        text.extend_from_slice(&[b'\\', rest[at]]);
        rest = &rest[at + 1..];
    }
    text.extend_from_slice(rest);
    text.push(b'"');
}

/// The bytes of a token (RFC 9110 §5.6.2).
const IS_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

fn as_value(text: Vec<u8>) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()
}

#[cfg(test)]
mod tests;
