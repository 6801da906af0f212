//! Server-sent events as they are received (WHATWG HTML, §9.2.6), as far as a registry sends them: lines that end
//! with LF or CRLF, one event at a time, of a bounded size.

use bytes::{Bytes, BytesMut};

/// Bytes as they come in, and events as they go out.
pub struct EventReader {
    received: BytesMut,
    /// How much of that holds no end of a line.
    searched: usize,
    /// What the lines of the present event have said so far.
    name: Bytes,
    data: Option<Bytes>,
    max_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A sign of life.
    Comment,
    Event {
        name: Bytes,
        data: Bytes,
    },
}

/// More than the bound without the end of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

impl EventReader {
    pub fn new(max_bytes: usize) -> Self {
        EventReader { received: BytesMut::new(), searched: 0, name: Bytes::new(), data: None, max_bytes }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next piece of those that came in whole.
    pub fn next(&mut self) -> Result<Option<Piece>, TooLarge> {
        while let Some(end) = memchr::memchr(b'\n', &self.received[self.searched..]) {
            let mut line = self.received.split_to(self.searched + end + 1);
            self.searched = 0;
            line.truncate(line.len() - 1);
            if line.ends_with(b"\r") {
                line.truncate(line.len() - 1);
            }
            if let Some(piece) = self.line(line.freeze())? {
                return Ok(Some(piece));
            }
        }
        self.searched = self.received.len();
        if self.held() + self.received.len() > self.max_bytes { Err(TooLarge) } else { Ok(None) }
    }

    fn line(&mut self, line: Bytes) -> Result<Option<Piece>, TooLarge> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            // An event without data is none.
            return Ok(self.data.take().map(|data| Piece::Event { name, data }));
        }
        let colon = memchr::memchr(b':', &line).unwrap_or(line.len());
        let value = line.slice((colon + 1).min(line.len())..);
        let value = if value.starts_with(b" ") { value.slice(1..) } else { value };
        match &line[..colon] {
            b"" => return Ok(Some(Piece::Comment)),
            b"event" => self.name = value,
            b"data" => {
                if self.held() + value.len() > self.max_bytes {
                    return Err(TooLarge);
                }
                self.data = Some(match self.data.take() {
                    None => value,
                    Some(before) => [&before[..], b"\n", &value[..]].concat().into(),
                });
            }
            // `id` and `retry` are for those who resume; others may come to be.
            _ => {}
        }
        Ok(None)
    }

    fn held(&self) -> usize {
        self.name.len() + self.data.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 64;

    fn event(name: &'static str, data: &'static str) -> Piece {
        Piece::Event { name: name.into(), data: data.into() }
    }

    /// All pieces of a stream that comes in parts of this size.
    fn read(text: &str, size: usize) -> Result<Vec<Piece>, TooLarge> {
        let mut reader = EventReader::new(MAX);
        let mut pieces = Vec::new();
        for part in text.as_bytes().chunks(size) {
            reader.push(part);
            while let Some(piece) = reader.next()? {
                pieces.push(piece);
            }
        }
        Ok(pieces)
    }

    #[test]
    fn events_are_the_same_however_they_come_in() {
        let text = ": hello\nid: 7\nevent: instances\ndata: {\"a\":1}\n\nevent: empty\n\n:\r\ndata:one\r\ndata:  two\r\n\
                    retry: 5\r\nx\r\n\r\ndata\n\ndata: cut off\n";
        let expected = [
            Piece::Comment,
            event("instances", "{\"a\":1}"),
            Piece::Comment,
            event("", "one\n two"),
            event("", ""),
        ];
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(read(text, size).expect("small").as_slice(), expected, "in parts of {size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        /// Near enough to a stream to get somewhere.
        #[test]
        fn any_text_is_read_alike_in_parts_and_within_the_bound(
            lines in proptest::collection::vec("(data|event|id)?:? ?[a-z:]{0,12}\r?", 0..20),
            size in 1..40_usize,
        ) {
            let text = lines.join("\n");
            let (whole, parts) = (read(&text, text.len().max(1)), read(&text, size));
            // Whether the bound is passed may depend on how much comes in at once.
            if let (Ok(whole), Ok(parts)) = (&whole, &parts) {
                prop_assert_eq!(whole, parts);
            }
            for piece in parts.iter().flatten() {
                let Piece::Event { name, data } = piece else { continue };
                prop_assert!(name.len() + data.len() <= 2 * MAX);
            }
        }
    }

    #[test]
    fn an_event_has_a_bound() {
        let long = "x".repeat(56);
        assert!(read(&format!("data: {long}\n\ndata: {long}\n\n"), 5).is_ok(), "each for itself");
        assert_eq!(read(&format!("data: {long}\ndata: {long}\n\n"), 1000), Err(TooLarge));
        assert_eq!(read(&format!("data: {long}{long}"), 5), Err(TooLarge), "without an end");
        assert_eq!(read(&format!("event: {long}\ndata: {long}\n\n"), 1000), Err(TooLarge));
    }
}
