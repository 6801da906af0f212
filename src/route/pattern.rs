//! What stands behind `path:` and `prefix:`, as segments in the form that requests have.

use crate::config::PathMatch;
use crate::http::path::normalise;
use crate::http::template::MAX_PARAMETERS;

use super::compile::Cause;

/// The most segments that a route's path may have. Bounds the depth of a search.
pub(super) const MAX_SEGMENTS: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(String),
    Parameter,
}

/// The names of a route's `{name}` segments, in their order: slot 0 is the first one. Only `path:` has
/// any.
pub fn parameter_names(path: &PathMatch) -> Vec<String> {
    let PathMatch::Path(text) = path else { return Vec::new() };
    text.value.split('/').filter_map(parameter_name).map(String::from).collect()
}

/// The segments of a `path:`. A trailing slash is a last, empty literal.
pub(super) fn path_segments(text: &str) -> Result<Vec<Segment>, Cause> {
    let mut segments = Vec::new();
    let mut rest = text.strip_prefix('/').ok_or(Cause::NotAbsolute)?.split('/').peekable();
    while let Some(segment) = rest.next() {
        segments.push(match parameter_name(segment) {
            Some(_) => Segment::Parameter,
            None if segment.is_empty() && rest.peek().is_none() => Segment::Literal(String::new()),
            None => Segment::Literal(literal(segment)?),
        });
    }
    if segments.len() > MAX_SEGMENTS {
        return Err(Cause::TooManySegments);
    }
    match segments.iter().filter(|segment| **segment == Segment::Parameter).count() {
        count if count > MAX_PARAMETERS => Err(Cause::TooManyParameters),
        _ => Ok(segments),
    }
}

/// The segments of a `prefix:`, in which a trailing slash says nothing. None for `/`.
pub(super) fn prefix_segments(text: &str) -> Result<Vec<String>, Cause> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let segments = text.strip_prefix('/').ok_or(Cause::NotAbsolute)?.split('/');
    let literals = segments.map(literal).collect::<Result<Vec<_>, _>>()?;
    if literals.len() > MAX_SEGMENTS { Err(Cause::TooManySegments) } else { Ok(literals) }
}

/// `{name}` → `name`.
fn parameter_name(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}').filter(|name| !name.is_empty() && !name.contains(['{', '}']))
}

fn literal(segment: &str) -> Result<String, Cause> {
    if segment.contains(['{', '}']) {
        return Err(Cause::Braces);
    }
    let path = format!("/{segment}");
    let normalised = normalise(&path).map_err(Cause::Path)?.path;
    // Nothing is left of an empty or a dot segment; no request has one, so it would never match.
    if normalised == "/" { Err(Cause::EmptyOrDotSegment) } else { Ok(normalised[1..].to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{At, Span};
    use crate::http::path::PathError;

    #[test]
    fn segments_have_the_form_of_requests() {
        let literal = |text: &str| Segment::Literal(text.into());
        let split = |text: &str| path_segments(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(split("/"), [literal("")]);
        assert_eq!(split("/a/{id}"), [literal("a"), Segment::Parameter]);
        assert_eq!(split("/%7euser/caf%c3%a9/"), [literal("~user"), literal("caf%C3%A9"), literal("")]);
        assert_eq!(prefix_segments("/").expect("a valid prefix"), [""; 0]);
        assert_eq!(prefix_segments("/a/b/").expect("a valid prefix"), ["a", "b"]);
    }

    #[test]
    fn refuses_what_no_request_could_match() {
        for text in ["/a//b", "/./a", "/a/..", "/%2e%2e/a", "//"] {
            assert!(matches!(path_segments(text), Err(Cause::EmptyOrDotSegment)), "{text}");
        }
        for text in ["/a//b", "//", "/a/../b"] {
            assert!(matches!(prefix_segments(text), Err(Cause::EmptyOrDotSegment)), "{text}");
        }
        for text in ["/a-{id}", "/{id}.json", "/{}", "/{a}{b}", "/{a"] {
            assert!(matches!(path_segments(text), Err(Cause::Braces)), "{text}");
        }
        assert!(matches!(prefix_segments("/a/{id}"), Err(Cause::Braces)));
        assert!(matches!(path_segments("a"), Err(Cause::NotAbsolute)));
        assert!(matches!(prefix_segments("a"), Err(Cause::NotAbsolute)));
        assert!(matches!(path_segments("/a b"), Err(Cause::Path(PathError::ForbiddenByte(b' ')))));
        assert!(matches!(path_segments(&"/a".repeat(129)), Err(Cause::TooManySegments)));
        assert!(matches!(prefix_segments(&"/a".repeat(129)), Err(Cause::TooManySegments)));
        assert!(matches!(path_segments(&"/{a}".repeat(17)), Err(Cause::TooManyParameters)));
    }

    #[test]
    fn names_come_in_their_order() {
        let path = At { value: "/{b}/x/{a}".to_owned(), span: Span::default() };
        assert_eq!(parameter_names(&PathMatch::Path(path.clone())), ["b", "a"]);
        assert_eq!(parameter_names(&PathMatch::Prefix(path)), [""; 0]);
    }
}
