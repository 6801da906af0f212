//! Where the body of an HTTP/1.1 request ends (RFC 9112 §6–§7), read more strictly than a parser has to: what two
//! readers of the same bytes could understand in two ways is refused.

use bytes::{Buf, Bytes, BytesMut};

use crate::reason::Reason;

/// Why a request is refused before it has become one, or why the rest of its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub reason: Reason,
    /// For the client to read.
    pub detail: &'static str,
}

pub fn malformed(detail: &'static str) -> Malformed {
    Malformed { reason: Reason::InvalidRequest, detail }
}

const MAX_CHUNK_EXTENSION_BYTES: usize = 1024;
/// Of all chunks of a body together, beyond what there is of content: nobody reads them, and they are no part of what
/// `max_body` counts.
const MAX_EXTENSION_BYTES: u32 = 16 * 1024;
/// Sixteen hexadecimal digits make 64 bits; no body is that long.
const MAX_CHUNK_SIZE_DIGITS: u8 = 15;
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Follows a body to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    Length(u64),
    Chunked(Chunks),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    at: Chunk,
    /// Bytes of extensions that no content has come for.
    extensions: u32,
}

/// Where in a chunked body (RFC 9112 §7.1) the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    Size {
        size: u64,
        digits: u8,
    },
    /// Blanks before an extension, which RFC 9112 §7.1.1 has readers bear with.
    Blank {
        size: u64,
        length: usize,
    },
    Extension {
        size: u64,
        length: usize,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

const FIRST_CHUNK: Chunk = Chunk::Size { size: 0, digits: 0 };
const CHUNKS: Chunks = Chunks { at: FIRST_CHUNK, extensions: 0 };

impl BodyFraming {
    pub fn length(length: u64) -> Self {
        BodyFraming::Length(length)
    }

    pub fn chunked() -> Self {
        BodyFraming::Chunked(CHUNKS)
    }

    pub fn is_end(&self) -> bool {
        matches!(self, BodyFraming::Length(0) | BodyFraming::Chunked(Chunks { at: Chunk::End, .. }))
    }

    /// The length of what is left, where it is known.
    pub fn left(&self) -> Option<u64> {
        match self {
            BodyFraming::Length(left) => Some(*left),
            BodyFraming::Chunked(_) => None,
        }
    }

    /// Takes the next piece of content off `buffer`; `None` when there is none in it, or the body is over. The
    /// lines of a trailer section are appended to `trailers`.
    pub fn take(
        &mut self,
        buffer: &mut BytesMut,
        trailers: &mut Vec<u8>,
    ) -> Result<Option<Bytes>, Malformed> {
        match self {
            BodyFraming::Length(left) => Ok(take_up_to(buffer, left)),
            BodyFraming::Chunked(chunks) => chunks.take(buffer, trailers),
        }
    }

    /// Whether the body ends within these bytes, which come next.
    pub fn ends_within(mut self, bytes: &[u8]) -> bool {
        match &mut self {
            BodyFraming::Length(left) => *left <= bytes.len() as u64,
            BodyFraming::Chunked(chunks) => chunks.ends_within(bytes),
        }
    }
}

fn take_up_to(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let length = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= length as u64;
    (length > 0).then(|| buffer.split_to(length).freeze())
}

impl Chunks {
    fn take(&mut self, buffer: &mut BytesMut, trailers: &mut Vec<u8>) -> Result<Option<Bytes>, Malformed> {
        let mut used = 0;
        while !matches!(self.at, Chunk::Data { .. } | Chunk::End)
            && let Some(byte) = buffer.get(used)
        {
            self.step(*byte)?;
            used += 1;
            if self.at.is_in_trailer() || (self.at == Chunk::TrailerStart && !trailers.is_empty()) {
                trailers.push(*byte);
                if trailers.len() > MAX_TRAILER_BYTES {
                    return Err(malformed("the trailers are longer than allowed"));
                }
            }
        }
        buffer.advance(used);
        let Chunk::Data { left } = &mut self.at else { return Ok(None) };
        let data = take_up_to(buffer, left);
        if *left == 0 {
            self.at = Chunk::DataCr;
        }
        Ok(data)
    }

    fn ends_within(&mut self, mut bytes: &[u8]) -> bool {
        while self.at != Chunk::End {
            if let Chunk::Data { left } = self.at {
                let Some(behind) = usize::try_from(left).ok().and_then(|left| bytes.get(left..)) else {
                    return false;
                };
                bytes = behind;
                self.at = Chunk::DataCr;
                continue;
            }
            let [byte, behind @ ..] = bytes else { return false };
            if self.step(*byte).is_err() {
                return false;
            }
            bytes = behind;
        }
        true
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.at = self.at.after(byte)?;
        match self.at {
            Chunk::Blank { .. } | Chunk::Extension { .. } if self.extensions == MAX_EXTENSION_BYTES => {
                Err(malformed("the extensions of the chunks are longer than allowed"))
            }
            Chunk::Blank { .. } | Chunk::Extension { .. } => {
                self.extensions += 1;
                Ok(())
            }
            Chunk::Data { left } => {
                self.extensions = self.extensions.saturating_sub(u32::try_from(left).unwrap_or(u32::MAX));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Chunk {
    fn is_in_trailer(self) -> bool {
        matches!(self, Chunk::Trailer | Chunk::TrailerLf)
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
            (Chunk::Size { size, .. }, b' ' | b'\t') => Chunk::Blank { size, length: 1 },
            (Chunk::Blank { size, length }, b' ' | b'\t') if length < MAX_CHUNK_EXTENSION_BYTES => {
                Chunk::Blank { size, length: length + 1 }
            }
            (Chunk::Blank { size, length }, b';') => Chunk::Extension { size, length },
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
mod tests;
