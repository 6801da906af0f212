//! From the bytes of a request head to what the gateway decides on: who asks, for which host, for which
//! path. Everything after this works with what was understood here, never with what was written.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;
use http::uri::{self, PathAndQuery};
use http::{HeaderValue, Method, StatusCode, Version, header};

use crate::exchange::{Content, Exchange, Incoming};
use crate::http::body::{ClientBody, RequestBody};
use crate::http::fields::{self, Fields};
use crate::http::forwarded;
use crate::http::host;
use crate::http::notable::Notable;
use crate::http::pace::Demand;
use crate::http::path::{self, PathError};
use crate::http::request_id::RequestId;
use crate::http::response::Response;
use crate::http::target::Target;
use crate::http::trace::TraceContext;
use crate::reason::Reason;
use crate::refusal::{Refusal, Stop};
use crate::route::Query;

/// The methods that routes may take.
/// Those of IANA's registry, and PURGE, which caches know.
const WELL_KNOWN: [&str; 42] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "M-SEARCH",
];

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// What is left of a request's head once it has been understood: its fields.
pub struct Request {
    pub headers: Fields,
    /// Of `headers`, as the client sent them.
    pub notable: Notable,
    /// The authority as the client wrote it, for `host: preserve`.
    pub host: Option<Bytes>,
    pub has_encoded_slash: bool,
    /// The target as the client wrote it, where that is its one form: origin-form, and a path that had nothing
    /// to be normalised.
    pub target: Option<PathAndQuery>,
    pub declared: Option<u64>,
    body: Option<ClientBody>,
}

/// Fills in who asks for what. Identification comes first, so that even a refusal of the rest carries it.
pub fn understand(exchange: &mut Exchange) -> Result<Request, Stop> {
    let incoming = exchange.incoming.take().expect("a request is understood once");
    let Incoming { target, fields: headers, body, declared } = incoming;
    let snapshot = exchange.snapshot.clone();
    let is_ours = |name: &[u8]| {
        let ours = snapshot.identity_headers.iter().chain([&snapshot.request_id_header]);
        ours.map(|ours| ours.as_str().as_bytes()).any(|ours| ours == name)
    };
    let notable = Notable::of_request(&headers, is_ours);
    exchange.request_id = Some(match notable.has(Notable::OURS) {
        true => RequestId::of(&headers, &snapshot.request_id_header),
        false => RequestId::fresh(),
    });
    exchange.trace = Some(match notable.has(Notable::TRACE_PARENT) {
        true => TraceContext::of(&headers, true),
        false => TraceContext::fresh(true),
    });
    if notable.has(Notable::ORIGIN) {
        exchange.origin = headers.value(&header::ORIGIN);
    }
    let peer = exchange.connection.facts.peer();
    exchange.client = forwarded::resolve_client(peer, &headers, &snapshot.trusted_proxies);
    let mut request = Request {
        headers,
        notable,
        host: None,
        has_encoded_slash: false,
        target: None,
        declared,
        body: Some(body),
    };
    check_form(&exchange.method, &target, exchange.version)?;
    check_fields(exchange, &request)?;
    understand_host(exchange, &mut request, &target)?;
    understand_target(exchange, &mut request, target)?;
    Ok(request)
}

fn check_form(method: &Method, target: &Target, version: Version) -> Result<(), Stop> {
    // A tunnel to anywhere is not what a gateway is for (RFC 9110 §9.3.6), and TRACE shows fields to
    // scripts that must not see them (§9.3.8).
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::new(Reason::MethodNotAllowed, format!("this gateway does not serve {method}"))
            .with(header::ALLOW, METHODS)
            .into());
    }
    if imitates(method.as_str()) {
        return Err(invalid("this method is written in capitals"));
    }
    match target.scheme() {
        Some("http" | "https") => Ok(()),
        Some(_) => Err(invalid("the scheme of the request target is not http or https")),
        // RFC 9112 §3.2.3: the authority alone is a target for CONNECT only.
        None if version != Version::HTTP_2 && target.authority().is_some() => {
            Err(invalid("the request target is neither a path nor a URL"))
        }
        None => Ok(()),
    }
}

