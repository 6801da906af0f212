//! What was taken of a request's body, for as long as it may have to be sent again.
//!
//! Bounded: a body that turns out longer is let go and streamed, and can't be sent again from then on.

use bytes::Bytes;
use http::HeaderMap;

#[derive(Default)]
pub struct Replay {
    /// In bytes; 0 while nothing is to be kept.
    limit: u64,
    taken: Vec<u8>,
    trailers: Option<Box<HeaderMap>>,
    is_lost: bool,
}

/// A copy of it, for one attempt.
#[derive(Default)]
pub struct Again {
    pub data: Bytes,
    pub trailers: Option<Box<HeaderMap>>,
}

impl Replay {
    /// Keeps what is taken from now on, up to `limit` bytes. Only before anything is taken.
    pub fn keep(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Nothing of it will be asked for any more.
    pub fn end(&mut self) {
        *self = Replay { is_lost: true, ..Replay::default() };
    }

    pub fn add(&mut self, data: &Bytes) {
        if !self.is_whole() {
            return;
        }
        if (self.taken.len() + data.len()) as u64 > self.limit {
            return self.end();
        }
        self.taken.extend_from_slice(data);
    }

    pub fn add_trailers(&mut self, trailers: &HeaderMap) {
        if self.is_whole() {
            self.trailers = Some(Box::new(trailers.clone()));
        }
    }

    /// Whether all that was taken is here.
    pub fn is_whole(&self) -> bool {
        self.limit > 0 && !self.is_lost
    }

    pub fn again(&self) -> Again {
        Again { data: Bytes::copy_from_slice(&self.taken), trailers: self.trailers.clone() }
    }
}
