//! Traffic for the routes of a configuration: for each one requests that it takes, with what its conditions and policies ask
//! for.

pub mod openapi;
mod pattern;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Map, Value};

use super::outcome::Accepted;
use super::plan::{PathPiece, Target, Values, escaped};
use crate::cli::token::sign;
use crate::config::{self, Action, Config, HostPattern, PathMatch, TokenSource, ValueMatch};
use openapi::{OpenApi, Operation};

/// What a host under a wildcard is called.
const HOST: &str = "loadtest";
/// Who the tokens are for.
const SUBJECT: &str = "loadtest";

/// What the command line says of the traffic.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Empty: all routes.
    pub routes: Vec<String>,
    pub weights: BTreeMap<String, u32>,
    pub parameters: BTreeMap<String, Values>,
    /// For routes that take one.
    pub body: Option<Bytes>,
    /// In place of those that would be signed.
    pub token: Option<String>,
    /// Beside those that routes ask for.
    pub headers: HeaderMap,
    pub accepted: Option<Accepted>,
    pub openapi: Option<OpenApi>,
    /// How long tokens are good for.
    pub life: Duration,
}

/// Requests for routes, and why there are none for others.
#[derive(Debug)]
pub struct Traffic {
    pub targets: Vec<Target>,
    pub left_out: Vec<(String, String)>,
}

impl Traffic {
    /// # Errors
    ///
    /// When a route that is wished for is not there.
    pub fn of(config: &Config, wishes: &Wishes, now: SystemTime) -> Result<Traffic, String> {
        let known = |name: &String| config.routes.iter().any(|route| *name == route.name.value);
        if let Some(name) = wishes.routes.iter().chain(wishes.weights.keys()).find(|name| !known(name)) {
            let names: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
            return Err(format!("there is no route {name:?}; there are {}", names.join(", ")));
        }
        let mut traffic = Traffic { targets: Vec::new(), left_out: Vec::new() };
        let wanted =
            |route: &&config::Route| wishes.routes.is_empty() || wishes.routes.contains(&route.name.value);
        for route in config.routes.iter().filter(wanted) {
            let maker = Maker { config, wishes, route, now };
            match maker.targets() {
                Ok(targets) => traffic.targets.extend(targets),
                Err(why) => traffic.left_out.push((route.name.value.clone(), why)),
            }
        }
        Ok(traffic)
    }
}

/// Makes the requests of one route.
struct Maker<'a> {
    config: &'a Config,
    wishes: &'a Wishes,
    route: &'a config::Route,
    now: SystemTime,
}

