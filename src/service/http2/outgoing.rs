//! The body of a request on its way out: taken from the client as the instance makes room for it (RFC 9113 §5.2).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use hyper::body::Body;

use crate::http::body::{AttemptBody, BodyError};

pub struct Outgoing {
    stream: SendStream<Bytes>,
    body: AttemptBody,
    /// Taken from the client, and not sent yet.
    piece: Bytes,
    /// What was promised and is still to come, where a length was.
    left: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Flowing,
    /// Its end is sent; the client's side is yet to say so.
    Sent,
    /// Nothing is left to do, well or not.
    Over,
}

impl Outgoing {
    pub fn new(stream: SendStream<Bytes>, body: AttemptBody, length: Option<u64>) -> Self {
        Outgoing { stream, body, piece: Bytes::new(), left: length, state: State::Flowing }
    }

    /// Takes from the client and sends until one of them has to be waited for. An error is the client's.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        loop {
            if self.state == State::Over || !self.piece.is_empty() && !self.poll_send(cx) {
                return Ok(());
            }
            let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) else { return Ok(()) };
            let frame = match polled {
                None => {
                    self.end(None)?;
                    self.state = State::Over;
                    return Ok(());
                }
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(self.fail(error)),
            };
            match frame.into_data() {
                Ok(data) => self.take(data)?,
                // The end has to be asked for as well, or the client's side would never count as finished.
                Err(frame) => self.end(frame.into_trailers().ok())?,
            }
        }
    }

    fn take(&mut self, data: Bytes) -> Result<(), BodyError> {
        if let Some(left) = &mut self.left {
            match left.checked_sub(data.len() as u64) {
                Some(rest) => *left = rest,
                None => return Err(self.fail(BodyError::Malformed)),
            }
        }
        if self.state == State::Flowing {
            self.piece = data;
        }
        Ok(())
    }

    /// Whether all of the piece is gone.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.piece.is_empty() {
            self.stream.reserve_capacity(self.piece.len());
            if self.stream.capacity() == 0 {
                match self.stream.poll_capacity(cx) {
                    Poll::Pending => return false,
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(None | Some(Err(_))) => return self.give_up(),
                }
            }
            let room = self.stream.capacity().min(self.piece.len());
            if self.stream.send_data(self.piece.split_to(room), false).is_err() {
                return self.give_up();
            }
        }
        true
    }

    /// The instance takes no more; it may have answered all the same.
    fn give_up(&mut self) -> bool {
        self.piece = Bytes::new();
        self.state = State::Over;
        false
    }

    fn end(&mut self, trailers: Option<http::HeaderMap>) -> Result<(), BodyError> {
        if self.state != State::Flowing {
            return Ok(());
        }
        // The instance was promised more.
        if self.left.is_some_and(|left| left > 0) {
            return Err(self.fail(BodyError::Broken));
        }
        let sent = match trailers {
            Some(trailers) if !trailers.is_empty() => self.stream.send_trailers(trailers),
            _ => self.stream.send_data(Bytes::new(), true),
        };
        self.state = if sent.is_ok() { State::Sent } else { State::Over };
        Ok(())
    }

    /// What the instance has of it must not look whole.
    fn fail(&mut self, error: BodyError) -> BodyError {
        self.stream.send_reset(Reason::CANCEL);
        self.give_up();
        error
    }
}
