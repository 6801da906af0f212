//! What a route asks of a request beyond host, path and method.

use std::borrow::Cow;

use http::header::{self, HeaderName};
use regex::bytes::Regex;

use crate::config::ValueMatch;
use crate::http::fields::Fields;
use crate::http::query;

use super::Query;

/// All of them must hold.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Only for routes by `regex:`, matched against the whole path.
    pub(super) path: Option<Regex>,
    headers: Box<[(HeaderName, ValueTest)]>,
    query: Box<[(Box<str>, ValueTest)]>,
}

#[derive(Debug)]
enum ValueTest {
    Exact(Box<[u8]>),
    /// Anchored at both ends.
    Regex(Regex),
    Present(bool),
}

/// Whether the request is there whole, or only announced by a CORS preflight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Whole,
    Announced,
}

impl Conditions {
    /// `None` when there are none.
    pub(super) fn compile(
        path: Option<Regex>,
        headers: Vec<(HeaderName, ValueMatch)>,
        query: Vec<(String, ValueMatch)>,
    ) -> Result<Option<Box<Self>>, regex::Error> {
        if path.is_none() && headers.is_empty() && query.is_empty() {
            return Ok(None);
        }
        let headers = headers.into_iter().map(|(name, value)| Ok((name, ValueTest::compile(value)?)));
        let query = query.into_iter().map(|(key, value)| Ok((key.into(), ValueTest::compile(value)?)));
        Ok(Some(Box::new(Conditions {
            path,
            headers: headers.collect::<Result<_, regex::Error>>()?,
            query: query.collect::<Result<_, regex::Error>>()?,
        })))
    }

    /// How many of them are on fields, and how many on the query.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.headers.len(), self.query.len())
    }

    pub(super) fn hold(&self, request: &Query<'_>, sent: Sent) -> bool {
        self.headers.iter().all(|(name, test)| match sent {
            Sent::Announced if is_announced(request.headers, name) => {
                !matches!(test, ValueTest::Present(false))
            }
            _ => header_holds(request.headers, name, test),
        }) && self.query.iter().all(|(key, test)| query_holds(request.query.unwrap_or_default(), key, test))
            && self.path.as_ref().is_none_or(|regex| regex.is_match(request.path.as_bytes()))
    }
}

impl ValueTest {
    fn compile(value: ValueMatch) -> Result<Self, regex::Error> {
        Ok(match value {
            ValueMatch::Exact(text) => ValueTest::Exact(text.into_bytes().into()),
            ValueMatch::Regex(pattern) => ValueTest::Regex(anchored(&pattern)?),
            ValueMatch::Present(present) => ValueTest::Present(present),
        })
    }
}

/// A regex that must match the whole of what it is applied to.
pub(super) fn anchored(pattern: &str) -> Result<Regex, regex::Error> {
    // On its own first: `a)|(b` is no pattern, but would be one inside of parentheses.
    Regex::new(pattern)?;
    Regex::new(&format!(r"\A(?:{pattern})\z"))
}

fn header_holds(headers: &Fields, name: &HeaderName, test: &ValueTest) -> bool {
    match test {
        ValueTest::Present(present) => headers.contains(name) == *present,
        ValueTest::Exact(expected) => headers.contains(name) && joined_equals(headers, name, expected),
        ValueTest::Regex(regex) => joined(headers, name).is_some_and(|value| regex.is_match(&value)),
    }
}

/// A repeated field is one list (RFC 9110 §5.3), so that a second value can't hide behind the first;
/// cookies, which HTTP/2 splits, are joined their own way (RFC 9113 §8.2.3).
fn separator(name: &HeaderName) -> &'static [u8] {
    if *name == header::COOKIE { b"; " } else { b", " }
}

fn joined_equals(headers: &Fields, name: &HeaderName, expected: &[u8]) -> bool {
    let mut rest = Some(expected);
    for (place, value) in headers.get_all(name).enumerate() {
        let separator = if place == 0 { &[] } else { separator(name) };
        rest = rest.and_then(|rest| rest.strip_prefix(separator)?.strip_prefix(value));
    }
    rest == Some(&[])
}

/// Allocates only when the field is repeated.
fn joined<'h>(headers: &'h Fields, name: &'h HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut values = headers.get_all(name);
    let mut joined = Cow::Borrowed(values.next()?);
    for value in values {
        let joined = joined.to_mut();
        joined.extend_from_slice(separator(name));
        joined.extend_from_slice(value);
    }
    Some(joined)
}