/// Methods are case-sensitive (RFC 9110 §9.1), and not everyone behind knows: who writes a well-known one with small letters
/// would have it taken for another by routes than by a service. Others may be written as they like.
fn imitates(method: &str) -> bool {
    method.bytes().any(|byte| byte.is_ascii_lowercase())
        && WELL_KNOWN.iter().any(|known| known.eq_ignore_ascii_case(method))
}

/// For HTTP/1.1 the connection has refused already what tells the length of a body in two ways.
fn check_fields(exchange: &Exchange, request: &Request) -> Result<(), Stop> {
    let headers = &request.headers;
    let most = exchange.connection.settings.limits.max_headers;
    if headers.len() > most {
        let detail = format!("the request has {} fields; {most} are allowed", headers.len());
        return Err(Refusal::new(Reason::HeadersTooLarge, detail).into());
    }
    if request.notable.has(Notable::EXPECT) && exchange.version != Version::HTTP_10 {
        check_expectations(headers)?;
    }
    if request.notable.has(Notable::CONTENT_LENGTH)
        && headers.get_all(&header::CONTENT_LENGTH).nth(1).is_some()
    {
        return Err(invalid("there is more than one Content-Length"));
    }
    Ok(())
}

/// RFC 9110 §10.1.1: of the one expectation that there is, HTTP/1.0 knows nothing. Who writes another may wait with the
/// body for an answer that never comes, and who reads it otherwise may take the body for a request.
fn check_expectations(headers: &Fields) -> Result<(), Stop> {
    let mut all = headers.get_all(&header::EXPECT).flat_map(|line| line.split(|byte| *byte == b','));
    if all.all(
        |one| matches!(one.trim_ascii(), one if one.is_empty() || one.eq_ignore_ascii_case(b"100-continue")),
    ) {
        return Ok(());
    }
    Err(refusal(Reason::ExpectationFailed, "no expectation but 100-continue can be met").into())
}

/// Who writes one request wrongly may mean the next one otherwise than we read it: the connection ends.
fn invalid(detail: &'static str) -> Stop {
    refusal(Reason::InvalidRequest, detail).into()
}

fn refusal(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(reason, detail).with(header::CONNECTION, HeaderValue::from_static("close"))
}

/// RFC 9112 §3.2: one Host, and the same as in the target where that has one. RFC 9113 §8.3.1 likewise.
fn understand_host(exchange: &mut Exchange, request: &mut Request, target: &Target) -> Result<(), Stop> {
    let bad = |detail: &'static str| Stop::from(refusal(Reason::InvalidHost, detail));
    let field =
        request.headers.at_most_one(&header::HOST).ok_or_else(|| bad("there is more than one Host field"))?;
    let named = target.authority().map(uri::Authority::as_str);
    let written = match (field, named) {
        (None, None) if exchange.version == Version::HTTP_10 => return Ok(()),
        (None, None) => return Err(bad("there is no Host field")),
        // §3.2: also where the target names one.
        (None, Some(_)) if exchange.version == Version::HTTP_11 => {
            return Err(bad("there is no Host field"));
        }
        (Some(field), None) => field,
        (None, Some(named)) => Bytes::copy_from_slice(named.as_bytes()),
        (Some(field), Some(named)) => {
            if !field.eq_ignore_ascii_case(named.as_bytes()) {
                return Err(bad("the Host field and the request target name different hosts"));
            }
            field
        }
    };
    let read = || {
        let text = fields::text(&written).ok_or_else(|| bad(NO_HOST))?;
        host::parse(text).map(|host| Rc::from(&*host.name)).map_err(|_| bad(NO_HOST))
    };
    exchange.host = Some(exchange.connection.facts.name_of(&written, read)?);
    request.host = Some(written);
    Ok(())
}

const NO_HOST: &str = "the host is not a name or an address with a port";

