//! Where one HTTP/1.1 request ends and the next begins (RFC 9112 §2–§7), read more strictly than a parser has to.
//!
//! Requests are smuggled through disagreements about this, so what two readers could understand in two ways is
//! refused here, before anything parses it: both Content-Length and Transfer-Encoding, either of them twice,
//! codings other than `chunked`, line ends that are not CRLF. What has one meaning but is wrong (a name with a space, a
//! NUL in a value) is left to the parser behind.

use memchr::memchr;

use crate::reason::Reason;

/// The limits of a request head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub bytes: usize,
    pub fields: usize,
    pub target_bytes: usize,
}

/// Why a request is refused before it has become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub reason: Reason,
    /// For the client to read.
    pub detail: &'static str,
}

fn malformed(detail: &'static str) -> Malformed {
    Malformed { reason: Reason::InvalidRequest, detail }
}

/// A method that is longer than this is none; it bounds a request line without a space.
const MAX_METHOD_BYTES: usize = 64;
const MAX_CHUNK_EXTENSION_BYTES: usize = 1024;
/// Sixteen hexadecimal digits make 64 bits; no body is that long.
const MAX_CHUNK_SIZE_DIGITS: u8 = 15;

/// What the head says about what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Bytes of the head, the empty line included.
    pub at: usize,
    pub body: BodyFraming,
    /// It has an `Upgrade` field: what comes next may be no HTTP.
    pub upgrade: bool,
}

/// Reads one head, line by line as they come.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// Where the next line begins.
    line: usize,
    /// Up to where no line end was found.
    seen: usize,
    has_request_line: bool,
    is_http10: bool,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl HeadScan {
    /// `bytes` begin with the head, and with all that was there the last time.
    pub fn find_end(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<End>, Malformed> {
        while let Some(found) = memchr(b'\n', &bytes[self.seen..]) {
            let end = self.seen + found;
            let line = bytes[self.line..end].strip_suffix(b"\r").ok_or_else(|| {
                // RFC 9112 §2.2 allows to take a single LF for a line end, and not everyone does.
                malformed("lines of a request end with CR LF")
            })?;
            self.seen = end + 1;
            self.line = end + 1;
            if self.line > limits.bytes {
                return Err(too_large());
            }
            if !self.has_request_line {
                // Empty lines before a request are ignored, for the sake of old clients (§2.2).
                if !line.is_empty() {
                    self.request_line(line, limits)?;
                }
            } else if line.is_empty() {
                return self.end().map(Some);
            } else {
                self.field(line, limits)?;
            }
        }
        self.seen = bytes.len();
        let unfinished = bytes.len() - self.line;
        if !self.has_request_line && unfinished > limits.target_bytes + MAX_METHOD_BYTES {
            return Err(uri_too_long());
        }
        if bytes.len() > limits.bytes { Err(too_large()) } else { Ok(None) }
    }

    fn request_line(&mut self, line: &[u8], limits: &HeadLimits) -> Result<(), Malformed> {
        self.has_request_line = true;
        let Some(rest) = line.strip_suffix(b" HTTP/1.1").or_else(|| {
            self.is_http10 = true;
            line.strip_suffix(b" HTTP/1.0")
        }) else {
            return Err(malformed("the first line is not that of an HTTP/1.1 request"));
        };
        let space = memchr(b' ', rest).ok_or_else(|| malformed("the request line has no target"))?;
        let target = &rest[space + 1..];
        if target.len() > limits.target_bytes {
            return Err(uri_too_long());
        }
        // §3.2: a fragment is the client's own business; a parser may drop it where another does not.
        if memchr(b'#', target).is_some() {
            return Err(malformed("a request target has no fragment"));
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8], limits: &HeadLimits) -> Result<(), Malformed> {
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(too_large());
        }
        match line[0] {
            b' ' | b'\t' => Err(malformed("a field goes over several lines")),
            b'c' | b'C' => {
                value_of(line, b"content-length").map_or(Ok(()), |value| self.content_length(value))
            }
            b't' | b'T' => value_of(line, b"transfer-encoding").map_or(Ok(()), |value| self.coding(value)),
            b'u' | b'U' => {
                self.upgrade |= value_of(line, b"upgrade").is_some();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// RFC 9112 §6.3 lets a recipient take repeated equal lengths for one. Nobody sends them in good faith.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let length =
            digits.and_then(|digits| digits.parse().ok()).filter(|length| *length <= i64::MAX as u64);
        let length = length.ok_or_else(|| malformed("Content-Length is not one number"))?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(malformed("there is more than one Content-Length")),
        }
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.is_http10 {
            return Err(malformed("HTTP/1.0 has no Transfer-Encoding"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(malformed("chunked is the only Transfer-Encoding that is understood"));
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Err(malformed("there is more than one Transfer-Encoding"));
        }
        Ok(())
    }

    fn end(&self) -> Result<End, Malformed> {
        let body = match (self.length, self.chunked) {
            (Some(_), true) => {
                return Err(malformed("Transfer-Encoding and Content-Length exclude each other"));
            }
            (Some(length), false) => BodyFraming::length(length),
            (None, true) => BodyFraming::chunked(),
            (None, false) => BodyFraming::length(0),
        };
        Ok(End { at: self.line, body, upgrade: self.upgrade })
    }
}

fn too_large() -> Malformed {
    Malformed { reason: Reason::HeadersTooLarge, detail: "the head of the request is larger than allowed" }
}

fn uri_too_long() -> Malformed {
    Malformed { reason: Reason::UriTooLong, detail: "the request target is longer than allowed" }
}

/// The value of a field line with this name, without the spaces around it.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// Counts a body's bytes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    Length(u64),
    Chunked(Chunk),
}

/// Where in a chunked body (RFC 9112 §7.1) the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    Size { size: u64, digits: u8 },
    Extension { size: u64, length: usize },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

const FIRST_CHUNK: Chunk = Chunk::Size { size: 0, digits: 0 };

impl BodyFraming {
    pub fn length(length: u64) -> Self {
        BodyFraming::Length(length)
    }

    pub fn chunked() -> Self {
        BodyFraming::Chunked(FIRST_CHUNK)
    }

    pub fn is_end(&self) -> bool {
        matches!(self, BodyFraming::Length(0) | BodyFraming::Chunked(Chunk::End))
    }

    /// How many of these bytes belong to the body.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            BodyFraming::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Ok(taken)
            }
            BodyFraming::Chunked(chunk) => chunk.take(bytes),
        }
    }
}

