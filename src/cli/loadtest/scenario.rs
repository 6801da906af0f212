//! A scenario file: requests with weights, and a load that rises and falls.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::Value;

use super::arguments::some_time;
use super::outcome::Accepted;
use super::plan::{Load, PathPiece, Target, Values};
use super::shape::{Shape, Stage};
use super::traffic::written;
use crate::config::parse_document;

const MAX_STAGES: usize = 1000;
const MAX_RATE: f64 = 1_000_000.0;
const MAX_AT_ONCE: f64 = 20_000.0;

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub target: Option<String>,
    #[serde(default)]
    load: Vec<Step>,
    requests: Vec<Request>,
}

/// One of `rate` and `connections`, for some time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    rate: Option<Level>,
    connections: Option<Level>,
    #[serde(rename = "for")]
    duration: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Level {
    Constant(f64),
    Ramp(Ramp),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ramp {
    from: f64,
    to: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    name: Option<String>,
    #[serde(default = "one")]
    weight: u32,
    method: Option<String>,
    path: String,
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
    body: Option<String>,
    json: Option<Value>,
    accept_status: Option<String>,
}

fn one() -> u32 {
    1
}

impl Scenario {
    /// # Errors
    ///
    /// In words, with line and column where it isn't a scenario at all.
    pub fn parse(text: &str) -> Result<Scenario, String> {
        parse_document(text)
    }

    /// `None` where the command line says what the load is.
    pub fn load(&self) -> Result<Option<Load>, String> {
        if self.load.len() > MAX_STAGES {
            return Err(format!("load: {MAX_STAGES} steps are the most"));
        }
        let mut stages = Vec::new();
        let mut open = None;
        for (index, step) in self.load.iter().enumerate() {
            let wrong = |why: String| format!("load, step {}: {why}", index + 1);
            let (is_open, level, most) = match (&step.rate, &step.connections) {
                (Some(rate), None) => (true, rate, MAX_RATE),
                (None, Some(connections)) => (false, connections, MAX_AT_ONCE),
                _ => return Err(wrong("write either rate or connections".into())),
            };
            if *open.get_or_insert(is_open) != is_open {
                return Err(wrong("all steps have a rate, or all have connections".into()));
            }
            let duration = some_time(&step.duration).map_err(|why| wrong(format!("for: {why}")))?;
            let (from, to) = match level {
                Level::Constant(level) => (*level, *level),
                Level::Ramp(ramp) => (ramp.from, ramp.to),
            };
            if ![from, to].iter().all(|level| (0.0..=most).contains(level)) {
                return Err(wrong(format!("0 to {most} are possible")));
            }
            stages.push(Stage { from, to, duration });
        }
        let whole: Duration = stages.iter().map(|stage| stage.duration).sum();
        some_time(&format!("{}ms", whole.as_millis().max(1)))
            .map_err(|why| format!("load, all steps: {why}"))?;
        let shape = Shape::new(stages);
        if open.is_some() && shape.highest() == 0.0 {
            return Err("load: no step has a level above 0".into());
        }
        Ok(open.map(|is_open| if is_open { Load::Open(shape) } else { Load::Closed(shape) }))
    }

    /// # Errors
    ///
    /// When a request can't be made.
    pub fn targets(
        &self,
        usual: &http::HeaderMap,
        accepted: Option<&Accepted>,
    ) -> Result<Vec<Target>, String> {
        let made = self.requests.iter().enumerate().map(|(index, request)| {
            let target = request.target(usual, accepted);
            target.map_err(|why| format!("requests, {}: {why}", request.called(index)))
        });
        made.collect()
    }
}

impl Request {
    fn called(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("number {}", index + 1))
    }

    fn target(&self, usual: &http::HeaderMap, accepted: Option<&Accepted>) -> Result<Target, String> {
        let mut headers = usual.clone();
        let body = match (&self.body, &self.json) {
            (Some(_), Some(_)) => return Err("write either body or json".into()),
            (Some(text), None) => Some(Bytes::from(text.clone())),
            (None, Some(value)) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Some(Bytes::from(value.to_string()))
            }
            (None, None) => None,
        };
        for (name, value) in &self.headers {
            let wrong = || format!("{name:?} is no field, or {value:?} no value of one");
            headers.insert(
                HeaderName::try_from(name).map_err(|_| wrong())?,
                value.parse().map_err(|_| wrong())?,
            );
        }
        let usual = if body.is_some() { Method::POST } else { Method::GET };
        let method = match &self.method {
            Some(name) => name.parse().map_err(|_| format!("{name:?} is no method"))?,
            None => usual,
        };
        let own = self.accept_status.as_deref().map(str::parse::<Accepted>).transpose()?;
        Ok(Target {
            name: self.name.clone().unwrap_or_else(|| format!("{method} {}", self.path)),
            weight: self.weight,
            method,
            host: self.host.clone(),
            path: self.pieces()?,
            headers,
            body: body.unwrap_or_default(),
            accepted: own.or_else(|| accepted.cloned()).unwrap_or_default(),
        })
    }

    /// `{name}` stands for a parameter anywhere in path and query.
    fn pieces(&self) -> Result<Vec<PathPiece>, String> {
        if !self.path.starts_with('/') {
            return Err(format!("path {:?} does not begin with /", self.path));
        }
        let mut pieces = Vec::new();
        let mut rest = self.path.as_str();
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, behind) = after
                .split_once('}')
                .ok_or_else(|| format!("path {:?} has a {{ without its }}", self.path))?;
            let values = match self.parameters.get(name) {
                Some(text) => Values::parse(text).map_err(|why| format!("parameters, {name}: {why}"))?,
                None => return Err(format!("parameters: {name:?} is missing, which the path names")),
            };
            pieces.push(PathPiece::Literal(with_query(literal)));
            pieces.push(PathPiece::Parameter(values));
            rest = behind;
        }
        pieces.push(PathPiece::Literal(with_query(rest)));
        Ok(pieces)
    }
}

