//! The bodies that pass through: counted, bounded, and with a limit on silence. Back-pressure is the reader's poll; nothing is
//! buffered but what [`RequestBody::keep_for_replay`] asks for.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::alike;
use super::fields::Fields;
use super::pace::{Demand, Pace};
use super::replay::{Again, Replay};

/// Why a request body could not be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than allowed")]
    TooLarge,
    #[error("the client stopped sending")]
    Stalled,
    #[error("the client broke off")]
    Broken,
    #[error("the request body is malformed")]
    Malformed,
}

/// Mostly such a body has come together with its head.
const SHORT_BODY_BYTES: u64 = 16 * 1024;

/// A client's request body as its connection hands it over.
pub enum ClientBody {
    Empty,
    Http1(Http1Body),
    Http2(Http2Body),
}

impl ClientBody {
    fn size_hint(&self) -> SizeHint {
        match self {
            ClientBody::Empty => SizeHint::with_exact(0),
            ClientBody::Http1(body) => {
                body.source.left(body.request).map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            ClientBody::Http2(_) => SizeHint::default(),
        }
    }

    fn is_end(&self) -> bool {
        match self {
            ClientBody::Empty => true,
            ClientBody::Http1(body) => body.source.is_end(body.request),
            ClientBody::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            ClientBody::Empty => Poll::Ready(None),
            ClientBody::Http1(body) => body.source.poll_frame(body.request, cx),
            ClientBody::Http2(body) => body.poll_frame(cx),
        }
    }
}

/// Whether a response's body was malformed, not cut short: hyper tells by the kind of an I/O error inside its own.
pub fn is_malformed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| matches!(cause.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput))
}

/// An HTTP/1.1 connection, as far as it is the body of a request that it carries.
pub trait Http1Source {
    /// The next of the body of the request with this number, which must be the present one.
    fn poll_frame(&self, request: u64, cx: &mut Context<'_>)
    -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;

    /// Bytes that are still to come, where that is known.
    fn left(&self, request: u64) -> Option<u64>;

    fn is_end(&self, request: u64) -> bool;
}

pub struct Http1Body {
    source: Rc<dyn Http1Source>,
    request: u64,
}

impl Http1Body {
    pub fn new(source: Rc<dyn Http1Source>, request: u64) -> Self {
        Http1Body { source, request }
    }
}

pub struct Http2Body {
    pub stream: h2::RecvStream,
    /// Called when the body is first asked for: the client waits for a 100 (RFC 9110 §10.1.1).
    pub on_wanted: Option<Box<dyn FnOnce()>>,
}

impl Http2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(tell) = self.on_wanted.take() {
            tell();
        }
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // The window is given back once the bytes are on their way: that is the back-pressure.
                let _ = self.stream.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(_)) => Poll::Ready(Some(Err(BodyError::Broken))),
            None => match ready!(self.stream.poll_trailers(cx)) {
                Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) => Poll::Ready(None),
                Err(_) => Poll::Ready(Some(Err(BodyError::Broken))),
            },
        }
    }
}

/// A request body that outlives a failed attempt as long as no byte of it was taken, or all that were are kept.
pub struct RequestBody {
    source: RefCell<Option<ClientBody>>,
    hint: SizeHint,
    limit: u64,
    idle: Cell<Duration>,
    /// How fast the client has to send, until it is answered.
    demand: Cell<Demand>,
    pace: Cell<Pace>,
    /// Since when the client is waited for.
    silent_since: Cell<Option<Instant>>,
    received: Cell<u64>,
    failure: Cell<Option<BodyError>>,
    ended: Cell<bool>,
    /// When the last bytes were taken from the client.
    taken_at: Cell<Option<Instant>>,
    /// Whether an attempt has asked the client for more and not got it yet.
    awaited: Cell<bool>,
    /// Fields that the client must not say anything in, in a trailer either.
    spoken_for: RefCell<Vec<HeaderName>>,
    replay: RefCell<Replay>,
}

thread_local! {
    static NONE: Rc<RequestBody> = RequestBody::of(ClientBody::Empty, None, None);
}

impl RequestBody {
    /// `limit` in bytes; `declared` is the length that the head announced, if any.
    pub fn new(source: ClientBody, declared: Option<u64>, limit: Option<u64>) -> Rc<Self> {
        // Nothing is ever remembered of a body that isn't there: one does for all.
        if source.is_end() { NONE.with(Rc::clone) } else { Self::of(source, declared, limit) }
    }

