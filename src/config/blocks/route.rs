//! `routes`: what a request must look like, which policies hold, and what answers it.

use std::collections::HashSet;

use http::Method;
use serde_json::{Value as Json, json};

use super::access::IpFilterBody;
use super::action::{ForwardBody, RedirectBody, Uses};
use super::aggregate::AggregateBody;
use super::batch::check_method;
use super::browser::Security;
use super::listener::plain;
use super::plan::Ground;
use super::policy::{Authorize, BodySize, CorsBody, RequestEdit, ResponseEdit, refs};
use super::references::RateLimitRef;
use super::response::Respond;
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{
    Action, At, Authenticate, BatchAction, EncodedSlashes, HeaderEdit, HostPattern, Maintenance, Match,
    MethodOverride, PathMatch, Ref, Route, ValueMatch,
};
use crate::config::reader::{Form, Reader};
use crate::config::source::Span;
use crate::config::text::{alternatives, quoted};
use crate::config::values::http::header_key;
use crate::config::values::path::{PathPattern, PrefixPath, parameters};
use crate::config::values::{Name, text_value};
use crate::config::yaml::{Kind, Node};

block! {
    /// A match and what to do with it: exactly one of `forward`, `aggregate`, `batch`, `redirect` and `respond`.
    "a route" RouteBlock => Route {
        /// What logs and metrics call it.
        name: At<Name> ["users"],
        /// Which requests it is for. `{}` is every request.
        r#match: Match ["{ prefix: / }"],
        /// Who may call.
        authenticate: Authenticate,
        /// What a caller's token must say.
        authorize: At<Authorize>,
        /// Names of rate limits, in addition to those of `defaults`.
        rate_limits: Vec<RateLimitRef>,
        /// Which pages of other origins may call, from a browser.
        cors: CorsBody,
        /// Header changes on requests.
        request_headers: RequestEdit,
        /// Header changes on responses.
        response_headers: ResponseEdit,
        /// The largest request body. Default: that of `defaults`.
        max_body: BodySize,
        /// What to do with `%2F` in a path: refuse (the default), or keep as it is.
        encoded_slashes: EncodedSlashes,
        /// Answer with 503 for as long as something is being done. Default: that of `defaults`.
        maintenance: Maintenance,
        /// Which addresses may call at all, in addition to that of `defaults`.
        ip_filter: IpFilterBody,
        /// A field by which a POST asks to be taken for another method.
        method_override: MethodOverride,
        /// Fields that tell browsers to be careful. Default: those of `defaults`.
        security_headers: Security,
        /// Send the request to a service.
        forward: At<ForwardBody>,
        /// Answer with the responses of several services.
        aggregate: At<AggregateBody>,
        /// Answer many requests in one, each by its own route.
        batch: At<BatchAction>,
        /// Send the client elsewhere.
        redirect: At<RedirectBody>,
        /// Answer with what is written here.
        respond: At<Respond>,
    }
    later { "compression" }
}

impl RouteBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<Route> {
        if let (Some(authorize), Field::Absent) = (self.authorize.value(), &self.authenticate) {
            reader.error(
                authorize.span,
                "authorize needs to know who calls, and this route has no `authenticate`",
                "add `authenticate: { with: [NAME] }`",
            );
        }
        let matches = self.r#match.value();
        encoded_slash(matches, self.encoded_slashes.value(), reader);
        let is_authenticated = !self.authenticate.is_absent();
        let ground =
            matches.map(|matches| Ground { matches, parameters: path_parameters(matches), is_authenticated });
        let actions = Actions {
            forward: self.forward,
            aggregate: self.aggregate,
            batch: self.batch,
            redirect: self.redirect,
            respond: self.respond,
        };
        let action = action(actions, &place, ground.as_ref(), reader);
        let matches: Match = self.r#match.required()?;
        let cors = self.cors.optional::<CorsBody>()?.map(|cors| cors.on(&matches.methods));
        let rate_limits: Vec<RateLimitRef> = self.rate_limits.or(Vec::new())?;
        let authorize = self.authorize.optional::<At<Authorize>>()?;
        Some(Route {
            name: plain(self.name.required()?),
            authenticate: self.authenticate.optional()?,
            authorize: authorize.map_or_else(Vec::new, |authorize| authorize.value.0),
            rate_limits: refs::<RateLimitRef>(rate_limits) as Vec<Ref>,
            cors,
            request_headers: self.request_headers.or(HeaderEdit::default())?,
            response_headers: self.response_headers.or(HeaderEdit::default())?,
            max_body: self.max_body.optional()?,
            encoded_slashes: self.encoded_slashes.or(EncodedSlashes::default())?,
            maintenance: self.maintenance.optional()?,
            ip_filter: self.ip_filter.optional::<IpFilterBody>()?.map(|filter| filter.0),
            method_override: self.method_override.optional()?,
            security_headers: self.security_headers.optional::<Security>()?.map(|security| security.0),
            action: action?,
            matches,
        })
    }
}