fn with_query(text: &str) -> String {
    text.split('?').map(written).collect::<Vec<_>>().join("?")
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const SHOP: &str = "
target: http://127.0.0.1:8000
load:
  - { rate: { from: 0, to: 100 }, for: 10s }
  - { rate: 100, for: 1m }
requests:
  - { name: read, weight: 9, path: '/users/{id}?tab={tab}', parameters: { id: 1..3, tab: 'a,b' }, accept_status: '200,404' }
  - { path: /users, json: { name: Ada }, headers: { x-a: b }, host: shop.example.com }
";

    #[test]
    fn a_scenario_is_requests_and_a_load() {
        let shop = Scenario::parse(SHOP).expect("a scenario");
        let Some(Load::Open(shape)) = shop.load().expect("a load") else { panic!("it is open") };
        assert_eq!((shape.duration(), shape.requests()), (Duration::from_secs(70), 6500));
        let targets = shop.targets(&HeaderMap::new(), None).expect("good requests");
        assert_eq!((targets[0].name.as_str(), targets[0].weight, targets[0].path.len()), ("read", 9, 5));
        assert!(targets[0].accepted.accepts(404));
        let add = &targets[1];
        assert_eq!((add.name.as_str(), &add.body[..]), ("POST /users", &br#"{"name":"Ada"}"#[..]));
        assert_eq!(
            (&add.headers["x-a"], add.host.as_deref()),
            (&HeaderValue::from_static("b"), Some("shop.example.com"))
        );
    }

    #[test]
    fn mistakes_are_told() {
        let load =
            |text: &str| Scenario::parse(&format!("load: {text}\nrequests: []")).and_then(|s| s.load());
        for (text, told) in [
            ("[{ rate: 1, connections: 1, for: 1s }]", "step 1: write either"),
            ("[{ for: 1s }]", "either"),
            ("[{ rate: 1, for: 1s }, { connections: 1, for: 1s }]", "step 2: all steps"),
            ("[{ rate: 1, for: 0s }]", "for:"),
            ("[{ rate: -1, for: 1s }]", "possible"),
            ("[{ rate: .nan, for: 1s }]", "non-finite"),
            ("[{ rate: 0, for: 1s }]", "above 0"),
            ("[{ rate: 1, for: 20h }, { rate: 1, for: 20h }]", "24h"),
        ] {
            let error = load(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
        let request = |text: &str| {
            Scenario::parse(&format!("requests: [{text}]")).and_then(|s| s.targets(&HeaderMap::new(), None))
        };
        for (text, told) in [
            ("{ path: a }", "number 1: path"),
            ("{ path: '/{a}' }", "\"a\" is missing"),
            ("{ path: '/{a' }", "without its"),
            ("{ path: '/{a}', parameters: { a: 2..1 } }", "parameters, a"),
            ("{ path: /, method: 'A B' }", "no method"),
            ("{ path: /, body: a, json: 1 }", "either body or json"),
            ("{ path: /, headers: { 'a b': c } }", "no field"),
            ("{ path: /, accept_status: x }", "neither a status"),
            ("{ name: home, path: x }", "requests, home"),
            ("{ path: /, wieght: 2 }", "wieght"),
            ("{}", "path"),
        ] {
            let error = request(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(Scenario::parse("requests: 5").expect_err("no list").starts_with("1:"));
    }
}
