//! Responses of instances: the head, and where the body behind it ends.
//!
//! Invariant: a length that could be read in two ways is an error, never a choice (RFC 9112 §6.3).

use std::io;
use std::mem;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::chunked::Chunks;
use super::held::Ahead;
use crate::http::fields::{self, Places};
use crate::http::response::Response;

/// A response head may be this long, with all its fields.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
pub const MAX_FIELDS: usize = 256;

/// Why something is no response that could be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the head of the response is malformed")]
    Head,
    #[error("the head of the response is too large")]
    TooLarge,
    /// The length of the body is told in two ways, or in one that nobody understands.
    #[error("the length of the response is ambiguous")]
    Length,
    #[error("the chunks of the response are malformed")]
    Chunks,
    #[error("there are too many interim responses")]
    Interims,
    #[error("the protocol was switched in the middle of the request")]
    Switch,
    #[error("the instance breaks the rules of HTTP/2")]
    Frames,
}

/// The head of a response.
pub struct Head {
    pub response: Response<()>,
    /// Another request may follow on the connection.
    pub keeps_alive: bool,
    is_http10: bool,
    told: Told,
}

/// What the fields of a head say about the length of the body.
#[derive(Default)]
struct Told {
    length: Option<Result<u64, Invalid>>,
    codings: u8,
    is_chunked: bool,
    close: bool,
}

/// Takes a head off the front; `None` when not all of it is there yet.
pub fn take_head(unread: &mut BytesMut) -> Result<Option<Head>, Invalid> {
    let Some(line_end) = memchr::memchr(b'\n', unread) else {
        let begins_well = START.iter().zip(&**unread).all(|(expected, byte)| expected == byte);
        return not_yet(unread, begins_well);
    };
    let status_line = StatusLine::of(without_cr(&unread[..line_end])).ok_or(Invalid::Head)?;
    let mut places = Places::default();
    let mut told = Told::default();
    let mut at = line_end + 1;
    loop {
        let Some(length) = memchr::memchr(b'\n', &unread[at..]) else { return not_yet(unread, true) };
        let line = at..at + length;
        at = line.end + 1;
        if without_cr(&unread[line.clone()]).is_empty() {
            break;
        }
        if places.count() == MAX_FIELDS {
            return Err(Invalid::TooLarge);
        }
        let (name, value) = field(unread, line).ok_or(Invalid::Head)?;
        told.hear(&unread[name.clone()], &unread[value.clone()]);
        places.push(name, value);
    }
    if at > MAX_HEAD_BYTES {
        return Err(Invalid::TooLarge);
    }
    let StatusLine { is_http10, status, phrase } = status_line;
    let head = take(unread, at);
    let fields = places.within(head).ok_or(Invalid::TooLarge)?;
    // HTTP/1.0 may promise to keep the connection; who still speaks it is not worth the risk.
    let keeps_alive = !is_http10 && !told.close;
    let response = Response { fields, phrase, ..Response::new(status, ()) };
    Ok(Some(Head { response, keeps_alive, is_http10, told }))
}

/// Takes so many bytes off the front.
pub(super) fn take(unread: &mut BytesMut, length: usize) -> Bytes {
    if length == unread.len() { mem::take(unread).freeze() } else { unread.split_to(length).freeze() }
}

/// What every status line begins with.
const START: &[u8] = b"HTTP/1.";

fn not_yet(so_far: &[u8], begins_well: bool) -> Result<Option<Head>, Invalid> {
    if !begins_well {
        return Err(Invalid::Head);
    }
    if so_far.len() > MAX_HEAD_BYTES { Err(Invalid::TooLarge) } else { Ok(None) }
}

/// A line without its end: a LF alone ends one as well (RFC 9112 §2.2).
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

struct StatusLine {
    is_http10: bool,
    status: StatusCode,
    /// One of the instance's own; the usual ones are known from the status.
    phrase: Option<Box<Bytes>>,
}

impl StatusLine {
    fn of(line: &[u8]) -> Option<Self> {
        let (&[minor, b' ', hundreds, tens, ones], behind) = line.strip_prefix(START)?.split_first_chunk()?
        else {
            return None;
        };
        let is_http10 = match minor {
            b'1' => false,
            b'0' => true,
            _ => return None,
        };
        let status = StatusCode::from_bytes(&[hundreds, tens, ones]).ok()?;
        let phrase = match behind {
            [] => b"",
            [b' ', phrase @ ..] => phrase,
            _ => return None,
        };
        if !fields::is_value(phrase) {
            return None;
        }
        let is_usual =
            phrase.is_empty() || phrase == status.canonical_reason().unwrap_or_default().as_bytes();
        let phrase = (!is_usual).then(|| Box::new(Bytes::copy_from_slice(phrase)));
        Some(StatusLine { is_http10, status, phrase })
    }
}

