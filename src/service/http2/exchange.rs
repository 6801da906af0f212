//! One request and its response, as a stream of a connection. Dropped before it is through, it is cancelled.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::header::CONTENT_LENGTH;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::time::Instant;

use super::connection::Seat;
use super::head;
use super::held::{Ahead, Held};
use super::outgoing::Outgoing;
use crate::http::body::{AttemptBody, BodyError};
use crate::http::fields::Fields;
use crate::http::response::Response;
use crate::service::http1::decode::{Body, Invalid, MAX_FIELDS, Step};
use crate::service::http1::{Alarm, Failed, Framing, MAX_INTERIMS};
use crate::service::{Head, InformationalSink};

pub struct Exchange {
    seat: Seat,
    scheme: Scheme,
    /// Before it is sent.
    begun: Option<(Request<()>, AttemptBody, Framing)>,
    /// It can't be sent at all.
    impossible: bool,
    awaited: Option<ResponseFuture>,
    outgoing: Option<Outgoing>,
    received: Option<RecvStream>,
    /// The head of the response, while its body is waited for.
    held: Option<Box<Held>>,
    /// What came meanwhile.
    ahead: Ahead,
    to_head: bool,
    interims: u32,
    /// The instance may have seen something of it.
    pub has_written: bool,
    alarm: Alarm,
}

impl Exchange {
    pub fn new(seat: Seat, scheme: Scheme) -> Self {
        Exchange {
            seat,
            scheme,
            begun: None,
            impossible: false,
            awaited: None,
            outgoing: None,
            received: None,
            held: None,
            ahead: Ahead::default(),
            to_head: false,
            interims: 0,
            has_written: false,
            alarm: Alarm::default(),
        }
    }

    /// Begins the request. Nothing is sent before the response is polled for.
    pub fn begin(&mut self, head: &Head, host: &[u8], body: AttemptBody) {
        let framing = Framing::of(&body);
        self.to_head = head.method == Method::HEAD;
        match head::request(head, self.scheme.clone(), host, framing) {
            Some(request) => self.begun = Some((request, body, framing)),
            None => self.impossible = true,
        }
    }

    /// Sends the request, as far as it goes, and takes the head of the response. Interim responses go to `sink`. Where its
    /// body is not there as well, the head is held back for one of as many bytes as `hold_back` says.
    pub fn poll_response(
        &mut self,
        sink: Option<&dyn InformationalSink>,
        hold_back: impl Fn(&Response<()>) -> u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Response<()>, Body), Failed>> {
        if self.impossible {
            return Poll::Ready(Err(Failed::Client(BodyError::Malformed)));
        }
        if self.begun.is_some() {
            ready!(self.poll_begin(cx))?;
        }
        self.poll_request(cx).map_err(Failed::Client)?;
        if let Some(held) = &self.held {
            ready!(self.poll_ahead(held.most, cx))?;
            let passed_on = self.take_held().expect("it was there, and reading takes nothing of it");
            return Poll::Ready(Ok(passed_on));
        }
        let Some(awaited) = &mut self.awaited else {
            return Poll::Ready(Err(Failed::Invalid(Invalid::Head)));
        };
        while let Poll::Ready(Some(interim)) = awaited.poll_informational(cx) {
            let (interim, _) = interim.map_err(|error| failed(&self.seat, error))?.into_parts();
            self.seat.state().hear();
            self.interims += 1;
            if self.interims > MAX_INTERIMS {
                return Poll::Ready(Err(Failed::Invalid(Invalid::Interims)));
            }
            if let Some(sink) = sink {
                sink.interim(interim.status, &Fields::from(interim.headers));
            }
        }
        let response = ready!(Pin::new(awaited).poll(cx)).map_err(|error| failed(&self.seat, error))?;
        self.seat.state().hear();
        self.awaited = None;
        let (head, received) = response.into_parts();
        // RFC 9113 §8.6: there is no such thing here.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Poll::Ready(Err(Failed::Invalid(Invalid::Switch)));
        }
        if let Err(invalid) = check(&head.headers) {
            return Poll::Ready(Err(Failed::Invalid(invalid)));
        }
        let has_none =
            self.to_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let is_empty = has_none || received.is_end_stream();
        self.received = Some(received);
        let response = Response { fields: head.headers.into(), ..Response::new(head.status, ()) };
        if is_empty {
            return Poll::Ready(Ok((response, Body::Length(0))));
        }
        let most = hold_back(&response);
        if length.map_or(most == 0, |length| length > most) {
            return Poll::Ready(Ok((response, Body::Frames { left: length, ended: false })));
        }
        let error = match self.poll_ahead(most, cx) {
            Poll::Ready(Ok(())) => {
                return Poll::Ready(Ok((response, Body::Frames { left: length, ended: false })));
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        // After an error, too: so it shows that an answer had begun.
        self.held = Some(Box::new(Held { response, length, most, since: Instant::now() }));
        error
    }

    /// Waits for the body. Mostly it has come with the head.
    fn poll_ahead(&mut self, most: u64, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let Some(received) = &mut self.received else { return Poll::Ready(Ok(())) };
        let (state, before) = (self.seat.state(), self.ahead.length());
        let polled = self.ahead.poll_fill(received, most, cx);
        if self.ahead.length() > before {
            state.hear();
        }
        polled.map_err(|error| match failed(&self.seat, error) {
            // It says that it has not looked at what it has begun to answer.
            Failed::Unprocessed { cause, .. } => Failed::Reset(cause),
            failed => failed,
        })
    }

    /// The head that is held back, if one is.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_deref()
    }

