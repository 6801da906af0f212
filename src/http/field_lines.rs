//! Fields in the form in which HTTP/1.1 sends them. What the gateway adds to a message is written once, into
//! these, and not first into a map that is then gone through.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Whole field lines, each with its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldLines(Vec<u8>);

impl FieldLines {
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

/// Where fields that the gateway writes go.
pub enum Sink<'s> {
    /// For what is looked at or changed again.
    Map(&'s mut HeaderMap),
    /// For what is sent as it is; the map beside it has no fields of these names.
    Lines(&'s mut FieldLines),
}

impl Sink<'_> {
    /// The field has this value and no other.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        match self {
            Sink::Map(headers) => drop(headers.insert(name.clone(), value.clone())),
            Sink::Lines(lines) => lines.push(name, value),
        }
    }

    /// Adds a value behind those that the field has.
    pub fn append(&mut self, name: &HeaderName, value: &HeaderValue) {
        match self {
            Sink::Map(headers) => drop(headers.append(name.clone(), value.clone())),
            Sink::Lines(lines) => lines.push(name, value),
        }
    }

    /// As [`Sink::set`], for text of which the caller knows that it is a value.
    pub(super) fn set_text(&mut self, name: &HeaderName, text: &[u8]) {
        match self {
            Sink::Map(headers) => {
                if let Ok(value) = HeaderValue::from_bytes(text) {
                    headers.insert(name.clone(), value);
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
        let mut more = FieldLines::with_capacity(8);
        more.push(&http::header::HOST, &HeaderValue::from_static(""));
        lines.extend(&more);
        assert_eq!(lines.as_bytes(), b"via: 1.1 gatehouse\r\nhost: \r\n");
    }
}