/// A request with an encoded slash gets past the listener only where a route keeps it.
fn encoded_slash(matches: Option<&Match>, slashes: Option<&EncodedSlashes>, reader: &mut Reader<'_>) {
    if let Some(PathMatch::Path(path) | PathMatch::Prefix(path)) = matches.map(|matches| &matches.path)
        && path.value.to_ascii_lowercase().contains("%2f")
        && slashes != Some(&EncodedSlashes::Keep)
    {
        let message = "requests with an encoded slash are refused, so nothing can match this";
        reader.error(path.span, message, "add `encoded_slashes: keep` to the route");
    }
}

/// Those that are written.
struct Actions {
    forward: Field<At<ForwardBody>>,
    aggregate: Field<At<AggregateBody>>,
    batch: Field<At<BatchAction>>,
    redirect: Field<At<RedirectBody>>,
    respond: Field<At<Respond>>,
}

fn action(
    actions: Actions,
    place: &Place,
    ground: Option<&Ground<'_>>,
    reader: &mut Reader<'_>,
) -> Option<Action> {
    let Actions { forward, aggregate, batch, redirect, respond } = actions;
    const ACTIONS: [&str; 5] = ["forward", "aggregate", "batch", "redirect", "respond"];
    let of_plain = [forward.is_absent(), aggregate.is_absent(), batch.is_absent()];
    let absent = of_plain.into_iter().chain([redirect.is_absent(), respond.is_absent()]);
    let given: Vec<&str> =
        ACTIONS.iter().zip(absent).filter(|(_, absent)| !absent).map(|(name, _)| *name).collect();
    match given.as_slice() {
        [_] => {}
        [] if place.meant.iter().any(|key| ACTIONS.contains(key)) => return None,
        [] => {
            let remedy = format!("add {}", alternatives(&ACTIONS));
            reader.error(place.span, "this route has no action", remedy);
            return None;
        }
        several => {
            let message = format!("a route has one action, and this one has {}", several.join(" and "));
            reader.error(place.span, message, "keep one of them, or write a route for each");
            return None;
        }
    }
    let (action, uses) = if let Field::Read(At { value: ForwardBody { forward, uses }, .. }) = forward {
        (Action::Forward(forward), uses)
    } else if let Field::Read(At { value: body, .. }) = aggregate {
        (Action::Aggregate(body.on(ground?, reader)?), Uses::default())
    } else if let Field::Read(At { value: batch, span }) = batch {
        check_method(ground?.matches, span, reader);
        (Action::Batch(batch), Uses::default())
    } else if let Field::Read(At { value: RedirectBody { redirect, uses }, .. }) = redirect {
        (Action::Redirect(redirect), uses)
    } else if let Field::Read(At { value: Respond(response), .. }) = respond {
        (Action::Respond(response), Uses::default())
    } else {
        return None;
    };
    ground.is_none_or(|ground| uses.fit(ground.matches, reader)).then_some(action)
}

block! {
    /// Which requests a route is for: all that is written must hold.
    "a match" MatchBlock => Match {
        /// The whole path, with `{name}` for a segment that may be anything. A slash at its end matters.
        path: At<PathPattern>,
        /// The beginning of the path, by whole segments.
        prefix: At<PrefixPath>,
        /// A regular expression for the whole path.
        regex: At<Regex>,
        /// Hosts, exact or as in *.example.com. Default: any.
        hosts: Vec<HostPattern>,
        /// Default: any. GET includes HEAD.
        methods: Vec<Method>,
        /// Header fields: a text for that value, { regex: … }, or { present: true }.
        headers: HeaderMatches,
        /// Query parameters, likewise.
        query: QueryMatches,
    }
}

impl MatchBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<Match> {
        let MatchBlock { path, prefix, regex, hosts, methods, headers, query } = self;
        let absent = [path.is_absent(), prefix.is_absent(), regex.is_absent()];
        if absent.iter().filter(|absent| !**absent).count() > 1 {
            let message = "`path`, `prefix` and `regex` exclude each other";
            reader.error(place.span, message, "keep one of them, or write a route for each");
            return None;
        }
        let path = path.optional::<At<PathPattern>>()?;
        let path = path.map(|path| PathMatch::Path(At { value: path.value.0, span: path.span }));
        let prefix = prefix.optional::<At<PrefixPath>>()?;
        let prefix = prefix.map(|prefix| PathMatch::Prefix(At { value: prefix.value.0, span: prefix.span }));
        let regex = regex.optional::<At<Regex>>()?;
        let regex = regex.map(|regex| PathMatch::Regex(At { value: regex.value.0, span: regex.span }));
        let any = || PathMatch::Prefix(At { value: "/".to_owned(), span: place.span });
        Some(Match {
            path: path.or(prefix).or(regex).unwrap_or_else(any),
            hosts: hosts.or(Vec::new())?,
            methods: methods.or(Vec::new())?,
            headers: headers.optional::<HeaderMatches>()?.map_or_else(Vec::new, |matches| matches.0),
            query: query.optional::<QueryMatches>()?.map_or_else(Vec::new, |matches| matches.0),
        })
    }
}

