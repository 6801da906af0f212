//! The chunked coding of a response's body (RFC 9112 §7.1), taken off without copying what is in it.

use std::mem;

use bytes::{Buf, BytesMut};
use http::HeaderMap;

use super::decode::{self, Invalid, Step};
use crate::http::fields::Places;

/// Of all chunks of a body together: nobody needs them.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
/// Leading zeros and padding included.
const MAX_SIZE_BYTES: usize = 64;
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const MAX_TRAILERS: usize = 100;
/// The end of a body without trailers, behind the data of its last chunk.
const PLAIN_END: &[u8] = b"\r\n0\r\n\r\n";

/// Where in a chunked body the next byte stands.
#[derive(Default)]
pub struct Chunks {
    at: At,
    /// Of the present chunk's data; while its size is read, the size so far.
    left: u64,
    /// Digits and blanks of the present size.
    size_bytes: usize,
    extension_bytes: usize,
    /// The lines of the trailer section so far.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size,
    /// Blanks behind a size, which some instances pad it with.
    Padding,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunks {
    pub fn is_end(&self) -> bool {
        self.at == At::End
    }

    pub fn next(&mut self, unread: &mut BytesMut) -> Result<Step, Invalid> {
        let mut used = 0;
        while self.at != At::Data && self.at != At::End {
            let Some(&byte) = unread.get(used) else {
                *unread = BytesMut::new();
                return Ok(Step::More);
            };
            used += 1;
            self.at = self.step(byte)?;
        }
        if used == unread.len() {
            *unread = BytesMut::new();
        } else {
            unread.advance(used);
        }
        if self.at == At::Data {
            return Ok(self.data(unread));
        }
        match mem::take(&mut self.trailers) {
            trailers if trailers.is_empty() => Ok(Step::End),
            trailers => parse_trailers(&trailers).map(Step::Trailers),
        }
    }

    fn data(&mut self, unread: &mut BytesMut) -> Step {
        if unread.is_empty() {
            return Step::More;
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(unread.len());
        let data = decode::take(unread, length);
        self.left -= length as u64;
        if self.left == 0 {
            self.at = At::DataCr;
            // Who knows that this was the last of it can send it with the end behind it.
            if **unread == *PLAIN_END {
                self.at = At::End;
                *unread = BytesMut::new();
            }
        }
        Step::Data(data)
    }

    fn step(&mut self, byte: u8) -> Result<At, Invalid> {
        Ok(match (self.at, byte) {
            (At::Start | At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).ok_or(Invalid::Chunks)?;
                self.count_size_byte()?;
                self.left = self.left.checked_mul(16).ok_or(Invalid::Chunks)? + u64::from(digit);
                At::Size
            }
            (At::Size | At::Padding, b' ' | b'\t') => {
                self.count_size_byte()?;
                At::Padding
            }
            (At::Size | At::Padding, b';') => At::Extension,
            (At::Size | At::Padding | At::Extension, b'\r') => At::SizeLf,
            (At::Extension, byte) if byte != b'\n' => {
                self.extension_bytes += 1;
                if self.extension_bytes > MAX_EXTENSION_BYTES {
                    return Err(Invalid::Chunks);
                }
                At::Extension
            }
            (At::SizeLf, b'\n') if self.left == 0 => At::TrailerStart,
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.size_bytes = 0;
                At::Start
            }
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::EndLf, b'\n') => At::End,
            (At::TrailerStart | At::Trailer | At::TrailerLf, byte) => return self.trailer(byte),
            _ => return Err(Invalid::Chunks),
        })
    }

    fn count_size_byte(&mut self) -> Result<(), Invalid> {
        self.size_bytes += 1;
        if self.size_bytes > MAX_SIZE_BYTES { Err(Invalid::Chunks) } else { Ok(()) }
    }

    fn trailer(&mut self, byte: u8) -> Result<At, Invalid> {
        if self.trailers.len() >= MAX_TRAILER_BYTES {
            return Err(Invalid::Chunks);
        }
        self.trailers.push(byte);
        match (self.at, byte) {
            (At::TrailerLf, b'\n') => Ok(At::TrailerStart),
            (At::TrailerLf, _) | (_, b'\n') => Err(Invalid::Chunks),
            (_, b'\r') => Ok(At::TrailerLf),
            _ => Ok(At::Trailer),
        }
    }
}

