//! Texts of an item that take values out of the answers to others: `{user.body.id}`, `{user.status}`, `{user.headers.etag}`.
//! Whatever a value holds, the request keeps the segments, parameters and fields that were written, and no others.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::answer::Body;
use super::board::Board;
use crate::action::aggregate::json::{Json, Kind};
use crate::action::aggregate::template::{Step, leads_up, walk};
use crate::http::query::push_text;
use crate::reason::Reason;

/// Why an item can't be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub reason: Reason,
    /// For the client.
    pub detail: Cow<'static, str>,
}

impl Fault {
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Fault { reason, detail: detail.into() }
    }
}

/// For each value an answer is looked through: a client must not have the gateway do so again and again.
const MOST_REFERENCES: usize = 16;
const MOST_STEPS: usize = 16;

/// Reads the references of one item.
pub struct References<'i> {
    pub ids: &'i HashMap<Cow<'i, str>, usize>,
    /// The items that were named, perhaps several times.
    pub needs: Vec<usize>,
    pub count: usize,
}

pub struct Text(Vec<Piece>);

enum Piece {
    Literal(String),
    Value(Reference),
}

struct Reference {
    item: usize,
    what: What,
}

enum What {
    Status,
    Field(HeaderName),
    Body(Box<[Step]>),
}

impl References<'_> {
    pub fn text(&mut self, written: &str) -> Result<Text, Fault> {
        let mut pieces = Vec::new();
        let (mut literal, mut rest) = (String::new(), written);
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                literal.push_str(brace);
                rest = behind;
                continue;
            }
            let (inside, behind) = behind.split_once('}').filter(|_| brace == "{").ok_or_else(|| {
                Fault::new(
                    Reason::BatchItemInvalid,
                    "braces stand around a value; a plain one is written twice",
                )
            })?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Value(self.reference(inside)?));
            rest = behind;
        }
        literal.push_str(rest);
        pieces.push(Piece::Literal(literal));
        Ok(Text(pieces))
    }

    fn reference(&mut self, inside: &str) -> Result<Reference, Fault> {
        let wrong = || {
            let detail = "a value is written as in {user.body.id}, {user.body.list[0]}, {user.status} or {user.headers.etag}";
            Fault::new(Reason::BatchItemInvalid, detail)
        };
        let (name, rest) = inside.split_once('.').ok_or_else(wrong)?;
        let what = if rest == "status" {
            What::Status
        } else if let Some(name) = rest.strip_prefix("headers.") {
            What::Field(HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?)
        } else {
            What::Body(rest.strip_prefix("body").and_then(steps).ok_or_else(wrong)?)
        };
        self.count += 1;
        if self.count > MOST_REFERENCES {
            let detail = format!("an item has {MOST_REFERENCES} values of others at most");
            return Err(Fault::new(Reason::BatchItemInvalid, detail));
        }
        Ok(Reference { item: self.place(name)?, what })
    }

    /// The item of that name, which this one waits for.
    pub fn place(&mut self, id: &str) -> Result<usize, Fault> {
        let place = self.ids.get(id).copied().ok_or_else(|| {
            let detail: Cow<'static, str> = match is_id(id) {
                true => format!("no item of this batch has the id {id}").into(),
                false => "this item waits for one whose id can't be one".into(),
            };
            Fault::new(Reason::BatchUnknownItem, detail)
        })?;
        self.needs.push(place);
        Ok(place)
    }
}

/// What an item may be called, so that it can stand in braces.
pub fn is_id(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(is_part)
}

/// `.a[0].b`
fn steps(mut rest: &str) -> Option<Box<[Step]>> {
    let mut steps = Vec::new();
    while !rest.is_empty() && steps.len() < MOST_STEPS {
        if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = after.split_at(after.find(['.', '[']).unwrap_or(after.len()));
            (!name.is_empty()).then(|| steps.push(Step::Member(name.into())))?;
            rest = after;
        } else {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            let is_number = index.bytes().all(|byte| byte.is_ascii_digit());
            steps.push(Step::Element(index.parse().ok().filter(|_| is_number)?));
            rest = after;
        }
    }
    rest.is_empty().then(|| steps.into())
}

fn missing(detail: &'static str) -> Fault {
    Fault::new(Reason::BatchMissingValue, detail)
}

const NO_TEXT: &str = "a value that this item takes from another is not there, or is no single value";

impl Reference {
    fn text<'b>(&self, board: &'b Board) -> Result<Cow<'b, str>, Fault> {
        let answer = board.answer(self.item).ok_or_else(|| missing(NO_TEXT))?;
        let text = match (&self.what, &answer.body) {
            (What::Status, _) => Some(answer.status.as_str().to_owned().into()),
            (What::Field(name), _) => {
                let value = answer.fields.get(name).and_then(|value| std::str::from_utf8(value).ok());
                value.map(Cow::Borrowed)
            }
            (What::Body(steps), Body::Json(json)) => walk(Json::of(json), steps).and_then(Json::text),
            (What::Body(steps), Body::Text(text)) if steps.is_empty() => {
                std::str::from_utf8(text).ok().map(Cow::Borrowed)
            }
            (What::Body(_), _) => None,
        };
        text.ok_or_else(|| missing(NO_TEXT))
    }

    /// As JSON, whatever it is: as it was written, where it was.
    fn json<'b>(&self, board: &'b Board) -> Result<Cow<'b, [u8]>, Fault> {
        let none = || missing("a value that this item takes from another is not there");
        let answer = board.answer(self.item).ok_or_else(none)?;
        match (&self.what, &answer.body) {
            (What::Status, _) => Ok(answer.status.as_str().to_owned().into_bytes().into()),
            (What::Body(steps), Body::Json(json)) => {
                walk(Json::of(json), steps).map(|value| value.bytes().into()).ok_or_else(none)
            }
            _ => Ok(serde_json::Value::from(self.text(board)?).to_string().into_bytes().into()),
        }
    }
}