/// Whether a preflight says that the request will have the field.
fn is_announced(headers: &Fields, name: &HeaderName) -> bool {
    let lists = headers.get_all(&header::ACCESS_CONTROL_REQUEST_HEADERS);
    let mut names = lists.flat_map(|list| list.split(|&byte| byte == b','));
    names.any(|announced| announced.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

fn query_holds(query: &str, key: &str, test: &ValueTest) -> bool {
    let value = query::first(query, key);
    match test {
        ValueTest::Present(present) => value.is_some() == *present,
        ValueTest::Exact(expected) => value.is_some_and(|value| query::equals(value, expected)),
        ValueTest::Regex(regex) => value.is_some_and(|value| regex.is_match(&query::decode(value))),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    fn holds(test: ValueMatch, fields: &[(&str, &str)], query: Option<&str>, sent: Sent) -> bool {
        let mut headers = Fields::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a valid name");
            headers.append(name, HeaderValue::from_str(value).expect("a valid value"));
        }
        let (on_header, on_query) = match query {
            None => (
                vec![(
                    HeaderName::from_static(if fields.iter().any(|f| f.0 == "cookie") {
                        "cookie"
                    } else {
                        "x-a"
                    }),
                    test,
                )],
                vec![],
            ),
            Some(_) => (vec![], vec![("a".to_owned(), test)]),
        };
        let compiled = Conditions::compile(None, on_header, on_query).expect("valid patterns");
        let conditions = compiled.expect("there is one");
        let query = Query { host: "h", path: "/", method: &Method::GET, headers: &headers, query };
        conditions.hold(&query, sent)
    }

    fn header(test: ValueMatch, fields: &[(&str, &str)]) -> bool {
        holds(test, fields, None, Sent::Whole)
    }

    fn exact(text: &str) -> ValueMatch {
        ValueMatch::Exact(text.into())
    }

    fn regex(pattern: &str) -> ValueMatch {
        ValueMatch::Regex(pattern.into())
    }

    #[test]
    fn a_field_is_compared_whole() {
        assert!(header(exact("2"), &[("x-a", "2")]));
        assert!(!header(exact("2"), &[("x-a", "22")]));
        assert!(!header(exact("22"), &[("x-a", "2")]));
        assert!(!header(exact(""), &[]));
        assert!(header(exact(""), &[("x-a", "")]));
        assert!(header(regex("a|ab"), &[("x-a", "ab")]));
        assert!(!header(regex("a"), &[("x-a", "ab")]));
        assert!(!header(regex(".*"), &[]));
        assert!(header(ValueMatch::Present(true), &[("x-a", "")]));
        assert!(!header(ValueMatch::Present(true), &[]));
        assert!(header(ValueMatch::Present(false), &[]));
    }

    #[test]
    fn a_repeated_field_is_one_list() {
        let twice = [("x-a", "1"), ("x-a", "2")];
        assert!(header(exact("1, 2"), &twice));
        assert!(!header(exact("1"), &twice));
        assert!(!header(exact("2"), &twice));
        assert!(!header(exact("1, 2, "), &twice));
        assert!(header(regex("1, 2"), &twice));
        assert!(!header(regex("[12]"), &twice));
        assert!(header(exact("a=1; b=2"), &[("cookie", "a=1"), ("cookie", "b=2")]));
    }

    #[test]
    fn a_query_value_is_compared_decoded() {
        let query = |test, text| holds(test, &[], Some(text), Sent::Whole);
        assert!(query(exact("a b"), "a=a+b"));
        assert!(query(exact("a b"), "a=a%20b"));
        assert!(query(exact(""), "a"));
        assert!(!query(exact(""), "b"));
        assert!(query(exact("1"), "a=1&a=2"));
        assert!(!query(exact("2"), "a=1&a=2"));
        assert!(query(regex("é+"), "a=%C3%A9"));
        assert!(!query(regex("1"), "a=12"));
        assert!(query(ValueMatch::Present(false), "b=1"));
        assert!(query(ValueMatch::Present(true), "%61"));
    }

    #[test]
    fn a_preflight_announces_fields() {
        let preflight = |test, fields: &[(&str, &str)]| holds(test, fields, None, Sent::Announced);
        let announced = [("access-control-request-headers", "content-type, X-A")];
        assert!(preflight(exact("2"), &announced));
        assert!(preflight(ValueMatch::Present(true), &announced));
        assert!(!preflight(ValueMatch::Present(false), &announced));
        assert!(!preflight(exact("2"), &[("access-control-request-headers", "x-ab")]));
        assert!(!header(exact("2"), &announced));
    }

    #[test]
    fn anchoring_accepts_no_other_patterns() {
        assert!(anchored("a)|(b").is_err());
        assert!(anchored("(").is_err());
        let either = anchored("a|b").expect("a valid pattern");
        assert!(either.is_match(b"a") && !either.is_match(b"ax") && !either.is_match(b"xb"));
        let lines = anchored("(?m)^a$").expect("a valid pattern");
        assert!(!lines.is_match(b"a\nb") && !lines.is_match(b"a\n"));
    }
}