    fn of(source: ClientBody, declared: Option<u64>, limit: Option<u64>) -> Rc<Self> {
        let ended = source.is_end();
        let hint = match declared {
            _ if ended => SizeHint::with_exact(0),
            Some(length) => SizeHint::with_exact(length),
            None => source.size_hint(),
        };
        Rc::new(RequestBody {
            source: RefCell::new(Some(source)),
            hint,
            limit: limit.unwrap_or(u64::MAX),
            idle: Cell::new(Duration::from_secs(60)),
            demand: Cell::new(Demand::NONE),
            pace: Cell::default(),
            silent_since: Cell::default(),
            received: Cell::new(0),
            failure: Cell::new(None),
            ended: Cell::new(ended),
            taken_at: Cell::new(None),
            awaited: Cell::new(false),
            spoken_for: RefCell::default(),
            replay: RefCell::default(),
        })
    }

    /// Keeps fields with these names, or what a service may take for them, out of the trailer section.
    pub fn keep_out_of_trailers<'n>(&self, names: impl Iterator<Item = &'n HeaderName>) {
        if !self.is_empty() {
            self.spoken_for.borrow_mut().extend(names.cloned());
        }
    }

    /// The client has to send this fast, over the time for which it is waited for.
    pub fn demand(&self, demand: Demand) {
        if !self.is_empty() {
            self.demand.set(demand);
        }
    }

    /// It will not be sent again; and with its answer, the two sides may be talking.
    pub fn answered(&self) {
        if !self.is_empty() {
            self.demand.set(Demand::NONE);
            self.end_replay();
        }
    }

    /// How long the client may be silent yet.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let since = self.silent_since.get().unwrap_or(now);
        self.silent_since.set(Some(since));
        let in_all = self.idle.get().min(self.pace.get().left(self.demand.get()));
        in_all.saturating_sub(now - since)
    }

    /// Bytes taken from the client so far.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// What went wrong on the client's side, if anything did.
    pub fn failure(&self) -> Option<BodyError> {
        self.failure.get()
    }

    /// Whether another attempt can still send it from the beginning.
    pub fn is_replayable(&self) -> bool {
        let is_untouched = || self.received.get() == 0 && self.source.borrow().is_some();
        self.is_empty() || self.failure.get().is_none() && (is_untouched() || self.replay.borrow().is_whole())
    }

    /// Keeps what is taken of it, so that another attempt can send it again: up to `limit` bytes.
    pub fn keep_for_replay(&self, limit: u64) {
        // What is told to be longer is not worth the beginning.
        if !self.is_empty() && self.hint.lower() <= limit {
            self.replay.borrow_mut().keep(limit);
        }
    }

    /// It will not be sent again.
    pub fn end_replay(&self) {
        if !self.is_empty() {
            self.replay.borrow_mut().end();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.hint.exact() == Some(0)
    }

    /// Whether all of it was taken from the client.
    pub fn is_finished(&self) -> bool {
        self.is_empty() || self.ended.get() || self.hint.exact() == Some(self.received.get())
    }

    /// Whether all of it is here and kept, so that several attempts can send it at the same time.
    pub fn is_at_hand(&self) -> bool {
        self.is_empty()
            || self.is_finished() && self.failure.get().is_none() && self.replay.borrow().is_whole()
    }

    /// Whether the client may go on sending what nobody will read. A short rest is read on the side.
    pub fn is_left_behind(&self) -> bool {
        let is_short = self.hint.exact().is_some_and(|length| length <= SHORT_BODY_BYTES);
        !self.is_finished() && (self.failure().is_some() || !is_short)
    }

    /// When the last bytes were taken from the client, if any were.
    pub fn taken_at(&self) -> Option<Instant> {
        self.taken_at.get()
    }

    /// Whether it is the client whose turn it is: the instance has taken everything so far.
    pub fn waits_for_client(&self) -> bool {
        self.awaited.get() && !self.is_finished()
    }

    /// The body for one attempt.
    pub fn attempt(self: &Rc<Self>, idle: Duration) -> AttemptBody {
        self.idle.set(idle);
        if self.is_empty() {
            return AttemptBody::empty();
        }
        self.awaited.set(false);
        let again = self.replay.borrow().again();
        AttemptBody { shared: Some(self.clone()), taken: ClientBody::Empty, again, timer: None }
    }
}