fn understand_target(exchange: &mut Exchange, request: &mut Request, target: Target) -> Result<(), Stop> {
    let length = target.path().len() + target.query().map_or(0, |query| query.len() + 1);
    let limit = exchange.connection.settings.limits.max_uri_bytes;
    if length > limit {
        return Err(Refusal::new(
            Reason::UriTooLong,
            format!("the request target has {length} bytes; {limit} are allowed"),
        )
        .into());
    }
    if exchange.method == Method::OPTIONS && (target.path() == "*" || is_last_hop(request)?) {
        return Err(Stop::Answer(Box::new(about_the_gateway())));
    }
    if !target.query().unwrap_or_default().is_ascii() {
        return Err(invalid("the query has a byte that must be percent-encoded"));
    }
    exchange.query = target.query().map(str::to_owned);
    let normalised = path::normalise(target.path()).map_err(bad_path)?;
    request.has_encoded_slash = normalised.has_encoded_slash;
    let is_as_written = matches!(normalised.path, Cow::Borrowed(_));
    exchange.path = normalised.path.into_owned();
    if is_as_written {
        request.target = target.into_path();
    }
    Ok(())
}

/// `OPTIONS *` asks about the server as a whole (RFC 9110 §9.3.7), and that is us.
fn about_the_gateway() -> Response<Content> {
    let mut response = Response::new(StatusCode::NO_CONTENT, Content::Whole(Bytes::new()));
    response.fields.insert(header::ALLOW, METHODS);
    response
}

/// RFC 9110 §7.6.2: who may not pass a request on answers it, and who may counts down.
fn is_last_hop(request: &mut Request) -> Result<bool, Stop> {
    if !request.notable.has(Notable::MAX_FORWARDS) {
        return Ok(false);
    }
    let written = request.headers.only(&header::MAX_FORWARDS).unwrap_or_default();
    let hops = match written {
        // More hops than there are anywhere.
        digits @ [_, ..] if digits.iter().all(u8::is_ascii_digit) => {
            fields::text(digits).and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(u32::MAX)
        }
        _ => return Err(invalid("Max-Forwards is not one number")),
    };
    if let Some(left) = hops.checked_sub(1) {
        request.headers.insert(header::MAX_FORWARDS, left.into());
    }
    Ok(hops == 0)
}

fn bad_path(error: PathError) -> Stop {
    Refusal::new(Reason::InvalidPath, error.to_string()).into()
}

/// Past `max_memory` what is under way goes on, and nothing new begins. The connection ends with it, to free what it takes.
pub fn check_room(exchange: &Exchange) -> Result<(), Stop> {
    if !exchange.snapshot.is_out_of_memory() {
        return Ok(());
    }
    let refusal = refusal(Reason::OutOfMemory, "the gateway has no memory for another request now");
    Err(refusal.with(header::RETRY_AFTER, HeaderValue::from_static("1")).into())
}

/// An encoded slash is a slash to some and not to others, so only routes that say so take one.
pub fn check_slashes(exchange: &Exchange, request: &Request) -> Result<(), Stop> {
    let keep = exchange.route.as_ref().is_some_and(|route| route.policies.keeps_encoded_slashes);
    if request.has_encoded_slash && !keep {
        return Err(encoded_slash().into());
    }
    Ok(())
}

pub fn encoded_slash() -> Refusal {
    Refusal::new(Reason::InvalidPath, "the path has an encoded slash")
}

impl Request {
    pub fn route_query<'q>(&'q self, exchange: &'q Exchange) -> Query<'q> {
        Query {
            host: exchange.host.as_deref().unwrap_or_default(),
            path: &exchange.path,
            method: &exchange.method,
            headers: &self.headers,
            query: exchange.query.as_deref(),
        }
    }

    /// The method that a CORS preflight asks about (Fetch standard, "CORS-preflight request").
    pub fn preflight_method(&self) -> Option<Method> {
        self.headers.get(&header::ORIGIN)?;
        let requested = self.headers.get(&header::ACCESS_CONTROL_REQUEST_METHOD)?;
        Method::from_bytes(requested).ok()
    }

    /// Takes the body, bounded, for the action that sends it on. It can be taken once.
    /// `demand`: how fast the client has to send it.
    pub fn take_body(&mut self, limit: Option<u64>, demand: Demand) -> Rc<RequestBody> {
        let body = RequestBody::new(self.body.take().unwrap_or(ClientBody::Empty), self.declared, limit);
        body.demand(demand);
        body
    }
}
