//! Text with `{name}` placeholders: `rewrite` and `redirect.to`.

use ::http::Uri;
use serde_json::Value as Json;

use super::path::{is_parameter, normal};
use super::text_schema;
use crate::config::block::Value;
use crate::config::model::{Template, TemplatePiece};
use crate::config::reader::{Form, Reader};
use crate::config::text::quoted;
use crate::config::yaml::Node;

/// A path with placeholders and no query.
pub(in crate::config) struct PathTemplate(pub Template);

/// A whole URL, or a path; either perhaps with a query.
pub(in crate::config) struct LocationTemplate(pub Template);

const TEMPLATE: Form = Form {
    name: "a path",
    remedy: "write a path that begins with `/`, with `{name}` for the route's parameters",
};
const LOCATION: Form =
    Form { name: "a URL or a path", remedy: "write https://host/path, or a path that begins with `/`" };

impl Value for PathTemplate {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let template = reader.parse(node, &TEMPLATE, |text| {
            if text.contains('?') {
                return Err(Some("leave the query out: that of the request is kept".to_owned()));
            }
            path_and_query(text)
        })?;
        Some(PathTemplate(template))
    }

    fn schema() -> Json {
        text_schema("/[^?#]*")
    }
}

impl Value for LocationTemplate {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let template = reader.parse(node, &LOCATION, |text| {
            let Some((scheme, rest)) = text.split_once("://") else {
                let host = text.split('/').next().unwrap_or("");
                if host.contains('.') && super::http::is_domain(host) {
                    return Err(Some(format!("write https://{text}")));
                }
                return path_and_query(text);
            };
            if !matches!(scheme, "http" | "https") {
                return Err(None);
            }
            let split = rest.find(['/', '?']).unwrap_or(rest.len());
            if rest[..split].contains(['{', '}']) {
                // Whoever chooses the host of a redirect can send a user anywhere.
                return Err(Some("a parameter can't be part of the host".to_owned()));
            }
            if rest[..split].contains('@') {
                return Err(Some("write it without a user and password".to_owned()));
            }
            let pieces = pieces(text, false)?;
            match sample(&pieces).parse::<Uri>() {
                Ok(uri) if uri.host().is_some_and(super::http::is_host) => Ok(Template(pieces)),
                _ => Err(None),
            }
        })?;
        Some(LocationTemplate(template))
    }

    fn schema() -> Json {
        text_schema("/.*|https?://.+")
    }
}

fn path_and_query(text: &str) -> Result<Template, Option<String>> {
    let pieces = pieces(text, false)?;
    let sample = sample(&pieces);
    let (path, query) = sample.split_once('?').unwrap_or((&sample, ""));
    normal(path)?;
    if query.contains('#') || format!("/?{query}").parse::<Uri>().is_err() {
        return Err(Some("the query holds a character that must be written as %XX".to_owned()));
    }
    Ok(Template(pieces))
}

/// What the template may come to, with `x` for every parameter.
fn sample(pieces: &[TemplatePiece]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            TemplatePiece::Literal(text) => text,
            TemplatePiece::PathParameter(_) | TemplatePiece::QueryParameter(_) => "x",
        })
        .collect()
}

/// The text before the next braces, what stands between them, and the text behind; `None` where there are none.
pub(super) fn next_braces(text: &str) -> Result<Option<(&str, &str, &str)>, Option<String>> {
    let Some(open) = text.find(['{', '}']) else { return Ok(None) };
    if text[open..].starts_with('}') {
        return Err(Some("`}` closes nothing: a plain brace is written %7D".to_owned()));
    }
    let close = text[open..].find('}').map(|close| open + close);
    let close = close.ok_or_else(|| Some("`{` is never closed: a plain brace is written %7B".to_owned()))?;
    Ok(Some((&text[..open], &text[open + 1..close], &text[close + 1..])))
}

fn pieces(text: &str, mut in_query: bool) -> Result<Vec<TemplatePiece>, Option<String>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, name, behind)) = next_braces(rest)? {
        if !is_parameter(name) {
            return Err(Some(format!("{} is not the name of a parameter", quoted(name))));
        }
        in_query |= literal.contains('?');
        if !literal.is_empty() {
            pieces.push(TemplatePiece::Literal(literal.to_owned()));
        }
        pieces.push(match in_query {
            true => TemplatePiece::QueryParameter(name.to_owned()),
            false => TemplatePiece::PathParameter(name.to_owned()),
        });
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(TemplatePiece::Literal(rest.to_owned()));
    }
    Ok(pieces)
}

/// The names in a template, each once.
pub(in crate::config) fn names(template: &Template) -> Vec<&str> {
    let mut names = Vec::new();
    for piece in &template.0 {
        if let TemplatePiece::PathParameter(name) | TemplatePiece::QueryParameter(name) = piece
            && !names.contains(&name.as_str())
        {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_know_which_half_they_are_in() {
        let template = path_and_query("/a/{id}?u={user}&v={id}").unwrap();
        assert_eq!(
            template.0,
            [
                TemplatePiece::Literal("/a/".to_owned()),
                TemplatePiece::PathParameter("id".to_owned()),
                TemplatePiece::Literal("?u=".to_owned()),
                TemplatePiece::QueryParameter("user".to_owned()),
                TemplatePiece::Literal("&v=".to_owned()),
                TemplatePiece::QueryParameter("id".to_owned()),
            ]
        );
        assert_eq!(names(&template), ["id", "user"]);
    }

    #[test]
    fn refuses_what_cannot_be_sent() {
        for bad in ["", "a", "/{", "/}", "/{a", "/{}", "/{a b}", "/../{x}", "/a b", "/a?b c", "/a#b"] {
            assert!(path_and_query(bad).is_err(), "{bad}");
        }
    }
}
