//! One request of an HTTP/2 connection and its response, as far as it has come. It is polled by the connection's task;
//! dropping it cancels it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Reset, RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use hyper::body::Body;
use tokio::time::{Instant, Sleep};

use super::head;
use crate::exchange::ResponseBody;
use crate::http::fields::Fields;
use crate::http::interim;
use crate::http::pace::{Demand, Pace};
use crate::http::response::Response;
use crate::listener::Connection;
use crate::listener::answering::Answering;
use crate::service::InformationalSink;

/// Interim responses that wait for one request at most.
const INTERIM_QUEUE: usize = 16;

/// After so many frames of a body without a pause, others have their turn.
const FRAMES_A_TURN: usize = 32;

/// What a frame of DATA holds for any client (RFC 9113 §4.2).
const FRAME_BYTES: u32 = 16 * 1024;

pub struct Stream {
    state: State,
    has_begun: bool,
    is_head: bool,
    patience: Patience,
}

/// How long a client is waited for that opens no window.
#[derive(Clone, Copy)]
struct Patience {
    /// At once: then it isn't reading any more.
    stall: Duration,
    /// Over all the waiting.
    demand: Demand,
}

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Answered,
    /// By its client, before the answer was through.
    TakenBack,
}

enum State {
    Answering { answering: Answering, respond: SendResponse<Bytes>, interims: Rc<Interims> },
    Sending(Sending),
    Over,
}

struct Sending {
    out: SendStream<Bytes>,
    body: ResponseBody,
    /// What was taken of the body and the client's window had no room for.
    data: Bytes,
    /// It is the last of the body.
    is_last: bool,
    /// Since when `data` waits, and for how long it may.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    pace: Pace,
}

