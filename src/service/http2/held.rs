//! The body of a response as far as it was read before anybody asked for it: while nothing of it was passed on, a stream that is reset
//! is a failed attempt like any other.
//!
//! Invariant: whoever gives up waiting for the rest loses nothing of what has come.

use std::mem;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use tokio::time::Instant;

use crate::http::response::Response;
use crate::service::http1::decode::{Body, Step};

/// A head that is held back until its body is there.
pub struct Held {
    pub response: Response<()>,
    /// The length of its body, where that was told.
    pub length: Option<u64>,
    /// How long a body may be that is waited for, in bytes.
    pub most: u64,
    pub since: Instant,
}

impl Held {
    pub fn into_parts(self) -> (Response<()>, Body) {
        (self.response, Body::Frames { left: self.length, ended: false })
    }
}

/// What was read of the body.
#[derive(Default)]
pub struct Ahead {
    /// Mostly all of it.
    first: Bytes,
    /// With `first`, where there is more than that.
    joined: BytesMut,
    trailers: Option<Box<HeaderMap>>,
    /// There is nothing more to read.
    ended: bool,
}

impl Ahead {
    /// Reads on until all of it is there, or more than `most`. What is read makes room for as much more.
    pub fn poll_fill(
        &mut self,
        received: &mut RecvStream,
        most: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), h2::Error>> {
        while self.length() as u64 <= most {
            match ready!(received.poll_data(cx)) {
                Some(data) => {
                    let data = data?;
                    // It fails only where more is given back than was taken.
                    let _ = received.flow_control().release_capacity(data.len());
                    self.push(data);
                }
                None => {
                    let trailers = ready!(received.poll_trailers(cx))?;
                    (self.trailers, self.ended) = (trailers.map(Box::new), true);
                    break;
                }
            }
            if received.is_end_stream() {
                self.ended = true;
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The next piece of what is here; nothing when that is all and more is to come.
    pub fn next(&mut self) -> Option<Step> {
        if self.length() > 0 {
            let (first, joined) = (mem::take(&mut self.first), mem::take(&mut self.joined));
            return Some(Step::Data(if joined.is_empty() { first } else { joined.freeze() }));
        }
        match self.trailers.take() {
            Some(trailers) => Some(Step::Trailers(*trailers)),
            None => self.ended.then_some(Step::End),
        }
    }

    /// Whether nothing is left of the body.
    pub fn is_end(&self) -> bool {
        self.ended && self.length() == 0 && self.trailers.is_none()
    }

    pub fn length(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.length() == 0 {
            self.first = data;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(mut ahead: Ahead) -> Vec<Step> {
        let mut steps = Vec::new();
        while !ahead.is_end() {
            match ahead.next() {
                Some(step) => steps.push(step),
                None => break,
            }
        }
        steps
    }

    fn of(pieces: &[&'static str]) -> Ahead {
        let mut ahead = Ahead::default();
        pieces.iter().for_each(|piece| ahead.push(Bytes::from_static(piece.as_bytes())));
        ahead
    }

    fn data(text: &'static str) -> Step {
        Step::Data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn pieces_are_put_together() {
        assert_eq!(steps(of(&[])), []);
        assert_eq!(steps(of(&["", "ab", ""])), [data("ab")]);
        assert_eq!(steps(of(&["ab", "c", "def"])), [data("abcdef")]);
    }

    #[test]
    fn the_end_comes_behind_all_of_it() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("1"))]);
        let ahead = Ahead { trailers: Some(trailers.clone().into()), ended: true, ..of(&["ab", "c"]) };
        assert!(!ahead.is_end());
        assert_eq!(steps(ahead), [data("abc"), Step::Trailers(trailers)]);
        assert_eq!(steps(Ahead { ended: true, ..of(&["ab"]) }), [data("ab")]);
        let mut empty = Ahead { ended: true, ..of(&[""]) };
        assert!(empty.is_end());
        assert_eq!(empty.next(), Some(Step::End));
    }
}
