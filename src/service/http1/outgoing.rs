//! A request on its way out: its head, and its body as the client sends it. Head and whatever of the body is
//! there leave with one write; what the instance doesn't take yet is bounded by one piece of the body.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use hyper::body::Body;

use super::encode::{self, Framing};
use crate::http::body::{AttemptBody, BodyError};
use crate::service::Head;
use crate::service::stream::Stream;

/// Pieces up to this size are copied behind what goes before them; larger ones are sent from where they are.
const SMALL_PIECE_BYTES: usize = 4 * 1024;
/// No more is gathered for one write.
const GATHER_BYTES: usize = 16 * 1024;

#[derive(Default)]
pub struct Outgoing {
    /// Head, sizes of chunks, small pieces.
    lead: Vec<u8>,
    /// Goes after `lead`.
    piece: Bytes,
    /// Goes after `piece`.
    tail: &'static [u8],
    /// Of all three.
    written: usize,
    rest: Option<Rest>,
    /// Something of it was written.
    pub began: bool,
    /// TLS has taken more than it is known to have sent.
    unsent: bool,
    /// Writing failed; the instance may have answered all the same.
    broken: bool,
}

/// The part of a body that is still to be taken from the client.
struct Rest {
    body: AttemptBody,
    left: Left,
}

enum Left {
    Length(u64),
    Chunked {
        announced: Vec<HeaderName>,
    },
    /// Its end is written; the client's side is yet to say so.
    Nothing,
}

impl Outgoing {
    /// Nothing is written before it is polled. `lead` is an empty buffer to write the head to.
    pub fn new(mut lead: Vec<u8>, head: &Head, host: &[u8], body: AttemptBody) -> Self {
        let framing = Framing::of(&body);
        encode::head(&mut lead, head, host, framing);
        let rest = match framing {
            Framing::Empty => None,
            Framing::Length(length) => Some(Rest { body, left: Left::Length(length) }),
            Framing::Chunked => {
                let announced = encode::announced_trailers(&head.headers);
                Some(Rest { body, left: Left::Chunked { announced } })
            }
        };
        Outgoing { lead, rest, ..Outgoing::default() }
    }

    /// All of it is with the instance.
    pub fn is_through(&self) -> bool {
        !self.broken && self.is_over()
    }

    /// Nothing is left to do, well or not.
    pub fn is_over(&self) -> bool {
        self.rest.is_none() && self.waiting() == 0 && !self.unsent
    }

    /// The buffer, for the next request.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.lead.clear();
        mem::take(&mut self.lead)
    }

    /// Takes from the client and writes until one of them has to be waited for. Ready when nothing is left to do;
    /// an error is the client's.
    pub fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            self.gather(cx)?;
            if self.waiting() == 0 {
                if self.unsent {
                    self.poll_sent(stream, cx);
                }
                return if self.is_over() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            match ready!(self.poll_write(stream, cx)) {
                Ok(0) | Err(_) => self.give_up(),
                Ok(length) => {
                    self.unsent = stream.is_tls();
                    self.count(length);
                }
            }
        }
    }

    fn poll_sent(&mut self, stream: &mut Stream, cx: &mut Context<'_>) {
        match stream.poll_sent(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.unsent = false,
            Poll::Ready(Err(_)) => self.give_up(),
        }
    }

    fn waiting(&self) -> usize {
        self.lead.len() + self.piece.len() + self.tail.len() - self.written
    }

    fn poll_write(&self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.piece.is_empty() {
            let lead = IoSlice::new(&self.lead[self.written..]);
            return stream.poll_send(&[lead], cx);
        }
        let mut skip = self.written;
        let slices = [&self.lead[..], &self.piece[..], self.tail].map(|part| {
            let from = skip.min(part.len());
            skip -= from;
            IoSlice::new(&part[from..])
        });
        stream.poll_send(&slices, cx)
    }

    fn count(&mut self, length: usize) {
        self.began = true;
        self.written += length;
        if self.waiting() == 0 {
            self.lead.clear();
            self.piece = Bytes::new();
            self.tail = b"";
            self.written = 0;
        }
    }

    fn give_up(&mut self) {
        *self = Outgoing { broken: true, began: self.began, lead: self.take_buffer(), ..Outgoing::default() };
    }

    /// Takes of the body what is there, up to the first large piece.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        while let Some(rest) = &mut self.rest
            && self.piece.is_empty()
            && self.lead.len() < GATHER_BYTES
        {
            let Poll::Ready(polled) = Pin::new(&mut rest.body).poll_frame(cx) else { break };
            let Some(frame) = polled.transpose()? else {
                rest.left.end(&mut self.lead, None)?;
                self.rest = None;
                break;
            };
            match frame.into_data() {
                Ok(data) => self.add(data)?,
                // Its end has to be asked for as well, or the client's side would never count as finished.
                Err(frame) => rest.left.end(&mut self.lead, frame.into_trailers().ok())?,
            }
        }
        Ok(())
    }

    fn add(&mut self, data: Bytes) -> Result<(), BodyError> {
        let Some(rest) = &mut self.rest else { return Ok(()) };
        let tail: &'static [u8] = match &mut rest.left {
            Left::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(BodyError::Malformed)?;
                if *left == 0 {
                    self.rest = None;
                }
                b""
            }
            // A chunk without data would be the last.
            Left::Chunked { .. } if data.is_empty() => return Ok(()),
            Left::Chunked { .. } => {
                encode::chunk_size(&mut self.lead, data.len());
                b"\r\n"
            }
            Left::Nothing => return Err(BodyError::Malformed),
        };
        if data.len() <= SMALL_PIECE_BYTES {
            self.lead.extend_from_slice(&data);
            self.lead.extend_from_slice(tail);
        } else {
            self.piece = data;
            self.tail = tail;
        }
        Ok(())
    }
}

impl Left {
    /// The client has come to the end of its body.
    fn end(&mut self, lead: &mut Vec<u8>, trailers: Option<HeaderMap>) -> Result<(), BodyError> {
        match mem::replace(self, Left::Nothing) {
            Left::Length(0) | Left::Nothing => Ok(()),
            // The instance was promised more.
            Left::Length(_) => Err(BodyError::Broken),
            Left::Chunked { announced } => {
                encode::last_chunk(lead, &trailers.unwrap_or_default(), &announced);
                Ok(())
            }
        }
    }
}