    /// Likewise, to be passed on whatever becomes of its body.
    pub fn take_held(&mut self) -> Option<(Response<()>, Body)> {
        self.held.take().map(|held| held.into_parts())
    }

    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let refused = |seat: &Seat, error: h2::Error| {
            // Nobody else need try.
            seat.state().close();
            Failed::Unprocessed { closing: true, cause: cause(seat, error) }
        };
        ready!(self.seat.sender.poll_ready(cx)).map_err(|error| refused(&self.seat, error))?;
        let Some((request, body, framing)) = self.begun.take() else { return Poll::Ready(Ok(())) };
        let is_all = framing == Framing::Empty;
        let sent = self.seat.sender.send_request(request, is_all);
        let (awaited, stream) = sent.map_err(|error| refused(&self.seat, error))?;
        self.has_written = true;
        self.awaited = Some(awaited);
        if !is_all {
            let length = if let Framing::Length(length) = framing { Some(length) } else { None };
            self.outgoing = Some(Outgoing::new(stream, body, length));
        }
        Poll::Ready(Ok(()))
    }

    /// Sends on what is left of the request. An error is the client's.
    pub fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        self.outgoing.as_mut().map_or(Ok(()), |outgoing| outgoing.poll(cx))
    }

    /// The next piece of the response's body. The instance may send as much more as is taken.
    pub fn poll_step(&mut self, body: &mut Body, cx: &mut Context<'_>) -> Poll<Result<Step, Failed>> {
        let (Body::Frames { left, ended }, Some(received)) = (body, &mut self.received) else {
            return Poll::Ready(Ok(Step::End));
        };
        if let Some(step) = self.ahead.next() {
            if let Step::Data(data) = &step {
                *left = left.map(|left| left.saturating_sub(data.len() as u64));
            }
            *ended = self.ahead.is_end();
            return Poll::Ready(Ok(step));
        }
        loop {
            match ready!(received.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.seat.state().hear();
                    // It fails only where more is given back than was taken.
                    let _ = received.flow_control().release_capacity(data.len());
                    *left = left.map(|left| left.saturating_sub(data.len() as u64));
                    *ended = received.is_end_stream();
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Step::Data(data)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(failed(&self.seat, error))),
                None => break,
            }
        }
        let trailers = ready!(received.poll_trailers(cx)).map_err(|error| failed(&self.seat, error))?;
        *ended = true;
        Poll::Ready(Ok(trailers.map_or(Step::End, Step::Trailers)))
    }

    /// Whether `due` has passed. When it has not, the task is woken then at the latest.
    pub fn is_over(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        self.alarm.is_over(due, cx)
    }
}

/// What an error of the stream, or of the connection, says of the request.
fn failed(seat: &Seat, error: h2::Error) -> Failed {
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        // RFC 9113 §8.7: it was not looked at.
        let closing = error.is_go_away();
        if closing {
            seat.state().close();
        }
        return Failed::Unprocessed { closing, cause: cause(seat, error) };
    }
    if error.is_io() {
        seat.state().close();
    } else if error.is_library() {
        return Failed::Invalid(Invalid::Frames);
    }
    Failed::Reset(cause(seat, error))
}

fn cause(seat: &Seat, error: h2::Error) -> io::Error {
    seat.state().broken().unwrap_or_else(|| match error.is_io() {
        true => error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    })
}

/// As over HTTP/1.1: so many fields, and one length that is one plain number.
fn check(fields: &HeaderMap) -> Result<(), Invalid> {
    if fields.len() > MAX_FIELDS {
        return Err(Invalid::TooLarge);
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let is_plain = lengths.next().is_none_or(|length| {
        let length = length.as_bytes();
        !length.is_empty() && length.iter().all(u8::is_ascii_digit)
    });
    if is_plain && lengths.next().is_none() { Ok(()) } else { Err(Invalid::Length) }
}
