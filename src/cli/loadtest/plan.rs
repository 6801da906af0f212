//! What a load test does: made ready before the first request, and not changed after it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::Full;
use rustls::pki_types::ServerName;

use super::outcome::Accepted;
use super::record::Frame;
use super::shape::Shape;

/// Targets of a test: each has its own histogram.
pub const MAX_TARGETS: usize = 256;
/// Turns in which targets take each other's place.
const MAX_TURNS: usize = 4096;

/// One test.
#[derive(Clone)]
pub struct Plan {
    pub endpoint: Endpoint,
    /// Never empty.
    pub targets: Vec<Target>,
    /// By number of request, again and again: numbers of targets.
    pub turns: Vec<u16>,
    pub load: Load,
    /// The first part of the load's time: what is due in it does not count.
    pub warmup: Duration,
    /// Requests that are sent at most, those of the warm-up included.
    pub requests: Option<u64>,
    pub timeout: Duration,
    /// Connections open at once, at most.
    pub connections: usize,
    /// Requests at once on one of them: more than one with HTTP/2 only.
    pub streams: usize,
    pub threads: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Load {
    /// Requests are due at their times, whatever becomes of those before.
    Open(Shape),
    /// So many requests at once, each sent when the one before has ended.
    Closed(Shape),
}

impl Load {
    pub fn shape(&self) -> &Shape {
        match self {
            Load::Open(shape) | Load::Closed(shape) => shape,
        }
    }
}

/// Where connections lead.
#[derive(Clone)]
pub struct Endpoint {
    /// As people know it: `http://127.0.0.1:8000`.
    pub name: String,
    /// Tried one after another. Never empty.
    pub addresses: Vec<SocketAddr>,
    pub tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    pub http2: bool,
    /// What requests name as their host unless they say otherwise.
    pub authority: String,
}

/// A kind of request.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub weight: u32,
    pub method: Method,
    pub host: Option<String>,
    /// With its query.
    pub path: Vec<PathPiece>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub accepted: Accepted,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathPiece {
    Literal(String),
    Parameter(Values),
}

/// What a parameter is replaced by, in turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Numbers { first: u64, last: u64 },
    Texts(Vec<String>),
}

impl Values {
    /// `1..1000` or `a,b,c`.
    pub fn parse(text: &str) -> Result<Values, String> {
        if let Some((first, last)) = text.split_once("..") {
            let numbers = (first.parse(), last.trim_start_matches('=').parse());
            return match numbers {
                (Ok(first), Ok(last)) if first <= last => Ok(Values::Numbers { first, last }),
                _ => Err(format!("{text:?} is not a range of numbers: write 1..1000")),
            };
        }
        let texts: Vec<String> = text.split(',').map(escaped).collect();
        match texts.iter().any(String::is_empty) {
            true => Err(format!("{text:?} has an empty value: write a,b,c or 1..1000")),
            false => Ok(Values::Texts(texts)),
        }
    }

    /// The value of the request with this number. Neighbours get different ones.
    fn push(&self, number: u64, out: &mut String) {
        match self {
            Values::Numbers { first, last } => {
                let count = (last - first).checked_add(1);
                let offset = count.map_or(number, |count| number % count);
                out.push_str(itoa::Buffer::new().format(first + offset));
            }
            Values::Texts(texts) => {
                let turn = usize::try_from(number % texts.len() as u64).unwrap_or_default();
                out.push_str(&texts[turn]);
            }
        }
    }
}

/// As one segment of a path.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

impl Target {
    /// The request with this number, as it is written on a connection to `endpoint`.
    pub fn request(&self, endpoint: &Endpoint, number: u64) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut path = String::new();
        for piece in &self.path {
            match piece {
                PathPiece::Literal(text) => path.push_str(text),
                PathPiece::Parameter(values) => values.push(number, &mut path),
            }
        }
        let authority = self.host.as_deref().unwrap_or(&endpoint.authority);
        let uri: Uri = match endpoint.http2 {
            true => {
                let scheme = if endpoint.tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{authority}{path}").parse()?
            }
            false => path.parse()?,
        };
        let mut request =
            Request::builder().method(self.method.clone()).uri(uri).body(Full::new(self.body.clone()))?;
        request.headers_mut().clone_from(&self.headers);
        if !endpoint.http2 && !self.headers.contains_key(header::HOST) {
            request.headers_mut().insert(header::HOST, authority.parse()?);
        }
        Ok(request)
    }
}

impl Plan {
    pub fn target_of(&self, number: u64) -> usize {
        let turn = usize::try_from(number % self.turns.len() as u64).unwrap_or_default();
        usize::from(self.turns[turn])
    }