impl Maker<'_> {
    fn targets(&self) -> Result<Vec<Target>, String> {
        if self.is_batch() && self.wishes.body.is_none() {
            return Err("it is a batch of requests, and nobody knows which: give them with --body".to_owned());
        }
        let described =
            self.wishes.openapi.as_ref().map(|openapi| self.described(openapi)).unwrap_or_default();
        if !described.is_empty() {
            return described
                .iter()
                .map(|operation| self.target(&operation.method, Some(operation)))
                .collect();
        }
        self.methods().iter().map(|method| self.target(method, None)).collect()
    }

    /// The operations of a description that this route takes.
    fn described<'o>(&self, openapi: &'o OpenApi) -> Vec<&'o Operation> {
        let methods = &self.route.matches.methods;
        let allowed = |operation: &&Operation| methods.is_empty() || methods.contains(&operation.method);
        let matches = |operation: &&Operation| openapi::takes(&self.route.matches.path, &operation.path);
        openapi.operations.iter().filter(allowed).filter(matches).collect()
    }

    fn methods(&self) -> Vec<Method> {
        let methods = &self.route.matches.methods;
        // Preflights and tunnels are no load.
        let plain =
            methods.iter().filter(|method| !matches!(method.as_str(), "OPTIONS" | "CONNECT" | "TRACE"));
        let plain: Vec<Method> = plain.cloned().collect();
        match methods.is_empty() {
            true if self.is_batch() => vec![Method::POST],
            true => vec![Method::GET],
            false => plain,
        }
    }

    fn is_batch(&self) -> bool {
        matches!(self.route.action, Action::Batch(_))
    }

    fn target(&self, method: &Method, operation: Option<&Operation>) -> Result<Target, String> {
        let matches = &self.route.matches;
        let mut path = match (operation, &matches.path) {
            (Some(operation), _) => self.template(&operation.path, &operation.parameters),
            (None, PathMatch::Path(text)) => self.template(&text.value, &BTreeMap::new()),
            (None, PathMatch::Prefix(text)) => vec![PathPiece::Literal(written(&text.value))],
            (None, PathMatch::Regex(text)) => vec![PathPiece::Literal(self.path_for(&text.value)?)],
        };
        if let Some(query) = self.query(operation)? {
            path.push(PathPiece::Literal(query));
        }
        let mut headers = self.wishes.headers.clone();
        self.conditions(&mut headers)?;
        self.identify(method, &mut headers)?;
        let body = match *method == Method::POST || *method == Method::PUT || *method == Method::PATCH {
            true => self.body(operation, &mut headers),
            false => Bytes::new(),
        };
        let weight = self.wishes.weights.get(&self.route.name.value).copied().unwrap_or(1);
        Ok(Target {
            name: self.name(method, operation),
            weight,
            method: method.clone(),
            host: matches.hosts.first().map(|host| match host {
                HostPattern::Exact(name) => name.clone(),
                HostPattern::Wildcard(domain) => format!("{HOST}.{domain}"),
            }),
            path,
            headers,
            body,
            accepted: self.accepted(),
        })
    }

    fn name(&self, method: &Method, operation: Option<&Operation>) -> String {
        let name = &self.route.name.value;
        match operation {
            Some(operation) => format!("{name} {method} {}", operation.path),
            None if self.methods().len() > 1 => format!("{name} {method}"),
            None => name.clone(),
        }
    }

    /// `{name}` is what the command line says, else what the description says, else 1.
    fn template(&self, text: &str, described: &BTreeMap<String, String>) -> Vec<PathPiece> {
        let mut pieces = Vec::new();
        for segment in text.trim_start_matches('/').split('/') {
            pieces.push(PathPiece::Literal("/".to_owned()));
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            pieces.push(match name {
                None => PathPiece::Literal(written(segment)),
                Some(name) => {
                    let given = self.wishes.parameters.get(name).cloned();
                    let described = described.get(name).map(|value| Values::Texts(vec![escaped(value)]));
                    let any = Values::Numbers { first: 1, last: 1 };
                    PathPiece::Parameter(given.or(described).unwrap_or(any))
                }
            });
        }
        pieces
    }

    fn path_for(&self, pattern: &str) -> Result<String, String> {
        match pattern::sample(pattern).filter(|path| path.starts_with('/')) {
            Some(path) => Ok(written(&path)),
            None => Err(format!("no path was found that the pattern {pattern:?} matches")),
        }
    }

    fn query(&self, operation: Option<&Operation>) -> Result<Option<String>, String> {
        let described = operation.map(|operation| operation.query.iter()).into_iter().flatten();
        let mut all: BTreeMap<&str, String> =
            described.map(|(name, value)| (name.as_str(), value.clone())).collect();
        for (name, value) in &self.route.matches.query {
            match example(value)? {
                Some(value) => drop(all.insert(name, value)),
                None => drop(all.remove(name.as_str())),
            }
        }
        let pairs: Vec<String> =
            all.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
        Ok((!pairs.is_empty()).then(|| format!("?{}", pairs.join("&"))))
    }

    /// The fields that the route's match asks for.
    fn conditions(&self, headers: &mut HeaderMap) -> Result<(), String> {
        for (name, value) in &self.route.matches.headers {
            match example(value)? {
                Some(value) => {
                    let value =
                        HeaderValue::try_from(value).map_err(|_| format!("no value is good for {name}"))?;
                    headers.insert(name, value);
                }
                None => drop(headers.remove(name)),
            }
        }
        Ok(())
    }

    /// A token, where the route asks for one.
    fn identify(&self, method: &Method, headers: &mut HeaderMap) -> Result<(), String> {
        let Some(authenticate) = &self.route.authenticate else { return Ok(()) };
        if !authenticate.methods.is_empty() && !authenticate.methods.contains(method) {
            return Ok(());
        }
        let named = |name: &str| self.config.authenticators.iter().find(|known| known.name.value == name);
        let usable = authenticate.with.iter().filter_map(|reference| named(&reference.value));
        let mut last = "it has no authenticator".to_owned();
        for authenticator in usable {
            let token = match &self.wishes.token {
                Some(token) => Ok(token.clone()),
                None => sign(authenticator, self.claims(), self.now, self.wishes.life),
            };
            match token {
                Ok(token) => return carry(&token, authenticator, headers),
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("no token can be signed ({last}): give one with --token"))
    }

    /// Those that the route's rules ask for.
    fn claims(&self) -> Map<String, Value> {
        let mut claims = Map::new();
        claims.insert("sub".into(), SUBJECT.into());
        for rule in &self.route.authorize {
            if let Some(value) = rule.values.first() {
                claims.insert(rule.claim.clone(), value.as_str().into());
            }
        }
        claims
    }

    fn body(&self, operation: Option<&Operation>, headers: &mut HeaderMap) -> Bytes {
        let described = operation.and_then(|operation| operation.body.clone());
        let json = HeaderValue::from_static("application/json");
        if !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, json);
        }
        described.or_else(|| self.wishes.body.clone()).unwrap_or_else(|| Bytes::from_static(b"{}"))
    }

    /// What the configuration itself answers is what is expected of it.
    fn accepted(&self) -> Accepted {
        match (&self.wishes.accepted, &self.route.action) {
            (Some(accepted), _) => accepted.clone(),
            (None, Action::Respond(response)) => Accepted::default().and(response.status.as_u16()),
            (None, _) => Accepted::default(),
        }
    }
}

/// Where the authenticator looks first.
fn carry(token: &str, authenticator: &config::Authenticator, headers: &mut HeaderMap) -> Result<(), String> {
    let (name, value) = match authenticator.jwt.token_from.first() {
        Some(TokenSource::Cookie(name)) => (header::COOKIE, format!("{name}={token}")),
        Some(TokenSource::Bearer) | None => (header::AUTHORIZATION, format!("Bearer {token}")),
    };
    headers.insert(
        name,
        value.parse().map_err(|_| "the token has characters that no field may have".to_owned())?,
    );
    Ok(())
}

/// A value that the condition accepts; none where there must be none.
fn example(condition: &ValueMatch) -> Result<Option<String>, String> {
    match condition {
        ValueMatch::Exact(value) => Ok(Some(value.clone())),
        ValueMatch::Present(true) => Ok(Some("1".to_owned())),
        ValueMatch::Present(false) => Ok(None),
        ValueMatch::Regex(pattern) => pattern::sample(pattern)
            .map(Some)
            .ok_or_else(|| format!("no value was found that the pattern {pattern:?} matches")),
    }
}

/// A path of the configuration as a request has it: escapes stay, what may not stand in a URI is escaped.
pub fn written(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~'
                if !matches!(
                    byte,
                    b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'?' | b'#'
                ) =>
            {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests;