impl Stream {
    pub fn begin(
        connection: &Rc<Connection>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Self {
        let interims = Rc::<Interims>::default();
        let is_head = request.method() == Method::HEAD;
        let answering = Answering::begin(connection.clone(), head::arrived(request, &interims));
        let limits = &connection.settings.limits;
        let demand = Demand { least: limits.min_download_rate, grace: limits.idle_timeout };
        let patience = Patience { stall: limits.idle_timeout, demand };
        Stream {
            state: State::Answering { answering, respond, interims },
            has_begun: false,
            is_head,
            patience,
        }
    }

    /// Its number, while it is open.
    pub fn id(&self) -> Option<u32> {
        match &self.state {
            State::Answering { respond, .. } => Some(respond.stream_id().as_u32()),
            State::Sending(sending) => Some(sending.out.stream_id().as_u32()),
            State::Over => None,
        }
    }

    pub fn reset(&mut self, code: Reset) {
        match &mut self.state {
            State::Answering { respond, .. } => respond.send_reset(code),
            State::Sending(sending) => sending.out.send_reset(code),
            State::Over => {}
        }
    }

    /// Ready when there is nothing left to do for it. The frames of DATA that it sends are added to `sent`.
    pub fn poll(&mut self, sent: &mut u32, cx: &mut Context<'_>) -> Poll<Left> {
        if let State::Answering { answering, respond, interims } = &mut self.state {
            let is_first = !std::mem::replace(&mut self.has_begun, true);
            if is_first && respond.poll_reset(cx).is_ready() {
                return Poll::Ready(Left::TakenBack);
            }
            let answered = answering.poll(cx);
            // After that: they may have come together with the answer, and go before it.
            interims.send(respond);
            match answered {
                Poll::Ready(response) => self.respond(response),
                // Looked at just now.
                Poll::Pending if is_first => return Poll::Pending,
                // The client took it back: dropping the answer cancels what it set off.
                Poll::Pending => return is_reset(respond.poll_reset(cx)),
            }
        }
        match &mut self.state {
            State::Sending(sending) => sending.poll(self.patience, sent, cx),
            _ => Poll::Ready(Left::Answered),
        }
    }

    fn respond(&mut self, response: Response<ResponseBody>) {
        let State::Answering { answering, mut respond, .. } = std::mem::replace(&mut self.state, State::Over)
        else {
            return;
        };
        answering.give_back();
        let head = head::of(&response, self.is_head);
        let body = response.body;
        let ends = self.is_head || body.is_end_stream();
        let sent = respond.send_response(head, ends);
        if let Ok(out) = sent
            && !ends
        {
            let sending = Sending {
                out,
                body,
                data: Bytes::new(),
                is_last: false,
                waiting: None,
                pace: Pace::default(),
            };
            self.state = State::Sending(sending);
        }
    }
}

fn is_reset(polled: Poll<Result<Reset, h2::Error>>) -> Poll<Left> {
    polled.map(|_| Left::TakenBack)
}

impl Sending {
    fn poll(&mut self, patience: Patience, sent: &mut u32, cx: &mut Context<'_>) -> Poll<Left> {
        for _ in 0..FRAMES_A_TURN {
            if !self.data.is_empty() {
                match self.poll_send_data(patience, sent, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(())) => {
                        self.out.send_reset(Reset::CANCEL);
                        return Poll::Ready(Left::Answered);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.is_last {
                return Poll::Ready(Left::Answered);
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return is_reset(self.out.poll_reset(cx)),
                Poll::Ready(None) => {
                    let _ = self.out.send_data(Bytes::new(), true);
                    return Poll::Ready(Left::Answered);
                }
                Poll::Ready(Some(Err(_))) => {
                    self.out.send_reset(Reset::INTERNAL_ERROR);
                    return Poll::Ready(Left::Answered);
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.is_last = self.body.is_end_stream();
                        if self.is_last && data.is_empty() {
                            let _ = self.out.send_data(data, true);
                            return Poll::Ready(Left::Answered);
                        }
                        self.data = data;
                    }
                    Err(frame) => {
                        let _ = self.out.send_trailers(frame.into_trailers().unwrap_or_default());
                        return Poll::Ready(Left::Answered);
                    }
                },
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends as the client's window allows: the next frame of the body is taken only after that.
    fn poll_send_data(
        &mut self,
        patience: Patience,
        sent: &mut u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ()>> {
        loop {
            self.out.reserve_capacity(self.data.len());
            let mut room = self.out.capacity();
            if room == 0 {
                self.body.send_on(cx);
                room = match self.poll_room(cx) {
                    Poll::Ready(room) => room?,
                    Poll::Pending if self.waits_too_long(patience, cx) => return Poll::Ready(Err(())),
                    Poll::Pending => return Poll::Pending,
                };
            }
            if let Some((since, _)) = self.waiting.take() {
                self.pace.waited(since.elapsed());
            }
            let piece = self.data.split_to(room.min(self.data.len()));
            self.pace.moved(piece.len() as u64);
            *sent = sent.saturating_add(1 + piece.len() as u32 / FRAME_BYTES);
            let is_all = self.data.is_empty();
            self.out.send_data(piece, self.is_last && is_all).map_err(|_| ())?;
            if is_all {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ()>> {
        if self.out.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(()));
        }
        loop {
            match self.out.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(room))) => return Poll::Ready(Ok(room)),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// It moves nothing, or it has moved too little over all the time for which it was waited for.
    fn waits_too_long(&mut self, patience: Patience, cx: &mut Context<'_>) -> bool {
        let (_, timer) = self.waiting.get_or_insert_with(|| {
            let wait = patience.stall.min(self.pace.left(patience.demand));
            (Instant::now(), Box::pin(tokio::time::sleep(wait)))
        });
        timer.as_mut().poll(cx).is_ready()
    }
}

/// Interim responses on their way to the client; what the queue can't hold is left out. They come while the request is
/// being answered, and its stream looks after that.
#[derive(Default)]
pub struct Interims {
    queue: RefCell<Vec<(StatusCode, Fields)>>,
}

impl Interims {
    /// The body is wanted now.
    pub fn go_on(&self) {
        self.push(StatusCode::CONTINUE, Fields::new);
    }

    fn push(&self, status: StatusCode, headers: impl FnOnce() -> Fields) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() < INTERIM_QUEUE {
            queue.push((status, headers()));
        }
    }

    fn send(&self, respond: &mut SendResponse<Bytes>) {
        for (status, headers) in self.queue.borrow_mut().drain(..) {
            let mut response = http::Response::new(());
            *response.status_mut() = status;
            *response.headers_mut() = headers.to_map();
            let _ = respond.send_informational(response);
        }
    }
}

impl InformationalSink for Interims {
    fn interim(&self, status: StatusCode, headers: &Fields) {
        if interim::may_pass(status) {
            self.push(status, || interim::end_to_end(headers));
        }
    }
}