    pub fn frame(&self) -> Frame {
        Frame {
            warmup: self.warmup,
            duration: self.load.shape().duration().saturating_sub(self.warmup),
            accepted: self.targets.iter().map(|target| target.accepted.clone()).collect(),
        }
    }
}

/// The order in which targets take turns: each as often as its weight says, spread evenly.
///
/// # Errors
///
/// When there are none, or too many, or the weights together are nothing.
pub fn turns(targets: &[Target]) -> Result<Vec<u16>, String> {
    if targets.len() > MAX_TARGETS {
        return Err(format!("{} kinds of requests are too many: {MAX_TARGETS} are the most", targets.len()));
    }
    let weights: Vec<u64> = targets.iter().map(|target| u64::from(target.weight)).collect();
    let sum: u64 = weights.iter().sum();
    if sum == 0 {
        return Err("there is nothing to send: no request has a weight above 0".into());
    }
    let divisor = weights.iter().fold(sum, |a, b| gcd(a, *b));
    let length = usize::try_from(sum / divisor).unwrap_or(MAX_TURNS).min(MAX_TURNS);
    // The one that is furthest behind its share comes next.
    let mut owed = vec![0i128; weights.len()];
    let turn = |_| {
        for (owed, weight) in owed.iter_mut().zip(&weights) {
            *owed += i128::from(*weight);
        }
        let next = (0..owed.len()).rev().max_by_key(|index| owed[*index]).unwrap_or_default();
        owed[next] -= i128::from(sum);
        u16::try_from(next).unwrap_or_default()
    };
    Ok((0..length).map(turn).collect())
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn target(name: &str, weight: u32) -> Target {
        Target {
            name: name.to_owned(),
            weight,
            method: Method::GET,
            host: None,
            path: vec![PathPiece::Literal("/".into())],
            headers: HeaderMap::new(),
            body: Bytes::new(),
            accepted: Accepted::default(),
        }
    }

    fn endpoint(http2: bool) -> Endpoint {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let authority = "localhost:80".to_owned();
        Endpoint { name: "here".into(), addresses: vec![address], tls: None, http2, authority }
    }

    #[test]
    fn parameters_are_filled_in_turn() {
        let mut target = target("user", 1);
        target.path = vec![
            PathPiece::Literal("/users/".into()),
            PathPiece::Parameter(Values::parse("7..8").expect("a range")),
            PathPiece::Literal("/".into()),
            PathPiece::Parameter(Values::parse("a,b c").expect("a list")),
        ];
        let uri = |number| target.request(&endpoint(false), number).expect("a good one").uri().to_string();
        assert_eq!([uri(0), uri(1), uri(2)], ["/users/7/a", "/users/8/b%20c", "/users/7/a"]);
        assert_eq!(
            Values::parse("0..18446744073709551615").map(|values| {
                let mut out = String::new();
                values.push(5, &mut out);
                out
            }),
            Ok("5".to_owned())
        );
        for bad in ["2..1", "a..b", "1..", "a,,b", ""] {
            assert!(Values::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_host_is_where_the_version_of_http_has_it() {
        let mut target = target("a", 1);
        let one = target.request(&endpoint(false), 0).expect("a good one");
        assert_eq!(
            (one.uri().to_string(), &one.headers()["host"]),
            ("/".into(), &"localhost:80".parse().expect("ASCII"))
        );
        target.host = Some("shop.example.com".into());
        let two = target.request(&endpoint(true), 0).expect("a good one");
        assert_eq!(two.uri(), "http://shop.example.com/");
        assert!(two.headers().is_empty());
    }

    #[test]
    fn nothing_or_too_much_is_refused() {
        assert!(turns(&[]).is_err());
        assert!(turns(&[target("a", 0)]).is_err());
        assert!(turns(&vec![target("a", 1); MAX_TARGETS + 1]).is_err());
        let spread = turns(&[target("a", 3), target("b", 1)]).expect("good weights");
        assert_eq!(spread, [0, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn turns_are_as_many_as_weights_say(weights in prop::collection::vec(0u32..50, 1..12)) {
            prop_assume!(weights.iter().sum::<u32>() > 0);
            let targets: Vec<Target> = weights.iter().map(|weight| target("t", *weight)).collect();
            let turns = turns(&targets).expect("good weights");
            let sum: u32 = weights.iter().sum();
            for (index, weight) in weights.iter().enumerate() {
                let taken = turns.iter().filter(|turn| usize::from(**turn) == index).count();
                prop_assert_eq!(taken as u32 * sum, weight * turns.len() as u32);
            }
        }
    }
}
