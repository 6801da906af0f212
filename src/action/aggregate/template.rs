//! Texts that values are put into, for one part's request. Whatever a value holds, the request keeps the segments,
//! the query parameters and the fields that the template has, and no others.

use std::borrow::Cow;

use http::HeaderValue;
use http::uri::PathAndQuery;

use super::board::Board;
use super::json::Json;
use super::kept::Asker;
use super::part::PartError;
use crate::http::query::{self, push_segment_as_value, push_text};
use crate::http::target;
use crate::http::template::Params;
use crate::identity::{self, Identity};

/// What values are taken from.
#[derive(Clone, Copy)]
pub struct Given<'g> {
    /// Of the client's request.
    pub path: &'g str,
    pub params: &'g Params,
    pub identity: Option<&'g Identity>,
    pub board: &'g Board,
    /// Where answers of parts are kept.
    pub asker: Option<&'g Asker>,
    /// The element that a join asks for.
    pub item: Option<Json<'g>>,
}

pub enum Source {
    /// The slot of a parameter of the route's path.
    Parameter(usize),
    Part {
        part: usize,
        path: Box<[Step]>,
    },
    Claim(Box<str>),
    /// Out of the element that a join asks for.
    Item(Box<[Step]>),
}

pub enum Step {
    Member(Box<str>),
    Element(usize),
}

pub enum Piece {
    Literal(Box<str>),
    Value(Source),
}

/// Path and query.
pub struct Target {
    pieces: Box<[Piece]>,
    literal_bytes: usize,
}

impl Target {
    pub fn new(pieces: Vec<Piece>) -> Self {
        Target { literal_bytes: literal_bytes(&pieces), pieces: pieces.into() }
    }

    pub fn render(&self, given: &Given<'_>) -> Result<PathAndQuery, PartError> {
        let mut out = String::with_capacity(self.literal_bytes + given.path.len());
        let mut path_end = None;
        let mut has_foreign = false;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => {
                    if path_end.is_none() {
                        path_end = text.find('?').map(|at| out.len() + at);
                    }
                    out.push_str(text);
                }
                // It is a segment of a normalised path, which can't end itself.
                Piece::Value(Source::Parameter(slot)) => {
                    let value = given.params.value(given.path, *slot).unwrap_or_default();
                    match path_end {
                        None => out.push_str(value),
                        Some(_) => push_segment_as_value(&mut out, value),
                    }
                }
                Piece::Value(source) => {
                    let value = source.text(given).ok_or(PartError::MissingValue)?;
                    if path_end.is_none() {
                        if value.is_empty() {
                            return Err(PartError::MissingValue);
                        }
                        has_foreign = true;
                    }
                    push_text(&mut out, &value);
                }
            }
        }
        if has_foreign && leads_up(&out[..path_end.unwrap_or(out.len())]) {
            return Err(PartError::MissingValue);
        }
        target::path_of(out).ok_or(PartError::BadPath)
    }
}

/// Whether a segment has become one of dots, which encoding can't help against: `%2E%2E` means the same (RFC 3986
/// §6.2.2). Some servers take what stands behind a semicolon off first.
pub fn leads_up(path: &str) -> bool {
    path.split('/').any(|segment| {
        let name = segment.split([';', '%']).next().unwrap_or_default();
        let behind = &segment[name.len()..];
        matches!(name, "." | "..")
            && (behind.is_empty() || behind.starts_with(';') || behind.starts_with("%3B"))
    })
}

/// The value of a header field.
pub struct Text(Box<[Piece]>);

impl Text {
    pub fn new(pieces: Vec<Piece>) -> Self {
        Text(pieces.into())
    }

    /// What can't stand in a field is no value: a line break could begin another one.
    pub fn field(&self, given: &Given<'_>) -> Result<HeaderValue, PartError> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Value(source) => out.push_str(&source.text(given).ok_or(PartError::MissingValue)?),
            }
        }
        HeaderValue::from_bytes(out.trim().as_bytes()).map_err(|_| PartError::MissingValue)
    }
}

impl Source {
    /// The value as text: of a parameter, what its escapes stand for.
    pub fn text<'g>(&self, given: &Given<'g>) -> Option<Cow<'g, str>> {
        match self {
            Source::Parameter(slot) => {
                let segment = given.params.value(given.path, *slot)?;
                // A plus is a plus in a path.
                let decoded = query::decode(&segment.replace('+', "%2B")).into_owned();
                String::from_utf8(decoded).ok().map(Cow::Owned)
            }
            Source::Part { part, path } => walk(Json::of(given.board.value(*part)?), path)?.text(),
            Source::Item(path) => walk(given.item?, path)?.text(),
            Source::Claim(name) => {
                let value = given.identity?.claim(name)?;
                identity::scalar_text(value).map(|text| Cow::Owned(text.into_owned()))
            }
        }
    }
}

impl Source {
    /// The value as JSON, whatever it is: as it was written, where it was.
    pub fn json<'g>(&self, given: &Given<'g>) -> Option<Cow<'g, [u8]>> {
        let raw = match self {
            Source::Part { part, path } => walk(Json::of(given.board.value(*part)?), path)?,
            Source::Item(path) => walk(given.item?, path)?,
            Source::Claim(name) => {
                return Some(Cow::Owned(given.identity?.claim(name)?.to_string().into_bytes()));
            }
            Source::Parameter(_) => {
                let text = serde_json::Value::from(self.text(given)?);
                return Some(Cow::Owned(text.to_string().into_bytes()));
            }
        };
        Some(Cow::Borrowed(raw.bytes()))
    }
}

pub fn walk<'b>(from: Json<'b>, path: &[Step]) -> Option<Json<'b>> {
    path.iter().try_fold(from, |json, step| match step {
        Step::Member(name) => json.member(name),
        Step::Element(index) => json.element(*index),
    })
}

fn literal_bytes(pieces: &[Piece]) -> usize {
    let bytes = |piece: &Piece| if let Piece::Literal(text) = piece { text.len() } else { 0 };
    pieces.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_lead_up_however_they_are_dressed() {
        for path in ["/a/..", "/..", "/a/./b", "/a/../b", "/a/..;x", "/a/..%3Bx", "/.;/b"] {
            assert!(leads_up(path), "{path}");
        }
        for path in ["/a/..b", "/a/...", "/a/..%2Fb", "/.a", "/", "/a/b.", "/a/.%20"] {
            assert!(!leads_up(path), "{path}");
        }
    }
}
