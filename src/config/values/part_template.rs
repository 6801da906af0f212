//! Text with values put in: the paths and header fields of an aggregate's parts.
//!
//! `{id}` is a parameter of the route's path, `{user.address.city}` out of the answer of the part `user`,
//! `{claims.sub}` of the client's token. What a name stands for is known only when all parts are.

use ::http::Uri;
use serde_json::Value as Json;

use super::path::normal;
use super::template::next_braces;
use super::text_schema;
use crate::config::block::Value;
use crate::config::model::ValueStep;
use crate::config::reader::{Form, Reader};
use crate::config::text::quoted;
use crate::config::yaml::Node;

#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Written {
    Literal(String),
    Value(ValuePath),
}

/// `user.items[0].id`: a name and the way from there.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct ValuePath {
    pub name: String,
    pub steps: Vec<ValueStep>,
}

impl ValuePath {
    /// As it was written, without the braces.
    pub fn text(&self) -> String {
        let steps = self.steps.iter().map(|step| match step {
            ValueStep::Member(name) => format!(".{name}"),
            ValueStep::Element(index) => format!("[{index}]"),
        });
        self.name.clone() + &steps.collect::<String>()
    }
}

/// Path and query of a part's request.
pub(in crate::config) struct PartTarget(pub Vec<Written>);

const TARGET: Form = Form {
    name: "a path",
    remedy: "write a path that begins with `/`, with `{name}` for a parameter of the route's path or `{part.member}` for a value of another part",
};

impl Value for PartTarget {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &TARGET, target).map(PartTarget)
    }

    fn schema() -> Json {
        text_schema("/[^#]*")
    }
}

/// Anything with values in it; a brace by itself is written twice.
pub(in crate::config) struct PartText(pub Vec<Written>);

const TEXT: Form = Form {
    name: "a text with values",
    remedy: "write `{name}` or `{part.member}` for a value, and `{{` for a brace",
};

impl Value for PartText {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &TEXT, text).map(PartText)
    }

    fn schema() -> Json {
        serde_json::json!({ "type": ["string", "number", "boolean"] })
    }
}

fn target(text: &str) -> Result<Vec<Written>, Option<String>> {
    let mut written = Vec::new();
    let mut rest = text;
    while let Some((literal, inside, behind)) = next_braces(rest)? {
        if !literal.is_empty() {
            written.push(Written::Literal(literal.to_owned()));
        }
        written.push(Written::Value(value_path(inside)?));
        rest = behind;
    }
    if !rest.is_empty() {
        written.push(Written::Literal(rest.to_owned()));
    }
    check_target(&written)?;
    Ok(written)
}

fn check_target(written: &[Written]) -> Result<(), Option<String>> {
    let mut sample = String::new();
    for piece in written {
        match piece {
            Written::Literal(text) => sample.push_str(text),
            Written::Value(_) => {
                let in_path = !sample.contains('?');
                if in_path && matches!(sample.rsplit('/').next(), Some("." | "..")) {
                    return Err(Some(
                        "a value can't follow a dot at the start of a segment: it could become a way up"
                            .to_owned(),
                    ));
                }
                sample.push('x');
            }
        }
    }
    let (path, query) = sample.split_once('?').unwrap_or((&sample, ""));
    if path.contains('#') || query.contains('#') {
        return Err(Some("a fragment never reaches a service: remove it".to_owned()));
    }
    normal(path)?;
    if format!("/?{query}").parse::<Uri>().is_err() || query.contains(['"', '<', '>', '\\']) {
        return Err(Some("the query holds a character that must be written as %XX".to_owned()));
    }
    Ok(())
}

pub(in crate::config) fn text(text: &str) -> Result<Vec<Written>, Option<String>> {
    let mut written = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let brace = &rest[at..=at];
        if let Some(behind) = behind.strip_prefix(brace) {
            literal.push_str(brace);
            rest = behind;
            continue;
        }
        if brace == "}" {
            return Err(Some("`}` closes nothing: a plain brace is written }}".to_owned()));
        }
        let close = behind
            .find('}')
            .ok_or_else(|| Some("`{` is never closed: a plain brace is written {{".to_owned()))?;
        if !literal.is_empty() {
            written.push(Written::Literal(std::mem::take(&mut literal)));
        }
        written.push(Written::Value(value_path(&behind[..close])?));
        rest = &behind[close + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        written.push(Written::Literal(literal));
    }
    Ok(written)
}

/// Deeper values are better brought up by the part itself.
const MOST_STEPS: usize = 32;

pub(in crate::config) fn value_path(text: &str) -> Result<ValuePath, Option<String>> {
    let wrong =
        || Some(format!("{} names no value: write it as in user.address.city or user.tags[0]", quoted(text)));
    let end = text.find(['.', '[']).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    if !is_name(name) {
        return Err(wrong());
    }
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            if !is_name(&after[..end]) {
                return Err(wrong());
            }
            steps.push(ValueStep::Member(after[..end].to_owned()));
            rest = &after[end..];
        } else {
            let (index, after) =
                rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or_else(wrong)?;
            let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
            let index = index.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
            steps.push(ValueStep::Element(index));
            rest = after;
        }
    }
    if steps.len() > MOST_STEPS {
        return Err(Some(format!("a value may lie {MOST_STEPS} steps deep at most")));
    }
    Ok(ValuePath { name: name.to_owned(), steps })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '{' | '}' | ']' | '"' | '\''))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Written {
        Written::Value(value_path(text).unwrap())
    }

    fn literal(text: &str) -> Written {
        Written::Literal(text.to_owned())
    }

    #[test]
    fn values_have_names_and_ways() {
        let path = value_path("user.tags[10].id").unwrap();
        assert_eq!((path.name.as_str(), path.text().as_str()), ("user", "user.tags[10].id"));
        assert_eq!(path.steps.len(), 3);
        for bad in [
            "",
            ".a",
            "a.",
            "a..b",
            "a[",
            "a[]",
            "a[x]",
            "a[-1]",
            "a[1]b",
            "a b",
            "a.b]",
            "a[99999999999999999999]",
        ] {
            assert!(value_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn targets_are_paths_whatever_is_put_in() {
        assert_eq!(
            target("/u/{id}?c={user.address.city}&x=1").unwrap(),
            [literal("/u/"), value("id"), literal("?c="), value("user.address.city"), literal("&x=1")]
        );
        for bad in [
            "", "a", "{id}", "/{", "/}", "/{}", "/a#b", "/a?b#c", "/../{id}", "/a b", "/a?b c", "/..{id}",
            "/a/.{id}",
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert!(target("/a/x.{id}?..{id}").is_ok());
    }

    #[test]
    fn braces_in_text_are_written_twice() {
        assert_eq!(text("{{{a.b}}}").unwrap(), [literal("{"), value("a.b"), literal("}")]);
        assert_eq!(text("{{}}").unwrap(), [literal("{}")]);
        assert_eq!(text("").unwrap(), []);
        for bad in ["{", "}", "{a", "{}", "a}b"] {
            assert!(text(bad).is_err(), "{bad}");
        }
    }
}
