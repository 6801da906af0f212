//! The same precedence, told the plain way: rank every route that matches, and take the first. The
//! table must agree with it on any routes and any request.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::config::{At, HostPattern, Match, PathMatch, Span, ValueMatch};

/// Smaller comes first. Fields in the order in which they count.
type Rank = (HostRank, PathRank, MethodRank, Reverse<usize>, Reverse<usize>, usize);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostRank {
    Exact,
    Wildcard(Reverse<usize>),
    Any,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    /// For every segment, whether it is a parameter.
    Whole(Vec<bool>),
    Prefix(Reverse<usize>),
    Regex(Reverse<usize>),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MethodRank {
    Written,
    FromGet,
    Any,
    NotAccepted,
}

/// The number of the route that wins, or the methods that would have had one.
fn reference(routes: &[Match], query: &Query<'_>) -> Result<usize, BTreeSet<String>> {
    let mut ranks: Vec<Rank> =
        routes.iter().enumerate().filter_map(|(n, route)| rank(n, route, query)).collect();
    ranks.sort();
    if let Some(best) = ranks.iter().find(|rank| rank.2 != MethodRank::NotAccepted) {
        return Ok(best.5);
    }
    let methods = ranks.iter().flat_map(|rank| &routes[rank.5].methods);
    let with_head = methods.flat_map(|method| match method.as_str() {
        "GET" => vec!["GET", "HEAD"],
        other => vec![other],
    });
    Err(with_head.map(String::from).collect())
}

/// The rank of a route whose conditions hold, all but the one on the method.
fn rank(number: usize, route: &Match, query: &Query<'_>) -> Option<Rank> {
    let holds = |value: Option<&str>, test: &ValueMatch| match test {
        ValueMatch::Exact(text) => value == Some(text),
        ValueMatch::Regex(pattern) => value.is_some_and(|value| matches_whole(pattern, value)),
        ValueMatch::Present(present) => value.is_some() == *present,
    };
    let pairs: Vec<(&str, &str)> =
        query.query.unwrap_or("").split('&').filter_map(|p| p.split_once('=')).collect();
    let headers_hold = route.headers.iter().all(|(name, test)| {
        let values: Vec<&str> = query.headers.get_all(name).filter_map(crate::http::fields::text).collect();
        let joined = values.join(", ");
        holds((!values.is_empty()).then_some(joined.as_str()), test)
    });
    let query_holds = route.query.iter().all(|(key, test)| {
        let value = pairs.iter().find(|(known, _)| known == key).map(|(_, value)| *value);
        holds(value, test)
    });
    let method = match query.method {
        method if route.methods.contains(method) => MethodRank::Written,
        method if *method == Method::HEAD && route.methods.contains(&Method::GET) => MethodRank::FromGet,
        _ if route.methods.is_empty() => MethodRank::Any,
        _ => MethodRank::NotAccepted,
    };
    let host = host_rank(&route.hosts, query.host)?;
    let path = path_rank(&route.path, query.path)?;
    let counts = (Reverse(route.headers.len()), Reverse(route.query.len()));
    (headers_hold && query_holds).then_some((host, path, method, counts.0, counts.1, number))
}

fn host_rank(patterns: &[HostPattern], host: &str) -> Option<HostRank> {
    if patterns.is_empty() {
        return Some(HostRank::Any);
    }
    let ranks = patterns.iter().filter_map(|pattern| match pattern {
        HostPattern::Exact(name) => (name == host).then_some(HostRank::Exact),
        HostPattern::Wildcard(suffix) => {
            host.ends_with(&format!(".{suffix}")).then_some(HostRank::Wildcard(Reverse(suffix.len())))
        }
    });
    ranks.min()
}

fn path_rank(pattern: &PathMatch, path: &str) -> Option<PathRank> {
    match pattern {
        PathMatch::Path(text) => {
            let (wanted, given): (Vec<&str>, Vec<&str>) =
                (text.split('/').collect(), path.split('/').collect());
            let matches = wanted.len() == given.len()
                && wanted
                    .iter()
                    .zip(&given)
                    .all(|(w, g)| if w.starts_with('{') { !g.is_empty() } else { w == g });
            matches.then(|| PathRank::Whole(wanted.iter().map(|w| w.starts_with('{')).collect()))
        }
        PathMatch::Prefix(text) => {
            let prefix = text.trim_end_matches('/');
            let matches = path == prefix || path.starts_with(&format!("{prefix}/"));
            matches.then_some(PathRank::Prefix(Reverse(prefix.len())))
        }
        PathMatch::Regex(text) => matches_whole(text, path).then_some(PathRank::Regex(Reverse(text.len()))),
    }
}

fn matches_whole(pattern: &str, text: &str) -> bool {
    regex::Regex::new(&format!("^(?:{pattern})$")).expect("a valid pattern").is_match(text)
}

fn paths() -> impl Strategy<Value = PathMatch> {
    let segments = |of: Vec<&'static str>| prop::collection::vec(select(of), 0..4);
    let at = |value: String| At { value, span: Span::default() };
    prop_oneof![
        4 => (segments(vec!["a", "b", "{p}", "{q}"]), any::<bool>()).prop_map(move |(segments, slash)| {
            let slash = if slash && !segments.is_empty() { "/" } else { "" };
            PathMatch::Path(at(format!("/{}{slash}", segments.join("/"))))
        }),
        3 => (segments(vec!["a", "b"]), any::<bool>()).prop_map(move |(segments, slash)| {
            let slash = if slash && !segments.is_empty() { "/" } else { "" };
            PathMatch::Prefix(at(format!("/{}{slash}", segments.join("/"))))
        }),
        1 => select(vec!["/a.*", "/.*", "/[ab]", "/a|/b", "/a/./c"]).prop_map(move |p| PathMatch::Regex(at(p.into()))),
    ]
}

fn values() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        select(vec!["1", "2", "1, 2"]).prop_map(|text| ValueMatch::Exact(text.into())),
        select(vec!["1", "[12]", "1.*"]).prop_map(|pattern| ValueMatch::Regex(pattern.into())),
        any::<bool>().prop_map(ValueMatch::Present),
    ]
}

