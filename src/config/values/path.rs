//! Paths that requests are matched against or rewritten to.
//!
//! Requests are normalised before they are matched, so a path that isn't in normal form would never
//! match: it is refused here, with the form it should have.

use serde_json::Value as Json;

use super::text_schema;
use crate::config::block::Value;
use crate::config::reader::{Form, Reader};
use crate::config::yaml::Node;

/// A literal path in normal form.
pub(in crate::config) struct LiteralPath(pub String);

/// A literal path whose last slash, if any, is left out: it stands for whole segments.
pub(in crate::config) struct PrefixPath(pub String);

/// A path of literal segments and `{name}` segments.
pub(in crate::config) struct PathPattern(pub String);

/// Bytes of a path. Requests have less by default, and servers behind take no more mostly.
const LONGEST: usize = 8192;

const PATH: Form = Form { name: "a path", remedy: "write a path that begins with `/`" };

impl Value for LiteralPath {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &PATH, |text| literal(text).map(|()| LiteralPath(text.to_owned())))
    }

    fn schema() -> Json {
        text_schema("/[^?#]*")
    }
}

impl From<LiteralPath> for String {
    fn from(path: LiteralPath) -> String {
        path.0
    }
}

impl Value for PrefixPath {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &PATH, |text| {
            literal(text)?;
            Ok(PrefixPath(if text == "/" { text } else { text.trim_end_matches('/') }.to_owned()))
        })
    }

    fn schema() -> Json {
        text_schema("/[^?#]*")
    }
}

impl Value for PathPattern {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &PATH, |text| {
            pattern(text)?;
            Ok(PathPattern(text.to_owned()))
        })
    }

    fn schema() -> Json {
        text_schema("/[^?#]*")
    }
}

fn literal(text: &str) -> Result<(), Option<String>> {
    if text.contains(['{', '}']) {
        return Err(Some("parameters work in `path` only; here a brace is written %7B or %7D".to_owned()));
    }
    normal(text)
}

fn pattern(text: &str) -> Result<(), Option<String>> {
    normal(&text.replace(['{', '}'], "x"))?;
    let mut names = Vec::new();
    for segment in text.split('/') {
        let Some(inner) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            if segment.contains(['{', '}']) {
                return Err(Some(format!(
                    "a parameter is a whole segment: {} isn't one",
                    super::quoted(segment)
                )));
            }
            continue;
        };
        if inner.starts_with('*') || inner.ends_with("...") {
            return Err(Some("use `prefix` to match all that follows".to_owned()));
        }
        if !is_parameter(inner) {
            return Err(Some("name a parameter with letters, digits and `_`: {id}".to_owned()));
        }
        if names.contains(&inner) {
            return Err(Some(format!("two parameters are named {}: rename one", super::quoted(inner))));
        }
        names.push(inner);
    }
    Ok(())
}

pub(in crate::config) fn is_parameter(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The names of the parameters of a pattern that was read.
pub(in crate::config) fn parameters(pattern: &str) -> Vec<&str> {
    pattern.split('/').filter_map(|s| s.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))).collect()
}

/// What normalisation leaves as it is (RFC 3986 §6.2.2, and merged slashes).
pub(in crate::config) fn normal(path: &str) -> Result<(), Option<String>> {
    if !path.starts_with('/') {
        let plain = path.len() < 100 && !path.contains("://") && !path.is_empty();
        return Err(plain.then(|| format!("begin it with a slash: /{path}")));
    }
    if path.len() > LONGEST {
        return Err(Some(format!("no request has a path of more than {LONGEST} bytes: write a shorter one")));
    }
    if path.contains(['?', '#']) {
        return Err(Some("write the path without a query; `query` matches parameters".to_owned()));
    }
    if path.contains('\\') {
        return Err(Some("a backslash is never part of a path".to_owned()));
    }
    if path.contains("//") {
        return Err(Some("slashes are merged before a request is matched: write one".to_owned()));
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Some(
            "dot segments are resolved before a request is matched: write the path without them".to_owned(),
        ));
    }
    if let Some(c) = path.chars().find(|c| {
        !c.is_ascii() || c.is_ascii_control() || matches!(c, ' ' | '"' | '<' | '>' | '`' | '^' | '|')
    }) {
        let mut utf8 = [0; 4];
        let encoded: String = c.encode_utf8(&mut utf8).bytes().map(|b| format!("%{b:02X}")).collect();
        return Err(Some(format!(
            "requests carry {} as {encoded}: write that",
            super::quoted(&c.to_string())
        )));
    }
    escapes(path)
}

fn escapes(path: &str) -> Result<(), Option<String>> {
    for (at, _) in path.match_indices('%') {
        let Some(byte) = path.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
            return Err(Some("a per cent sign is written %25".to_owned()));
        };
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            return Err(Some(format!("write {:?} as it is, without the %", char::from(byte))));
        }
        if matches!(byte, 0 | b'\\') {
            return Err(Some("a backslash or NUL is refused in requests: nothing can match it".to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_paths() {
        for good in ["/", "/a", "/a/", "/a/b.c/~x/", "/%20", "/caf%C3%A9", "/a;b=1", "/a:b@c,d"] {
            assert_eq!(normal(good), Ok(()), "{good}");
        }
        for bad in [
            "", "a", "//", "/a//b", "/a/../b", "/.", "/a?b", "/a#b", "/é", "/ ", "/%", "/%zz", "/%2e",
            "/%41", "/%00", "/a\\b",
        ] {
            assert!(normal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns() {
        for good in ["/{id}", "/a/{id}/b/{other_1}", "/"] {
            assert_eq!(pattern(good), Ok(()), "{good}");
        }
        for bad in ["/a{id}", "/{id}/{id}", "/{}", "/{*rest}", "/{1a}", "/{id", "/{a}{b}", "/../{id}"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
        assert_eq!(parameters("/a/{id}/b/{x}"), ["id", "x"]);
    }
}
