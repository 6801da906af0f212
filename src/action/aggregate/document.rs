//! The document: the values of the parts as they are, one behind the other, and what is to be said of those that failed.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::board::Board;
use super::join;
use super::json::Json;
use super::order::Rank;
use super::template::{Step, walk};
use super::{Aggregate, Part};
use crate::exchange::Content;
use crate::http::response::Response;

/// The parts that failed, as a list (RFC 8941 §3.1): for caches and clients that don't look into the document.
pub const MISSING_PARTS: HeaderName = HeaderName::from_static("gatehouse-missing-parts");

pub fn respond(aggregate: &Aggregate, board: &Board) -> Response<Content> {
    let mut response = Response::new(StatusCode::OK, Content::Whole(document(aggregate, board)));
    response.fields.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(missing) = missing(&aggregate.parts, board) {
        response.fields.append(MISSING_PARTS, missing);
        // The next time it may be whole.
        response.fields.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn document(aggregate: &Aggregate, board: &Board) -> Bytes {
    let value = |place: usize| composed(aggregate, board, place);
    let lengths = (0..aggregate.parts.len()).map(|place| board.value(place).unwrap_or_default().len() + 32);
    let size: usize = lengths.sum();
    let mut document = BytesMut::with_capacity(size + 64);
    match aggregate.merges {
        true => members_of_all(aggregate, board).write(&mut document),
        false => {
            for slot in &aggregate.layout {
                document.extend_from_slice(if document.is_empty() { b"{" } else { b"," });
                document.extend_from_slice(&slot.member);
                document.extend_from_slice(b":");
                match &slot.holds {
                    Holds::Part(place) | Holds::Members(place) => document.extend_from_slice(&value(*place)),
                    Holds::List(list) => list.write(aggregate, board, &mut document),
                }
            }
        }
    }
    let errors = errors(&aggregate.parts, board);
    if !errors.is_empty() {
        document.extend_from_slice(if document.is_empty() { b"{" } else { b"," });
        document.extend_from_slice(b"\"_errors\":");
        document.extend_from_slice(serde_json::Value::Array(errors).to_string().as_bytes());
    }
    document.extend_from_slice(if document.is_empty() { b"{}" } else { b"}" });
    document.freeze()
}

/// A place in the document.
pub struct Slot {
    /// `"name"`
    pub member: Bytes,
    pub holds: Holds,
}

pub enum Holds {
    Part(usize),
    /// The members of a part.
    Members(usize),
    List(List),
}

/// The arrays of several parts as one.
pub struct List {
    pub of: Box<[usize]>,
    pub sort_by: Option<Box<[Step]>>,
    pub descending: bool,
    pub limit: usize,
}

impl List {
    pub fn write(&self, aggregate: &Aggregate, board: &Board, out: &mut BytesMut) {
        let values: Vec<_> = self.of.iter().map(|place| composed(aggregate, board, *place)).collect();
        let mut elements: Vec<Json<'_>> =
            values.iter().flat_map(|value| Json::of(value).elements()).collect();
        if let Some(way) = &self.sort_by {
            let mut ranked: Vec<(Rank<'_>, Json<'_>)> =
                elements.into_iter().map(|element| (Rank::of(walk(element, way)), element)).collect();
            // Of equal ones the one that is written first stays first.
            ranked.sort_by(|(one, _), (other, _)| one.compare(other, self.descending));
            elements = ranked.into_iter().map(|(_, element)| element).collect();
        }
        let mut before: &[u8] = b"[";
        for element in elements.iter().take(self.limit) {
            out.extend_from_slice(before);
            out.extend_from_slice(element.bytes());
            before = b",";
        }
        out.extend_from_slice(if before == b"[" { b"[]" } else { b"]" });
    }
}

/// A stretch of JSON.
type Text<'b> = Cow<'b, [u8]>;

/// The members of the root where parts are merged into it: each name once.
#[derive(Default)]
struct Root<'b> {
    members: Vec<(Text<'b>, Text<'b>)>,
    places: HashMap<Cow<'b, str>, usize>,
}

impl<'b> Root<'b> {
    /// A name that is there already keeps its place and gets the new value.
    fn put(&mut self, name: Cow<'b, str>, written: Text<'b>, value: Text<'b>) {
        match self.places.get(&name) {
            Some(place) => self.members[*place] = (written, value),
            None => {
                self.places.insert(name, self.members.len());
                self.members.push((written, value));
            }
        }
    }

    /// Nobody but the gateway says what failed.
    fn put_members<'v>(&mut self, value: &'v [u8], keep: impl Fn(&'v [u8]) -> Cow<'b, [u8]>) {
        for (key, value) in Json::of(value).members().filter(|(key, _)| !key.is("_errors")) {
            let plain = serde_json::Value::from(key.name()).to_string();
            self.put(Cow::Owned(plain), keep(key.bytes()), keep(value.bytes()));
        }
    }

    fn write(self, out: &mut BytesMut) {
        for (name, value) in &self.members {
            out.extend_from_slice(if out.is_empty() { b"{" } else { b"," });
            out.extend_from_slice(name);
            out.extend_from_slice(b":");
            out.extend_from_slice(value);
        }
    }
}

fn members_of_all<'b>(aggregate: &'b Aggregate, board: &'b Board) -> Root<'b> {
    let mut root = Root::default();
    for slot in &aggregate.layout {
        let name = || String::from_utf8_lossy(&slot.member);
        match &slot.holds {
            Holds::Part(place) => {
                root.put(name(), Cow::Borrowed(&slot.member), composed(aggregate, board, *place));
            }
            Holds::Members(place) => match composed(aggregate, board, *place) {
                Cow::Borrowed(value) => root.put_members(value, Cow::Borrowed),
                Cow::Owned(value) => root.put_members(&value, |piece| Cow::Owned(piece.to_vec())),
            },
            Holds::List(list) => {
                let mut value = BytesMut::new();
                list.write(aggregate, board, &mut value);
                root.put(name(), Cow::Borrowed(&slot.member), Cow::Owned(value.to_vec()));
            }
        }
    }
    root
}

/// The value of a part with the answers of the joins that stand in its elements, and what stands in theirs.
pub fn composed<'b>(aggregate: &Aggregate, board: &'b Board, place: usize) -> Cow<'b, [u8]> {
    let value = board.value(place).unwrap_or(b"null");
    let attached = &aggregate.attached[place];
    if attached.is_empty() {
        return Cow::Borrowed(value);
    }
    let answers: Vec<(usize, Cow<'_, [u8]>)> =
        attached.iter().map(|join| (*join, composed(aggregate, board, *join))).collect();
    let mut edits = Vec::new();
    for (join, answers) in &answers {
        if let Some(join) = aggregate.parts[*join].call().and_then(|call| call.join.as_ref()) {
            join.edits(value, answers, &mut edits);
        }
    }
    Cow::Owned(join::attach(value, edits))
}