fn methods() -> Vec<Method> {
    let brew = Method::from_bytes(b"BREW").expect("a token");
    vec![Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, brew]
}

fn routes() -> impl Strategy<Value = Vec<Match>> {
    let patterns = vec![
        HostPattern::Exact("x.a.h".into()),
        HostPattern::Exact("a.h".into()),
        HostPattern::Wildcard("a.h".into()),
        HostPattern::Wildcard("h".into()),
    ];
    let hosts = prop_oneof![2 => Just(Vec::new()), 3 => subsequence(patterns, 1..3)];
    let some_methods = prop_oneof![1 => Just(Vec::new()), 2 => subsequence(methods(), 1..3)];
    let names = ["x-a", "x-b"].map(HeaderName::from_static);
    let headers = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec((select(names.to_vec()), values()), 1..3)];
    let keys = select(vec!["q".to_owned(), "r".to_owned()]);
    let query = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec((keys, values()), 1..3)];
    let route = (paths(), hosts, some_methods, headers, query)
        .prop_map(|(path, hosts, methods, headers, query)| Match { path, hosts, methods, headers, query });
    prop::collection::vec(route, 0..24)
}

#[derive(Clone, Debug)]
struct Sent {
    host: &'static str,
    path: String,
    method: Method,
    headers: Fields,
    query: Option<String>,
}

fn requests() -> impl Strategy<Value = Sent> {
    let host = select(vec!["x.a.h", "y.a.h", "a.h", "b.h", "z"]);
    let path = (prop::collection::vec(select(vec!["a", "b", "c"]), 0..4), any::<bool>());
    let names = ["x-a", "x-b"].map(HeaderName::from_static);
    let header = (select(names.to_vec()), select(vec!["1", "2"]).prop_map(HeaderValue::from_static));
    let pairs = prop::collection::vec((select(vec!["q", "r"]), select(vec!["1", "2"])), 0..3);
    (host, path, select(methods()), prop::collection::vec(header, 0..4), pairs).prop_map(
        |(host, (segments, slash), method, fields, pairs)| {
            let slash = if slash && !segments.is_empty() { "/" } else { "" };
            let mut headers = Fields::new();
            for (name, value) in fields {
                headers.append(name, value);
            }
            let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let query = (!pairs.is_empty()).then(|| pairs.join("&"));
            Sent { host, path: format!("/{}{slash}", segments.join("/")), method, headers, query }
        },
    )
}

fn methods_in(allow: &HeaderValue) -> BTreeSet<String> {
    allow.to_str().expect("methods").split(", ").map(String::from).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_table_agrees(routes in routes(), requests in prop::collection::vec(requests(), 8)) {
        let table = Table::compile(routes.iter().cloned().zip(0..)).expect("routes that can be compiled");
        for sent in &requests {
            let Sent { host, path, method, headers, query } = sent;
            let query = Query { host, path, method, headers, query: query.as_deref() };
            match (table.find(&query), reference(&routes, &query)) {
                (Found::Route { place, params }, Ok(expected)) => {
                    prop_assert_eq!(table[place], expected);
                    let names = parameter_names(&routes[expected].path);
                    prop_assert_eq!(params.len(), names.len());
                    let PathMatch::Path(text) = &routes[expected].path else { continue };
                    let slots = text.split('/').zip(path.split('/')).filter(|(wanted, _)| wanted.starts_with('{'));
                    for (slot, (_, value)) in slots.enumerate() {
                        prop_assert_eq!(params.value(path, slot), Some(value));
                    }
                }
                (Found::MethodNotAllowed { allow }, Err(methods)) => prop_assert_eq!(methods_in(&allow), methods),
                (Found::None, Err(methods)) => prop_assert!(methods.is_empty()),
                (found, expected) => prop_assert!(false, "{sent:?}: {found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn allow_has_exactly_the_methods_that_would_do(routes in routes(), sent in requests()) {
        let table = Table::compile(routes.iter().cloned().zip(0..)).expect("routes that can be compiled");
        let Sent { host, path, method, headers, query } = &sent;
        let query = Query { host, path, method, headers, query: query.as_deref() };
        let Found::MethodNotAllowed { allow } = table.find(&query) else { return Ok(()) };
        let finds = |method: &Method| matches!(table.find(&Query { method, ..query }), Found::Route { .. });
        let would_do = methods().into_iter().filter(finds).map(|method| method.to_string()).collect();
        prop_assert_eq!(methods_in(&allow), would_do);
    }
}
