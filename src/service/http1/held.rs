//! The head of a response that is held back until its body is there: while nothing of it was passed on, a body that breaks off is a
//! failed attempt like any other.
//!
//! Invariant: no more is read of a body than its bound and one read, and whoever gives up waiting loses nothing of what has come.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::time::Instant;

use super::chunked::Chunks;
use super::decode::{Body, Invalid, Step};
use crate::http::response::Response;

pub struct Held {
    response: Response<()>,
    body: Body,
    /// What the chunks so far have brought.
    ahead: BytesMut,
    trailers: Option<HeaderMap>,
    /// In bytes.
    most: u64,
    since: Instant,
}

/// What was read of a chunked body before anybody asked for it.
pub struct Ahead {
    pub data: Bytes,
    pub trailers: Option<HeaderMap>,
    pub rest: Chunks,
}

impl Held {
    /// Holds it back if there may be any use in it: `most` is how long a body may be that is waited for.
    pub fn new(response: Response<()>, body: Body, most: u64) -> Result<Box<Held>, (Response<()>, Body)> {
        let may_come = match &body {
            Body::Length(left) => *left <= most,
            Body::Chunked(_) => most > 0,
            Body::Ahead(_) | Body::UntilClose | Body::Frames { .. } => false,
        };
        if !may_come {
            return Err((response, body));
        }
        let (ahead, since) = (BytesMut::new(), Instant::now());
        Ok(Box::new(Held { response, body, ahead, trailers: None, most, since }))
    }

    /// Whether there is nothing more to wait for: all of the body is there, or it is longer than was thought.
    pub fn is_ready(&mut self, unread: &mut BytesMut) -> Result<bool, Invalid> {
        let chunks = match &mut self.body {
            Body::Length(left) => return Ok(unread.len() as u64 >= *left),
            Body::Chunked(chunks) => chunks,
            Body::Ahead(_) | Body::UntilClose | Body::Frames { .. } => return Ok(true),
        };
        loop {
            match chunks.next(unread)? {
                Step::More => return Ok(self.ahead.len() as u64 > self.most),
                Step::Data(data) => self.ahead.extend_from_slice(&data),
                Step::Trailers(trailers) => self.trailers = Some(trailers),
                Step::End => {}
            }
            if chunks.is_end() {
                return Ok(true);
            }
        }
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    pub fn tells_length(&self) -> bool {
        self.body.length().is_some()
    }

    /// Bytes that are known to be still to come.
    pub fn expected(&self, unread: usize) -> u64 {
        self.body.length().map_or(0, |length| length.saturating_sub(unread as u64))
    }

    pub fn into_parts(self) -> (Response<()>, Body) {
        let body = match self.body {
            Body::Chunked(rest) if !self.ahead.is_empty() || self.trailers.is_some() => {
                Body::Ahead(Box::new(Ahead { data: self.ahead.freeze(), trailers: self.trailers, rest }))
            }
            body => body,
        };
        (self.response, body)
    }
}

impl Ahead {
    /// The next piece of what is here; nothing when that is all.
    pub fn next(&mut self) -> Option<Step> {
        if !self.data.is_empty() {
            return Some(Step::Data(std::mem::take(&mut self.data)));
        }
        self.trailers.take().map(Step::Trailers)
    }

    pub fn is_used_up(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn held(body: Body, most: u64) -> Option<Box<Held>> {
        Held::new(Response::new(StatusCode::OK, ()), body, most).ok()
    }

    fn chunked(pieces: &[&str]) -> Result<Vec<Step>, Invalid> {
        let mut held = held(Body::Chunked(Chunks::default()), 10).expect("it may come to no more");
        let mut unread = BytesMut::new();
        for piece in pieces {
            unread.extend_from_slice(piece.as_bytes());
            if held.is_ready(&mut unread)? {
                break;
            }
        }
        let (_, mut body) = held.into_parts();
        let mut steps = Vec::new();
        loop {
            match body.next(&mut unread)? {
                Step::More => break,
                step => steps.push(step),
            }
            if body.is_end() {
                break;
            }
        }
        Ok(steps)
    }

    fn data(text: &'static str) -> Step {
        Step::Data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_body_is_waited_for_when_it_is_short_enough() {
        assert!(held(Body::Length(10), 10).is_some());
        assert!(held(Body::Length(11), 10).is_none());
        assert!(held(Body::UntilClose, 10).is_none(), "its end can't be told from a break");
        assert!(held(Body::Chunked(Chunks::default()), 0).is_none());
    }

    #[test]
    fn a_told_length_stays_where_it_was_read() {
        let mut held = held(Body::Length(4), 10).expect("it is short");
        let mut unread = BytesMut::from("ab");
        assert_eq!(held.is_ready(&mut unread), Ok(false));
        assert_eq!(held.expected(unread.len()), 2);
        unread.extend_from_slice(b"cdef");
        assert_eq!(held.is_ready(&mut unread), Ok(true));
        let (_, mut body) = held.into_parts();
        assert_eq!(body.next(&mut unread), Ok(data("abcd")));
        assert!(body.is_end() && unread == "ef");
    }

    #[test]
    fn chunks_are_put_together_while_they_are_waited_for() {
        assert_eq!(chunked(&["2\r\nab\r", "\n1\r\nc\r\n0\r\n", "\r\n"]), Ok(vec![data("abc")]));
        let with_trailers = chunked(&["2\r\nab\r\n0\r\nx: 1\r\n", "\r\n"]).expect("they are well-formed");
        assert!(matches!(&with_trailers[..], [Step::Data(ab), Step::Trailers(_)] if ab == "ab"));
        assert_eq!(chunked(&["0\r\n\r", "\n"]), Ok(vec![Step::End]));
    }

    #[test]
    fn nothing_is_lost_when_it_is_passed_on_before() {
        assert_eq!(chunked(&["2\r\nab\r\n4\r\nc"]), Ok(vec![data("abc")]));
        let long = chunked(&["8\r\nabcdefgh\r\n3\r\nijk\r\n", "1\r\nl\r\n0\r\n\r\n"]);
        assert_eq!(
            long,
            Ok(vec![data("abcdefghijk")]),
            "it is longer than the bound, and the rest is yet to be read"
        );
        assert_eq!(chunked(&[]), Ok(vec![]));
    }

    #[test]
    fn malformed_chunks_show_while_they_are_waited_for() {
        assert_eq!(chunked(&["2\r\nab\r\n", "what?"]), Err(Invalid::Chunks));
    }
}