pub fn errors(parts: &[Part], board: &Board) -> Vec<serde_json::Value> {
    (0..parts.len()).filter_map(|place| error(parts, board, place)).collect()
}

/// What is to be said of a part, where it or something of it has failed.
pub fn error(parts: &[Part], board: &Board, place: usize) -> Option<serde_json::Value> {
    let part = &parts[place];
    let outcome = board.outcome(place)?;
    let told = outcome.error?;
    let mut error = serde_json::json!({
        "part": &*part.name,
        "status": told.status.as_u16(),
        "reason": told.reason.code(),
        "time_ms": u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
    });
    if !outcome.items.is_empty() {
        error["items"] = outcome.items.as_slice().into();
    }
    if let Some(age_s) = outcome.age_s {
        error["age_s"] = age_s.into();
    }
    Some(error)
}

pub fn missing(parts: &[Part], board: &Board) -> Option<HeaderValue> {
    let failed = |place: &usize| board.outcome(*place).is_some_and(|outcome| outcome.error.is_some());
    let items: Vec<String> = (0..parts.len()).filter(failed).map(|place| item(&parts[place].name)).collect();
    let list = (!items.is_empty()).then(|| items.join(", "))?;
    HeaderValue::from_str(&list).ok()
}

/// A token, a string or a display string (RFC 9651 §3.3), the first of them that can hold the name.
fn item(name: &str) -> String {
    let is_token = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
    if is_token {
        return name.to_owned();
    }
    if name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    }
    let mut text = "%\"".to_owned();
    for byte in name.bytes() {
        match byte {
            b'%' | b'"' | 0..=0x1f | 0x7f.. => text.push_str(&format!("%{byte:02x}")),
            plain => text.push(char::from(plain)),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_items_of_a_structured_list() {
        for (name, wanted) in [
            ("orders", "orders"),
            ("a-b.c", "a-b.c"),
            ("1st", "\"1st\""),
            ("mid \"dle\"", "\"mid \\\"dle\\\"\""),
            ("é,%", "%\"%c3%a9,%25\""),
        ] {
            assert_eq!(item(name), wanted);
        }
    }
}
