//! One HTTP/2 connection, on `h2` itself: interim responses, resets and trailers pass through it as they are.
//!
//! All of it is one task. In each of its turns the protocol reads what has come, the streams that were woken go on,
//! the protocol takes what they have to say, and everything leaves in one write.

mod agenda;
mod block;
mod flood;
mod head;
mod huffman;
mod inbound;
mod stream;
mod wire;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Reset, RecvStream};
use http::Request;
use tokio::time::Sleep;

use self::agenda::Agenda;
use self::flood::TakenBack;
use self::inbound::End;
use self::stream::{Left, Stream};
use self::wire::Wire;
use super::Connection;
use super::drain::Drained;
use super::io::Transport;
use crate::clock::{self, Millis};
use crate::http::rewound::Rewound;
use crate::telemetry::events;

/// Per stream; what a reader that is not reading can make us hold.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const SEND_BUFFER: usize = 256 * 1024;

/// For how long a connection that was told to go for being idle is waited for.
const FAREWELL: Duration = Duration::from_secs(1);

/// The protocol's place in the agenda. The streams come behind it.
const PROTOCOL: usize = 0;

/// After so many rounds in one turn, other connections have theirs.
const ROUNDS: usize = 16;

pub async fn serve(io: Rewound<Transport>, connection: Rc<Connection>, drained: Drained) {
    let limits = &connection.settings.limits;
    let wire = Wire::new(io, connection.worker.buffers.clone());
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(wire.clone());
    let Ok(Ok(protocol)) = tokio::time::timeout(limits.header_timeout, handshake).await else { return };
    wire.gather();
    let mut http2 = Http2::new(protocol, wire, connection, drained);
    poll_fn(|cx| http2.poll(cx)).await;
}

struct Http2 {
    streams: Streams,
    protocol: h2::server::Connection<Wire<Rewound<Transport>>, Bytes>,
    protocol_waker: Waker,
    wire: Wire<Rewound<Transport>>,
    agenda: Arc<Agenda>,
    connection: Rc<Connection>,
    drained: Drained,
    draining: bool,
    /// It is over for what has come on it.
    ending: bool,
    idle: Idle,
}

impl Http2 {
    fn new(
        protocol: h2::server::Connection<Wire<Rewound<Transport>>, Bytes>,
        wire: Wire<Rewound<Transport>>,
        connection: Rc<Connection>,
        drained: Drained,
    ) -> Self {
        let limits = &connection.settings.limits;
        let room = usize::try_from(limits.max_streams).unwrap_or(usize::MAX);
        let agenda = Agenda::new(1 + room);
        agenda.note(PROTOCOL);
        Http2 {
            streams: Streams::new(room, agenda.clone()),
            protocol,
            protocol_waker: agenda.waker(PROTOCOL),
            wire,
            agenda,
            idle: Idle::new(limits.idle_timeout),
            connection,
            drained,
            draining: false,
            ending: false,
        }
    }