impl Chunk {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && *self != Chunk::End {
            if let Chunk::Data { left } = self {
                let taken = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                at += taken;
                if *left == 0 {
                    *self = Chunk::DataCr;
                }
                continue;
            }
            *self = self.after(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn after(self, byte: u8) -> Result<Chunk, Malformed> {
        Ok(match (self, byte) {
            (Chunk::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == MAX_CHUNK_SIZE_DIGITS {
                    return Err(malformed("a chunk is larger than any body"));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                Chunk::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Chunk::Size { digits: 0, .. }, _) => return Err(malformed("a chunk has no size")),
            (Chunk::Size { size, .. }, b';') => Chunk::Extension { size, length: 0 },
            (Chunk::Size { size, .. } | Chunk::Extension { size, .. }, b'\r') => Chunk::SizeLf { size },
            (Chunk::Extension { size, length }, b'\t' | b' '..=b'~' | 0x80..) => {
                if length == MAX_CHUNK_EXTENSION_BYTES {
                    return Err(malformed("the extensions of a chunk are longer than allowed"));
                }
                Chunk::Extension { size, length: length + 1 }
            }
            (Chunk::SizeLf { size: 0 }, b'\n') => Chunk::TrailerStart,
            (Chunk::SizeLf { size }, b'\n') => Chunk::Data { left: size },
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => FIRST_CHUNK,
            (Chunk::TrailerStart, b'\r') => Chunk::LastLf,
            (Chunk::LastLf, b'\n') => Chunk::End,
            (Chunk::TrailerStart, b' ' | b'\t') => {
                return Err(malformed("a trailer goes over several lines"));
            }
            (Chunk::Trailer, b'\r') => Chunk::TrailerLf,
            (Chunk::TrailerStart | Chunk::Trailer, _) if byte != b'\n' => Chunk::Trailer,
            (Chunk::TrailerLf, b'\n') => Chunk::TrailerStart,
            _ => return Err(malformed("the chunked body is malformed")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 400, fields: 5, target_bytes: 100 };

    fn scan(head: &str) -> Result<Option<End>, Malformed> {
        HeadScan::default().find_end(head.as_bytes(), &LIMITS)
    }

    fn reason(head: &str) -> Reason {
        scan(head).expect_err(head).reason
    }

    #[test]
    fn a_head_tells_how_its_body_ends() {
        let end = |head: &str| scan(head).expect("well-formed").expect("whole");
        let plain = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(end(plain), End { at: plain.len(), body: BodyFraming::length(0), upgrade: false });
        assert_eq!(end("\r\n\r\nGET / HTTP/1.0\r\n\r\nrest").at, 22);
        assert_eq!(end("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n").body, BodyFraming::length(5));
        assert_eq!(end("POST / HTTP/1.1\r\nTransfer-Encoding:Chunked \r\n\r\n").body, BodyFraming::chunked());
        assert!(end("GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n").upgrade);
        assert_eq!(scan("GET / HTTP/1.1\r\nhost: a\r\n"), Ok(None));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for fields in [
            "content-length: 3\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 3",
            "content-length: 3\r\ncontent-length: 3",
            "content-length: 3, 3",
            "content-length: +3",
            "content-length: -3",
            "content-length: 3 4",
            "content-length: 0x3",
            "content-length:",
            "content-length: 18446744073709551616",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked, chunked",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: identity",
            "transfer-encoding: xchunked",
            "transfer-encoding: \"chunked\"",
            "x: a\r\n folded",
            "x: a\n",
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(reason(&head), Reason::InvalidRequest, "{fields}");
        }
        assert_eq!(reason("GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), Reason::InvalidRequest);
    }

    #[test]
    fn a_request_line_is_judged_as_soon_as_it_ends() {
        for line in [
            "GET /",
            "GET / HTTP/2.0",
            "GET / HTTP/0.9",
            "GET / http/1.1",
            "GET/ HTTP/1.1",
            "GET /#a HTTP/1.1",
        ] {
            assert_eq!(reason(&format!("{line}\r\n")), Reason::InvalidRequest, "{line}");
        }
        assert_eq!(reason("GET / HTTP/1.1\n"), Reason::InvalidRequest);
    }

    #[test]
    fn limits_hold_before_the_end_has_come() {
        assert_eq!(reason(&format!("GET /{}", "a".repeat(170))), Reason::UriTooLong);
        assert_eq!(reason(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(101))), Reason::UriTooLong);
        assert_eq!(reason(&format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(400))), Reason::HeadersTooLarge);
        assert_eq!(reason(&format!("GET / HTTP/1.1\r\n{}", "x: a\r\n".repeat(6))), Reason::HeadersTooLarge);
    }

    #[test]
    fn chunks_are_counted_to_the_end() {
        let body = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nnext";
        let mut framing = BodyFraming::chunked();
        assert_eq!(framing.take(body), Ok(body.len() - 4));
        assert!(framing.is_end());
        for bad in [
            "\r\n",
            "x\r\n",
            " 3\r\nabc",
            "-1\r\n",
            "3\nabc",
            "3 \r\nabc",
            "3\r\nabcd",
            "3\r\nabc\n",
            "3;a\nb\r\n",
            "3;a\0\r\n",
            "3;\rx",
            "0\r\n\n",
            "0\r\nx: 1\n",
            "0\r\n x: 1\r\n",
            "1000000000000000\r\n",
        ] {
            assert!(BodyFraming::chunked().take(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_where_the_bytes_are_cut(
            text in "(\r\n)?(GET|POST /a) (HTTP/1.1)?\r?\n((content-length|transfer-encoding|x): (chunked|1|2)\r?\n){0,4}(\r\n)?\\PC{0,9}",
            cut in 0usize..120,
        ) {
            let bytes = text.as_bytes();
            let whole = HeadScan::default().find_end(bytes, &LIMITS);
            let mut scan = HeadScan::default();
            let first = scan.find_end(&bytes[..cut.min(bytes.len())], &LIMITS);
            let in_two = match first {
                Ok(None) => scan.find_end(bytes, &LIMITS),
                decided => decided,
            };
            prop_assert_eq!(whole, in_two);
        }

        #[test]
        fn what_passes_is_read_alike_by_the_parser_behind(
            text in "GET /[a#]{0,2} HTTP/1.[012]\r?\n((content-length|x|transfer-encoding)[: ]{1,2}(chunked|1|[ -~]{0,4})\r?\n){0,3}\r\n",
        ) {
            let mut fields = [httparse::EMPTY_HEADER; 8];
            let mut request = httparse::Request::new(&mut fields);
            let parsed = request.parse(text.as_bytes());
            if let (Ok(Some(end)), Ok(httparse::Status::Complete(length))) = (scan(&text), parsed) {
                prop_assert_eq!(end.at, length);
                let named = |name: &str| request.headers.iter().any(|field| field.name.eq_ignore_ascii_case(name));
                prop_assert_eq!(end.body == BodyFraming::chunked(), named("transfer-encoding"));
            }
        }
    }
}