/// The two parts of a field line, its name in lower case from now on.
pub(super) fn field(bytes: &mut [u8], line: Range<usize>) -> Option<(Range<usize>, Range<usize>)> {
    let colon = line.start + fields::lower_name(&mut bytes[line.clone()])?;
    // Blanks around the name, and lines that go on from the one before, fail here.
    if colon == line.start || bytes[colon] != b':' {
        return None;
    }
    let (mut start, mut end) = (colon + 1, line.end);
    if bytes[start..end].ends_with(b"\r") {
        end -= 1;
    }
    while start < end && is_blank(bytes[start]) {
        start += 1;
    }
    while start < end && is_blank(bytes[end - 1]) {
        end -= 1;
    }
    fields::is_value(&bytes[start..end]).then_some((line.start..colon, start..end))
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a head that is known to be incomplete up to `from` may be complete now.
pub fn may_end(bytes: &[u8], from: usize) -> bool {
    let start = from.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[start..])
        .any(|at| matches!(bytes[start + at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

impl Told {
    /// `name` is in lower case.
    fn hear(&mut self, name: &[u8], value: &[u8]) {
        if name == b"content-length" {
            for number in value.split(|&byte| byte == b',') {
                let number = parse_length(number.trim_ascii());
                self.length = Some(match (self.length, number) {
                    (None, Some(number)) => Ok(number),
                    (Some(Ok(before)), Some(number)) if before == number => Ok(number),
                    _ => Err(Invalid::Length),
                });
            }
        } else if name == b"transfer-encoding" {
            self.codings = self.codings.saturating_add(1);
            self.is_chunked = value.eq_ignore_ascii_case(b"chunked");
        } else if name == b"connection" {
            self.close |= value
                .split(|&byte| byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
    }
}

fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

impl Head {
    /// The body behind the head (RFC 9112 §6.3). `to_head`: it answers a HEAD.
    pub fn body(&self, to_head: bool) -> Result<Body, Invalid> {
        let told = &self.told;
        // An attempt to split the response; or a coding that would have to be taken off, for the field that names it
        // ends at this hop.
        let is_plain = match told.codings {
            0 => true,
            1 => told.is_chunked && told.length.is_none() && !self.is_http10,
            _ => false,
        };
        if !is_plain {
            return Err(Invalid::Length);
        }
        let status = self.response.status;
        let has_none = to_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match told.length {
            _ if has_none => Body::Length(0),
            _ if told.is_chunked => Body::Chunked(Chunks::default()),
            Some(length) => Body::Length(length?),
            None => Body::UntilClose,
        })
    }
}

/// What is still to come of a response's body.
pub enum Body {
    /// So many bytes.
    Length(u64),
    Chunked(Chunks),
    /// Chunked, and some of it was read already.
    Ahead(Box<Ahead>),
    UntilClose,
    /// Of HTTP/2, where frames tell the end. `left` is what is to come of a length that was told.
    Frames {
        left: Option<u64>,
        ended: bool,
    },
}

/// What the bytes at hand give of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Never empty.
    Data(Bytes),
    /// And nothing after them.
    Trailers(HeaderMap),
    End,
    /// All bytes are used up.
    More,
}

impl Body {
    /// Takes the next piece off the front.
    pub fn next(&mut self, unread: &mut BytesMut) -> Result<Step, Invalid> {
        match self {
            Body::Length(0) => Ok(Step::End),
            Body::Chunked(chunks) => chunks.next(unread),
            Body::Ahead(ahead) => {
                let step = ahead.next();
                if ahead.is_used_up() {
                    *self = Body::Chunked(mem::take(&mut ahead.rest));
                }
                step.map_or_else(|| self.next(unread), Ok)
            }
            Body::Length(_) | Body::UntilClose if unread.is_empty() => Ok(Step::More),
            Body::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len());
                *left -= length as u64;
                Ok(Step::Data(take(unread, length)))
            }
            Body::UntilClose => Ok(Step::Data(mem::take(unread).freeze())),
            // They are not in bytes.
            Body::Frames { ended: true, .. } => Ok(Step::End),
            Body::Frames { .. } => Ok(Step::More),
        }
    }

    /// Nothing more comes of it.
    pub fn is_end(&self) -> bool {
        match self {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunks) => chunks.is_end(),
            Body::Ahead(_) | Body::UntilClose => false,
            Body::Frames { ended, .. } => *ended,
        }
    }

    /// Whether all of it has come already, or nobody can say when it has.
    pub fn is_within(&self, unread: &[u8]) -> bool {
        match self {
            Body::Length(left) => *left <= unread.len() as u64,
            // Without trailers it ends so, and hardly ever does it go on after that.
            Body::Chunked(_) => unread.ends_with(b"0\r\n\r\n"),
            Body::Ahead(_) | Body::UntilClose | Body::Frames { .. } => true,
        }
    }

    /// Whether the end of the connection, as `error` tells it, is the end of the body.
    pub fn ends_with(&self, error: &io::Error) -> bool {
        matches!(self, Body::UntilClose) && error.kind() == io::ErrorKind::UnexpectedEof
    }

    /// How much is to come, where that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Body::Length(left) | Body::Frames { left: Some(left), .. } => Some(*left),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of bytes that arrive in pieces: the head, and the body as far as it is there.
    #[derive(Debug, PartialEq)]
    struct Read {
        status: u16,
        headers: HeaderMap,
        keeps_alive: bool,
        data: Vec<u8>,
        trailers: Option<HeaderMap>,
        ended: bool,
        rest: Vec<u8>,
    }

    fn read(pieces: &[&[u8]], to_head: bool) -> Result<Option<Read>, Invalid> {
        let mut unread = BytesMut::new();
        let (mut read, mut body) = (None, None);
        for piece in pieces {
            unread.extend_from_slice(piece);
            if read.is_none() {
                let Some(head) = take_head(&mut unread)? else { continue };
                body = Some(head.body(to_head)?);
                read = Some(Read {
                    status: head.response.status.as_u16(),
                    headers: head.response.fields.to_map(),
                    keeps_alive: head.keeps_alive,
                    data: Vec::new(),
                    trailers: None,
                    ended: false,
                    rest: Vec::new(),
                });
            }
            let (Some(read), Some(body)) = (&mut read, &mut body) else { continue };
            while !read.ended {
                match body.next(&mut unread)? {
                    Step::More => break,
                    Step::Data(data) => {
                        assert!(!data.is_empty());
                        read.data.extend_from_slice(&data);
                    }
                    Step::Trailers(trailers) => (read.trailers, read.ended) = (Some(trailers), true),
                    Step::End => read.ended = true,
                }
                read.ended |= body.is_end();
            }
        }
        Ok(read.map(|read| Read { rest: unread.to_vec(), ..read }))
    }

    fn whole(text: &str) -> Read {
        read(&[text.as_bytes()], false).expect(text).expect("the head is whole")
    }

    fn error(text: &str) -> Invalid {
        read(&[text.as_bytes()], false).expect_err(text)
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        for (text, data, ended, rest) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellomore", "hello", true, "more"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "hel", false, ""),
            ("HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", "", true, ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok", "ok", true, ""),
            ("HTTP/1.1 200\r\n\r\nall of it", "all of it", false, ""),
            ("HTTP/1.0 200 OK\n\nold", "old", false, ""),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\nrest", "", true, "rest"),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9, 8\r\n\r\n", "", true, ""),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n2  ;x=\"y\"\r\nde\r\n0\r\n\r\nrest",
                "abcde",
                true,
                "rest",
            ),
        ] {
            let read = whole(text);
            assert_eq!(
                (read.data.as_slice(), read.ended, read.rest.as_slice()),
                (data.as_bytes(), ended, rest.as_bytes()),
                "{text:?}"
            );
        }
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nrest";
        let to_head = read(&[head], true).expect("well-formed").expect("whole");
        assert_eq!((to_head.ended, to_head.rest.as_slice()), (true, &b"rest"[..]));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding:",
            "Content-Length: 2\r\nContent-Length: 3",
            "Content-Length: 2, 3",
            "Content-Length: 2,",
            "Content-Length:",
            "Content-Length: +2",
            "Content-Length: -2",
            "Content-Length: 0x2",
            "Content-Length: 2 2",
            "Content-Length: 18446744073709551616",
        ] {
            assert_eq!(error(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")), Invalid::Length, "{fields}");
        }
        assert_eq!(error("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Invalid::Length);
    }

    #[test]
    fn a_malformed_head_is_refused_as_early_as_it_shows() {
        for head in [
            "SSH-2.0",
            "\x15\x03\x03",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 OK\r\n",
            "HTTP/1.1 99 Low\r\n",
            "HTTP/1.1 099 Low\r\n",
            "HTTP/1.1 2000 High\r\n",
            "HTTP/1.1  200 OK\r\n",
            "HTTP/1.1 200 O\0K\r\n",
            "HTTP/1.1 200 O\rK\r\n",
            "HTTP/1.1 200 OK\r\nX\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n",
            "HTTP/1.1 200 OK\r\n: a\r\n",
            "HTTP/1.1 200 OK\r\n X: a\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n folded: b\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n",
            "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\r\n",
        ] {
            assert_eq!(error(head), Invalid::Head, "{head:?}");
        }
    }

    #[test]
    fn a_head_has_bounds() {
        let fields = |count: usize| "x: 1\r\n".repeat(count);
        assert_eq!(
            whole(&format!("HTTP/1.1 204 No\r\n{}\r\n", fields(MAX_FIELDS))).headers.len(),
            MAX_FIELDS
        );
        assert_eq!(error(&format!("HTTP/1.1 204 No\r\n{}", fields(MAX_FIELDS + 1))), Invalid::TooLarge);
        for end in ["", "\r\n\r\n"] {
            let long = format!("HTTP/1.1 200 OK\r\nX: {}{end}", "x".repeat(MAX_HEAD_BYTES));
            assert_eq!(error(&long), Invalid::TooLarge);
        }
    }

    #[test]
    fn the_connection_stays_open_unless_the_instance_says_otherwise() {
        for (head, keeps) in [
            ("HTTP/1.1 204 No\r\n\r\n", true),
            ("HTTP/1.1 204 No\r\nConnection: keep-alive\r\n\r\n", true),
            ("HTTP/1.1 204 No\r\nConnection: x, Close\r\nConnection: keep-alive\r\n\r\n", false),
            ("HTTP/1.0 204 No\r\nConnection: keep-alive\r\n\r\n", false),
        ] {
            assert_eq!(whole(head).keeps_alive, keeps, "{head}");
        }
    }

    #[test]
    fn a_reason_phrase_of_its_own_is_kept() {
        let phrase = |line: &str| {
            let head =
                take_head(&mut BytesMut::from(&*format!("{line}\r\n\r\n"))).expect(line).expect("whole");
            head.response.phrase.map(|kept| kept.to_vec())
        };
        assert_eq!(phrase("HTTP/1.1 200 Fine"), Some(b"Fine".to_vec()));
        for usual in ["HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200"] {
            assert_eq!(phrase(usual), None);
        }
    }

    const TEXT: &str = "HTTP/1.[01] (200|204|304|101)( OK)?\r?\n\
        ((Content-Length|Transfer-Encoding|X|Connection):( (chunked|3|7|close))?\r?\n){0,4}(\r?\n)?\
        (([0-9a]{1,2}( |;[ -~]{1,4})?\r\n)?[a-f0\r\n]{0,9}){0,4}(0\r\n(X-Sum: 7\r\n)?\r\n)?.{0,3}";

    proptest! {
        #[test]
        fn it_makes_no_difference_where_the_bytes_are_cut(text in TEXT, first in 0usize..120, second in 0usize..120) {
            let bytes = text.as_bytes();
            let (first, second) = (first.min(bytes.len()), second.min(bytes.len()));
            let (first, second) = (first.min(second), first.max(second));
            let cut = read(&[&bytes[..first], &bytes[first..second], &bytes[second..]], false);
            prop_assert_eq!(read(&[bytes], false), cut);
        }

        #[test]
        fn bytes_of_any_kind_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            chunked: bool,
        ) {
            let _ = read(&[&bytes], false);
            let mut text: Vec<u8> = b"HTTP/1.1 200 OK\r\n".to_vec();
            text.extend_from_slice(if chunked { b"transfer-encoding: chunked\r\n\r\n" } else { b"" });
            text.extend_from_slice(&bytes);
            let _ = read(&[&text], false);
        }

        #[test]
        fn what_passes_is_read_alike_by_another_parser(
            text in "HTTP/1.[012] [0-9]{3}[ -~\t]{0,5}\r?\n([a-zA-Z_(: \t]{1,4}:[ -~\t\r\0\u{e9}]{0,6}\r?\n){0,4}\r?\n",
        ) {
            let mut unread = BytesMut::from(&*text);
            let Ok(Some(head)) = take_head(&mut unread) else { return Ok(()) };
            let mut fields = [httparse::EMPTY_HEADER; 8];
            let mut other = httparse::Response::new(&mut fields);
            let length = match other.parse(text.as_bytes()) {
                Ok(httparse::Status::Complete(length)) => length,
                refused => return Err(TestCaseError::fail(format!("{text:?}: {refused:?}"))),
            };
            prop_assert_eq!(length, text.len() - unread.len());
            prop_assert_eq!(other.code, Some(head.response.status.as_u16()));
            for field in other.headers.iter() {
                let name = field.name.to_lowercase();
                let mut fields = head.response.fields.iter();
                prop_assert!(fields.any(|ours| ours == (name.as_bytes(), field.value)), "{:?}", field);
            }
            prop_assert_eq!(other.headers.len(), head.response.fields.len());
        }

        #[test]
        fn a_head_that_may_end_is_never_missed(text in "(a|\r|\n){0,12}", known in 0usize..12) {
            let known = known.min(text.len());
            let ends = |text: &str| text.contains("\n\n") || text.contains("\n\r\n");
            if !ends(&text[..known]) {
                prop_assert_eq!(may_end(text.as_bytes(), known), ends(&text));
            }
        }
    }
}