    /// One turn. Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.agenda.begin(cx);
        if !self.draining && self.drained.poll(cx).is_ready() {
            self.say_goodbye();
        }
        if self.poll_idle(cx).is_ready() {
            return Poll::Ready(());
        }
        for _ in 0..ROUNDS {
            if self.agenda.take(PROTOCOL) {
                if self.poll_protocol().is_ready() {
                    return Poll::Ready(());
                }
                self.wire.reset_malformed(|stream| self.streams.reset(stream));
            }
            self.streams.poll();
            self.wire.sends(std::mem::take(&mut self.streams.sent));
            if !self.ending {
                self.look_for_end();
            }
            if !tokio::task::coop::has_budget_remaining() {
                break;
            }
            if self.agenda.is_empty() {
                self.idle.note(&mut self.streams);
                if self.write_out().is_err() {
                    return Poll::Ready(());
                }
                if self.agenda.is_over() {
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        if self.write_out().is_err() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn say_goodbye(&mut self) {
        self.draining = true;
        self.protocol.graceful_shutdown();
        self.agenda.note(PROTOCOL);
    }

    /// Reads what has come, and hands over what is to be written. Ready when the connection is over.
    fn poll_protocol(&mut self) -> Poll<()> {
        let cx = &mut Context::from_waker(&self.protocol_waker);
        self.wire.look_again();
        while self.streams.has_room() {
            match ready!(self.protocol.poll_accept(cx)) {
                Some(Ok((request, respond))) => self.streams.open(&self.connection, request, respond),
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
        // Those who have opened more than they may have broken some off, which is noticed next. Windows open meanwhile.
        self.protocol.poll_closed(cx).map(|_| ())
    }

    fn look_for_end(&mut self) {
        match self.wire.end() {
            Some(End::Flood) => self.end_flood(),
            Some(End::Wrong(code)) => self.end(code),
            None if self.streams.taken_back.is_flood() => self.end_flood(),
            None => {}
        }
    }

    fn end(&mut self, code: Reset) {
        self.ending = true;
        self.protocol.abrupt_shutdown(code);
        self.agenda.note(PROTOCOL);
    }

    /// The client keeps us busy with nothing. It is told so, and the connection ends with that.
    fn end_flood(&mut self) {
        let Connection { worker, settings, facts, .. } = &*self.connection;
        settings.metrics.flooded(worker.id);
        events::warn(format_args!("listener {}: {} floods a connection", settings.name, facts.peer()));
        self.end(Reset::ENHANCE_YOUR_CALM);
    }

    fn write_out(&mut self) -> std::io::Result<()> {
        let cx = &mut Context::from_waker(&self.protocol_waker);
        match self.wire.poll_write_out(cx) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when the client was told to go for being idle, and has not gone.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.idle.fires(cx) {
            let left = self.idle.left(&self.streams);
            if !left.is_zero() {
                self.idle.arm(left);
            } else if self.draining {
                return Poll::Ready(());
            } else {
                self.say_goodbye();
                self.idle.arm(FAREWELL);
            }
        }
        Poll::Pending
    }
}

/// The streams that are open, each in its place.
struct Streams {
    places: Vec<Place>,
    free: Vec<usize>,
    /// So many places there may be.
    room: usize,
    /// Whose turn it is first.
    first: usize,
    /// One has ended since this was last looked at.
    ended: bool,
    taken_back: TakenBack,
    /// So many frames of DATA they have sent since this was last looked at.
    sent: u32,
    agenda: Arc<Agenda>,
}

struct Place {
    stream: Option<Box<Stream>>,
    /// The place's, whichever stream it has.
    waker: Waker,
}

impl Streams {
    fn new(room: usize, agenda: Arc<Agenda>) -> Self {
        let taken_back = TakenBack::default();
        Streams {
            places: Vec::new(),
            free: Vec::new(),
            room,
            first: 0,
            ended: false,
            taken_back,
            sent: 0,
            agenda,
        }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() || self.places.len() < self.room
    }

    fn open(
        &mut self,
        connection: &Rc<Connection>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        if head::is_malformed(&request) {
            return respond.send_reset(Reset::PROTOCOL_ERROR);
        }
        self.taken_back.opened();
        let place = self.free.pop().unwrap_or_else(|| {
            let waker = self.agenda.waker(behind_protocol(self.places.len()));
            self.places.push(Place { stream: None, waker });
            self.places.len() - 1
        });
        self.places[place].stream = Some(Box::new(Stream::begin(connection, request, respond)));
        self.agenda.note(behind_protocol(place));
    }

    /// Lets those go on that were woken, each once.
    fn poll(&mut self) {
        let mut from = std::mem::take(&mut self.first);
        while let Some(number) = self.agenda.next(behind_protocol(from)) {
            if !tokio::task::coop::has_budget_remaining() {
                self.first = from;
                return;
            }
            self.agenda.take(number);
            from = number;
            self.poll_place(number - behind_protocol(0));
        }
    }

    fn poll_place(&mut self, number: usize) {
        let has_room = self.has_room();
        let Some(place) = self.places.get_mut(number) else { return };
        let Some(stream) = &mut place.stream else { return };
        if let Poll::Ready(left) = stream.poll(&mut self.sent, &mut Context::from_waker(&place.waker)) {
            if left == Left::TakenBack {
                self.taken_back.taken_back();
            }
            self.leave(number, has_room);
        }
    }

    /// Resets a stream for its request is malformed. `false` when it is not open here.
    fn reset(&mut self, id: u32) -> bool {
        let has_room = self.has_room();
        let is_it = |place: &Place| place.stream.as_ref().and_then(|stream| stream.id()) == Some(id);
        let Some(number) = self.places.iter().position(is_it) else { return false };
        if let Some(mut stream) = self.places[number].stream.take() {
            stream.reset(Reset::PROTOCOL_ERROR);
        }
        self.leave(number, has_room);
        true
    }

    /// A place has nobody any more.
    fn leave(&mut self, number: usize, had_room: bool) {
        self.places[number].stream = None;
        self.free.push(number);
        self.ended = true;
        if !had_room {
            self.agenda.note(PROTOCOL);
        }
    }
}

/// The number in the agenda of what is in a place.
fn behind_protocol(place: usize) -> usize {
    PROTOCOL + 1 + place
}

/// Since when there has been no stream, and until when there need be none.
struct Idle {
    patience: Duration,
    since: Millis,
    timer: Pin<Box<Sleep>>,
    /// The timer has the task's waker, which stays the same for its life: it need not be given it again.
    is_set: bool,
}

impl Idle {
    fn new(patience: Duration) -> Self {
        Idle { patience, since: clock::now(), timer: Box::pin(tokio::time::sleep(patience)), is_set: false }
    }

    /// Looks whether there are streams no more.
    fn note(&mut self, streams: &mut Streams) {
        if std::mem::take(&mut streams.ended) && streams.is_empty() {
            self.since = clock::now();
        }
    }

    /// What is left of the client's time. A stream in progress counts as use, however long it takes.
    fn left(&self, streams: &Streams) -> Duration {
        if streams.is_empty() {
            self.patience.saturating_sub(clock::now().since(self.since))
        } else {
            self.patience
        }
    }

    fn fires(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_set && !self.timer.is_elapsed() {
            return false;
        }
        self.is_set = true;
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn arm(&mut self, wait: Duration) {
        self.is_set = false;
        self.timer.as_mut().reset(tokio::time::Instant::now() + wait);
    }
}