/// Each of the lines ends with CR LF.
fn parse_trailers(lines: &[u8]) -> Result<HeaderMap, Invalid> {
    let mut trailers = Places::default();
    let mut bytes = BytesMut::from(lines);
    let mut at = 0;
    while let Some(length) = memchr::memchr(b'\n', &bytes[at..]) {
        let (name, value) = decode::field(&mut bytes, at..at + length)
            .filter(|_| trailers.count() < MAX_TRAILERS)
            .ok_or(Invalid::Chunks)?;
        trailers.push(name, value);
        at += length + 1;
    }
    trailers.within(bytes.freeze()).map(|trailers| trailers.to_map()).ok_or(Invalid::Chunks)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn steps(text: &str) -> Result<Vec<Step>, Invalid> {
        let mut unread = BytesMut::from(text);
        let mut chunks = Chunks::default();
        let mut steps = Vec::new();
        loop {
            match chunks.next(&mut unread)? {
                Step::More => return Ok(steps),
                step => steps.push(step),
            }
            if chunks.is_end() {
                return Ok(steps);
            }
        }
    }

    fn data(text: &'static str) -> Step {
        Step::Data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_last_piece_is_known_to_be_the_last() {
        let mut unread = BytesMut::from(&b"3\r\nabc\r\n0\r\n\r\n"[..]);
        let mut chunks = Chunks::default();
        assert_eq!(chunks.next(&mut unread), Ok(data("abc")));
        assert!(chunks.is_end() && unread.is_empty());
        assert_eq!(chunks.next(&mut unread), Ok(Step::End));
    }

    #[test]
    fn trailers_come_last() {
        let mut sum = HeaderMap::new();
        sum.insert("x-sum", HeaderValue::from_static("7"));
        let read = steps("3\r\nabc\r\n0\r\nX-Sum:  7 \r\n\r\n").expect("well-formed");
        assert_eq!(read, [data("abc"), Step::Trailers(sum)]);
        let many = "x: 1\r\n".repeat(MAX_TRAILERS);
        assert!(steps(&format!("0\r\n{many}\r\n")).is_ok());
        assert!(steps(&format!("0\r\n{many}x: 1\r\n\r\n")).is_err());
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let long = |what: &str, count: usize| what.repeat(count);
        for text in [
            "\r\n",
            "x\r\n",
            " 3\r\nabc",
            "-1\r\n",
            "+1\r\n",
            "0x3\r\nabc",
            "3\nabc",
            "3 4\r\nabc",
            "3\r\nabcd",
            "3\r\nabc\n",
            "3\r\nabc\rx",
            "3;a\nb\r\n",
            "3;\rx",
            "10000000000000000\r\n",
            "0\r\nx: 1\n",
            "0\r\n x: 1\r\n\r\n",
            "0\r\nx : 1\r\n\r\n",
            "0\r\nx: a\0\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\nx: a\rb\r\n\r\n",
            "0\r\n\rx",
            &long("0", MAX_SIZE_BYTES + 1),
            &(String::from("3") + &long(" ", MAX_SIZE_BYTES)),
            &(String::from("3;") + &long("x", MAX_EXTENSION_BYTES + 1)),
            &long(&format!("1;{}\r\na\r\n", long("x", 1000)), 20),
            &format!("0\r\nx: {}", long("x", MAX_TRAILER_BYTES)),
        ] {
            assert_eq!(steps(text), Err(Invalid::Chunks), "{:?}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn a_long_body_of_padded_chunks_has_no_bound() {
        let chunks = "8       \r\n01234567\r\n".repeat(5000);
        assert_eq!(steps(&chunks).map(|steps| steps.len()), Ok(5000));
    }
}