/// What one attempt sends; it takes the client's body at its first poll, and gives it back when it is dropped and another
/// can go on with it.
pub struct AttemptBody {
    shared: Option<Rc<RequestBody>>,
    taken: ClientBody,
    /// What was taken by the attempts before.
    again: Again,
    timer: Option<Pin<Box<Sleep>>>,
}

impl AttemptBody {
    pub fn empty() -> Self {
        AttemptBody { shared: None, taken: ClientBody::Empty, again: Again::default(), timer: None }
    }
}

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(shared) = self.shared.clone() else { return Poll::Ready(None) };
        if !self.again.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.again.data)))));
        }
        if shared.ended.get() {
            return Poll::Ready(self.again.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))));
        }
        if let Some(source) = shared.source.borrow_mut().take() {
            self.taken = source;
        }
        let polled = match self.taken.poll_frame(cx) {
            Poll::Pending => {
                if !silent_too_long(&mut self.timer, || shared.patience(), cx) {
                    shared.awaited.set(true);
                    return Poll::Pending;
                }
                Some(Err(BodyError::Stalled))
            }
            Poll::Ready(polled) => polled,
        };
        self.timer = None;
        shared.awaited.set(false);
        Poll::Ready(shared.account(polled))
    }

    fn is_end_stream(&self) -> bool {
        let is_sent = self.again.data.is_empty() && self.again.trailers.is_none();
        is_sent && self.shared.as_ref().is_none_or(|shared| shared.ended.get())
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.as_ref().map_or(SizeHint::with_exact(0), |shared| shared.hint)
    }
}

impl Drop for AttemptBody {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared
            && !matches!(self.taken, ClientBody::Empty)
            && shared.is_replayable()
        {
            *shared.source.borrow_mut() = Some(std::mem::replace(&mut self.taken, ClientBody::Empty));
        }
    }
}

impl RequestBody {
    fn account(
        &self,
        polled: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        let checked = match polled {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let received = self.received.get() + data.len() as u64;
                    self.received.set(received);
                    let now = Instant::now();
                    self.taken_at.set(Some(now));
                    self.note_pace(data.len(), now);
                    self.replay.borrow_mut().add(&data);
                    if received > self.limit { Err(BodyError::TooLarge) } else { Ok(Frame::data(data)) }
                }
                Err(frame) => {
                    let trailers = self.end_to_end_trailers(frame);
                    self.replay.borrow_mut().add_trailers(&trailers);
                    Ok(Frame::trailers(trailers))
                }
            },
            Some(Err(error)) => Err(error),
            None => {
                self.ended.set(true);
                return None;
            }
        };
        if let Err(error) = &checked {
            self.failure.set(Some(*error));
        }
        Some(checked)
    }

    fn note_pace(&self, bytes: usize, now: Instant) {
        let mut pace = self.pace.get();
        if let Some(since) = self.silent_since.take() {
            pace.waited(now - since);
        }
        pace.moved(bytes as u64);
        self.pace.set(pace);
    }

    /// Trailer fields without those that must not stand there (RFC 9110 §6.5.1): framing, routing and identity.
    /// A service that merges them into the head would believe them like fields of the head.
    fn end_to_end_trailers(&self, frame: Frame<Bytes>) -> HeaderMap {
        let mut trailers = Fields::from(frame.into_trailers().unwrap_or_default());
        super::hop_by_hop::strip_trailers(&mut trailers);
        super::forwarded::remove_claims(&mut trailers, false);
        let spoken_for = self.spoken_for.borrow();
        for name in &*spoken_for {
            trailers.remove(name);
        }
        alike::remove_imitations(&mut trailers, || spoken_for.iter());
        trailers.to_map()
    }
}

/// Polls the timer of a reader that has just found nothing, making it first where there is none.
/// It is made only then, so a body that is there already costs no timer.
fn silent_too_long(
    timer: &mut Option<Pin<Box<Sleep>>>,
    patience: impl Fn() -> Duration,
    cx: &mut Context<'_>,
) -> bool {
    while timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience()))).as_mut().poll(cx).is_ready() {
        // It may have been given more time meanwhile.
        if patience().is_zero() {
            return true;
        }
        *timer = None;
    }
    false
}