/// The names of the parameters that a route's path defines.
pub(super) fn path_parameters(matches: &Match) -> Vec<&str> {
    match &matches.path {
        PathMatch::Path(path) => parameters(&path.value),
        PathMatch::Prefix(_) | PathMatch::Regex(_) => Vec::new(),
    }
}

/// A regular expression that compiles, within the bounds that it is compiled with later.
struct Regex(String);

/// Bytes that a compiled expression may take.
const REGEX_SIZE: usize = 1 << 20;

impl Value for Regex {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a regular expression", remedy: "write one as in ^/v[0-9]+/users$" };
        reader.parse(node, &form, |text| {
            match regex::RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
                Ok(_) => Ok(Regex(text.to_owned())),
                Err(regex::Error::CompiledTooBig(_)) => {
                    Err(Some("it is too large: write a simpler one".to_owned()))
                }
                Err(error) => Err(regex_fault(&error.to_string())),
            }
        })
    }

    fn schema() -> Json {
        json!({ "type": "string", "format": "regex" })
    }
}

/// The last line of the library's message, which says what is wrong.
fn regex_fault(message: &str) -> Option<String> {
    let last = message.lines().rev().find_map(|line| line.strip_prefix("error: "))?;
    Some(last.trim().to_owned())
}

/// `name: match` for headers.
struct HeaderMatches(Vec<(http::HeaderName, ValueMatch)>);

impl Value for HeaderMatches {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of headers")?;
        let mut seen = HashSet::new();
        let matches = entries.iter().map(|entry| {
            let name = header_key(&entry.key, entry.key_span, reader);
            let value = ValueMatch::read(&entry.value, reader);
            let name = name?;
            if !seen.insert(name.clone()) {
                let message = format!("the header {name} is matched twice");
                reader.error(entry.key_span, message, "keep one of them: case makes no difference");
                return None;
            }
            Some((name, value?))
        });
        let matches: Vec<_> = matches.collect();
        matches.into_iter().collect::<Option<_>>().map(HeaderMatches)
    }

    fn schema() -> Json {
        json!({ "type": ["object", "null"], "additionalProperties": ValueMatch::schema() })
    }
}

/// `name: match` for query parameters.
struct QueryMatches(Vec<(String, ValueMatch)>);

impl Value for QueryMatches {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of query parameters")?;
        let matches = entries
            .iter()
            .map(|entry| ValueMatch::read(&entry.value, reader).map(|value| (entry.key.to_string(), value)));
        let matches: Vec<_> = matches.collect();
        matches.into_iter().collect::<Option<_>>().map(QueryMatches)
    }

    fn schema() -> Json {
        json!({ "type": ["object", "null"], "additionalProperties": ValueMatch::schema() })
    }
}

impl Value for ValueMatch {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.kind {
            Kind::Map(_) => OpenMatch::read(node, reader).map(|open| open.0),
            _ => text_value(node, reader).map(ValueMatch::Exact),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": ["string", "number", "boolean"] }, OpenMatch::schema()] })
    }
}

struct OpenMatch(ValueMatch);

block! {
    /// A value that is matched otherwise than exactly: one of `regex` and `present`.
    "a match of a value" OpenMatchBlock => OpenMatch {
        /// A regular expression for the whole value.
        regex: Regex,
        /// Whether it must be there at all, with any value.
        present: bool,
    }
}

impl OpenMatchBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<OpenMatch> {
        let (regex, present) = (self.regex.optional::<Regex>()?, self.present.optional::<bool>()?);
        match (regex, present) {
            (Some(Regex(regex)), None) => Some(OpenMatch(ValueMatch::Regex(regex))),
            (None, Some(present)) => Some(OpenMatch(ValueMatch::Present(present))),
            (Some(_), Some(_)) => {
                reader.error(place.span, "`regex` and `present` exclude each other", "keep one of them");
                None
            }
            (None, None) => {
                if !place.strays {
                    let remedy = "write a text, { regex: … } or { present: true }";
                    reader.error(place.span, "this matches nothing in particular", remedy);
                }
                None
            }
        }
    }
}

/// Tells of a parameter that the route's path doesn't define.
pub(super) fn unknown_parameter(name: &str, span: Span, matches: &Match, reader: &mut Reader<'_>) {
    let known = path_parameters(matches);
    let remedy = match (reader.suggestions.nearest(name, known.iter().copied()), known.as_slice()) {
        (Some(near), _) => format!("did you mean {{{near}}}?"),
        (None, []) => format!("give the route a `path` that holds {{{name}}}"),
        (None, known) => format!(
            "it has {}",
            known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ")
        ),
    };
    reader.error(span, format!("the route's path has no parameter {}", quoted(name)), remedy);
}