impl Text {
    /// Where it takes no values.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match self.0.as_slice() {
            [Piece::Literal(text)] => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// Path and query. A value is (part of) a segment or of a parameter.
    pub fn target(&self, board: &Board, limit: usize) -> Result<String, Fault> {
        let mut out = String::new();
        let mut has_foreign = false;
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Value(value) => {
                    let value = value.text(board)?;
                    if !out.contains('?') {
                        has_foreign = true;
                        if value.is_empty() {
                            return Err(missing("a value that stands in the path of this item is empty"));
                        }
                    }
                    push_text(&mut out, &value);
                }
            }
            if out.len() > limit {
                let detail =
                    format!("the path of this item has more than the {limit} bytes that are allowed");
                return Err(Fault::new(Reason::UriTooLong, detail));
            }
        }
        let path = out.split('?').next().unwrap_or_default();
        if has_foreign && leads_up(path) {
            return Err(missing("a value would make the path of this item lead elsewhere"));
        }
        Ok(out)
    }

    pub fn field(&self, board: &Board, limit: usize) -> Result<HeaderValue, Fault> {
        let text = self.plain(board, limit).map_err(|fault| {
            fault.unwrap_or_else(|| {
                let detail =
                    format!("the fields of this item have more than the {limit} bytes that are allowed");
                Fault::new(Reason::HeadersTooLarge, detail)
            })
        })?;
        // A line break could begin another field.
        HeaderValue::from_bytes(text.trim().as_bytes())
            .map_err(|_| missing("a value can't stand in a header field of this item"))
    }

    /// `Err(None)`: it is too long.
    fn plain(&self, board: &Board, limit: usize) -> Result<String, Option<Fault>> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Value(value) => out.push_str(&value.text(board)?),
            }
            if out.len() > limit {
                return Err(None);
            }
        }
        Ok(out)
    }
}

/// JSON with values put into its strings. One that is nothing but a value becomes that, whatever it is.
pub struct Template(Vec<Part>);

enum Part {
    AsWritten(Bytes),
    Whole(Reference),
    /// A string.
    Around(Text),
}

impl References<'_> {
    /// `written` is one JSON value within `whole`.
    pub fn template(&mut self, whole: &Bytes, written: Json<'_>) -> Result<Template, Fault> {
        let text = written.bytes();
        let mut parts = Vec::new();
        let (mut copied, mut at) = (0, 0);
        while let Some(found) = memchr::memchr(b'"', &text[at..]) {
            let begin = at + found;
            let end = begin + string_length(&text[begin..]);
            at = end;
            let is_name = text[end..].trim_ascii_start().starts_with(b":");
            let string = Json::of(&text[begin..end]);
            let plain = string.text().filter(|plain| !is_name && plain.contains(['{', '}']));
            let Some(plain) = plain else { continue };
            parts.push(Part::AsWritten(whole.slice_ref(&text[copied..begin])));
            copied = end;
            let mut pieces = self.text(&plain)?.0;
            parts.push(match pieces.as_slice() {
                [Piece::Value(_), Piece::Literal(rest)] if rest.is_empty() => match pieces.swap_remove(0) {
                    Piece::Value(value) => Part::Whole(value),
                    literal @ Piece::Literal(_) => Part::Around(Text(vec![literal])),
                },
                _ => Part::Around(Text(pieces)),
            });
        }
        parts.push(Part::AsWritten(whole.slice_ref(&text[copied..])));
        Ok(Template(parts))
    }
}

/// Of the string that the text begins with.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

impl Template {
    pub fn render(&self, board: &Board, limit: usize) -> Result<Bytes, Fault> {
        let too_large = || {
            let detail = format!("the body of this item has more than the {limit} bytes that are allowed");
            Fault::new(Reason::BodyTooLarge, detail)
        };
        let mut out = Vec::new();
        for part in &self.0 {
            match part {
                Part::AsWritten(json) => out.extend_from_slice(json),
                Part::Whole(value) => out.extend_from_slice(&value.json(board)?),
                Part::Around(text) => {
                    let text = text.plain(board, limit).map_err(|fault| fault.unwrap_or_else(too_large))?;
                    out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
                }
            }
            if out.len() > limit {
                return Err(too_large());
            }
        }
        Ok(out.into())
    }
}

/// Whether a value is a single one whose text can be read.
pub fn string(json: Json<'_>) -> Option<Cow<'_, str>> {
    (json.kind() == Kind::String).then(|| json.text()).flatten()
}
