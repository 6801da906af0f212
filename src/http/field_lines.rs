//! Fields in the form in which HTTP/1.1 sends them. What the gateway adds to a message is written once, into
//! these, and not first into a list that is then gone through.

use std::cell::RefCell;

use http::{HeaderName, HeaderValue};

use super::fields::Fields;

/// Whole field lines, each with its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldLines(Vec<u8>);

/// The lines of a gateway, an id, a trace and one or two claims.
const USUAL_BYTES: usize = 512;
/// More than so many spare ones are given back to the allocator, and none that is longer than so.
const MAX_SPARE: usize = 64;
const MAX_SPARE_BYTES: usize = 4 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl FieldLines {
    /// Those of a request, with room for the usual ones.
    pub fn of_request() -> FieldLines {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        FieldLines(spare.unwrap_or_else(|| Vec::with_capacity(USUAL_BYTES)))
    }

    pub fn with_capacity(bytes: usize) -> FieldLines {
        FieldLines(Vec::with_capacity(bytes))
    }

    pub fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.push_parts(name.as_str(), value.as_bytes());
    }

    /// As [`FieldLines::push`], of a value that `write` appends.
    pub(super) fn push_with(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        write(&mut self.0);
        self.0.extend_from_slice(b"\r\n");
    }

    /// Lines that were written before.
    pub fn extend(&mut self, lines: &FieldLines) {
        self.0.extend_from_slice(&lines.0);
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn push_parts(&mut self, name: &str, value: &[u8]) {
        self.0.reserve(name.len() + value.len() + 4);
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value);
        self.0.extend_from_slice(b"\r\n");
    }
}

impl Drop for FieldLines {
    fn drop(&mut self) {
        if !(USUAL_BYTES..=MAX_SPARE_BYTES).contains(&self.0.capacity()) {
            return;
        }
        let mut lines = std::mem::take(&mut self.0);
        lines.clear();
        // At the end of a thread there is nobody left to keep it for.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < MAX_SPARE {
                spare.push(lines);
            }
        });
    }
}

/// Where fields that the gateway writes go.
pub enum Sink<'s> {
    /// For what is looked at or changed again.
    Fields(&'s mut Fields),
    /// For what is sent as it is; the list beside it has no fields of these names.
    Lines(&'s mut FieldLines),
}

impl Sink<'_> {
    /// The field has this value and no other.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        match self {
            Sink::Fields(fields) => fields.insert(name.clone(), value.clone()),
            Sink::Lines(lines) => lines.push(name, value),
        }
    }

    /// Adds a value behind those that the field has.
    pub fn append(&mut self, name: &HeaderName, value: &HeaderValue) {
        match self {
            Sink::Fields(fields) => fields.append(name.clone(), value.clone()),
            Sink::Lines(lines) => lines.push(name, value),
        }
    }

    /// As [`Sink::set`], for text of which the caller knows that it is a value.
    pub(super) fn set_text(&mut self, name: &HeaderName, text: &[u8]) {
        match self {
            Sink::Fields(fields) => {
                if let Ok(value) = HeaderValue::from_bytes(text) {
                    fields.insert(name.clone(), value);
                }
            }
            Sink::Lines(lines) => lines.push_parts(name.as_str(), text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole() {
        let mut lines = FieldLines::default();
        lines.push(&http::header::VIA, &HeaderValue::from_static("1.1 gatehouse"));
        let mut more = FieldLines::of_request();
        more.push(&http::header::HOST, &HeaderValue::from_static(""));
        lines.extend(&more);
        assert_eq!(lines.as_bytes(), b"via: 1.1 gatehouse\r\nhost: \r\n");
    }
}
