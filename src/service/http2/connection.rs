//! A connection that requests share, and the task that drives it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};

use super::keep_alive::KeepAlive;
use crate::clock::{self, Millis};
use crate::service::http1::decode;
use crate::service::stream::Stream;

/// Requests on one connection, whatever the instance allows: more of them wait for one another too long.
const MOST_STREAMS: usize = 256;
/// Stands for what the instance allows as long as it has not said that; the request for which the connection is opened is then the
/// only one. No instance says this.
const UNSETTLED: usize = 0x1234_5678;
/// What an instance may send of a response that nobody has taken yet, and of all responses together.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Of a stream that the instance doesn't take.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// A handle for beginning requests. The connection ends in order when the last is dropped and no stream is left.
pub struct Connection {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

/// What the task that drives a connection and those who use it tell each other.
pub struct State {
    streams: Cell<usize>,
    /// So many streams may be open at a time.
    most: Cell<usize>,
    /// That is known from the instance.
    is_settled: Cell<bool>,
    /// No request is to begin on it.
    is_closing: Cell<bool>,
    has_served: Cell<bool>,
    /// Why it ended, where that was no end in order. Streams are told only that it did.
    broken: RefCell<Option<(io::ErrorKind, String)>>,
    /// When the last stream ended.
    idle_since: Cell<Millis>,
    /// When anything came of the instance.
    heard_at: Cell<Millis>,
    /// Told when there may be room for another request.
    more: Box<dyn Fn()>,
}

impl State {
    /// What has ended the connection.
    pub fn broken(&self) -> Option<io::Error> {
        self.broken.borrow().as_ref().map(|(kind, said)| io::Error::new(*kind, said.clone()))
    }

    fn breaks(&self, error: &h2::Error) {
        if let Some(error) = error.get_io() {
            *self.broken.borrow_mut() = Some((error.kind(), error.to_string()));
        }
    }

    pub fn streams(&self) -> usize {
        self.streams.get()
    }

    pub fn heard_at(&self) -> Millis {
        self.heard_at.get()
    }

    pub fn hear(&self) {
        self.heard_at.set(clock::recent());
    }

    fn settle(&self) {
        if !self.is_settled.replace(true) {
            (self.more)();
        }
    }

    pub fn close(&self) {
        self.is_closing.set(true);
    }
}

impl Connection {
    /// A place for one more request, unless there is none.
    pub fn seat(&self) -> Option<Seat> {
        if self.state.is_closing.get() || self.state.streams.get() >= self.state.most.get() {
            return None;
        }
        self.state.streams.set(self.state.streams.get() + 1);
        let reused = self.state.has_served.replace(true);
        Some(Seat { sender: self.sender.clone(), state: self.state.clone(), reused })
    }

    pub fn is_closing(&self) -> bool {
        self.state.is_closing.get()
    }

    /// Whether it is known how many requests it takes.
    pub fn is_settled(&self) -> bool {
        self.state.is_settled.get() || self.state.is_closing.get()
    }

    pub fn has_served(&self) -> bool {
        self.state.has_served.get()
    }

    /// Requests that are on it end there, and none begins.
    pub fn close(&self) {
        self.state.close();
    }

    /// Requests that are on it.
    pub fn streams(&self) -> usize {
        self.state.streams.get()
    }

    /// For how long nobody has used it; `None` while somebody does.
    pub fn idle_for(&self, now: Millis) -> Option<Duration> {
        (self.state.streams.get() == 0).then(|| now.since(self.state.idle_since.get()))
    }
}

/// A request's place on a connection.
pub struct Seat {
    pub sender: SendRequest<Bytes>,
    state: Rc<State>,
    /// The connection has carried a request before.
    pub reused: bool,
}

impl Seat {
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.state.streams.set(self.state.streams.get() - 1);
        self.state.idle_since.set(clock::recent());
        (self.state.more)();
    }
}

/// Begins to speak HTTP/2. What comes back besides the handle drives the connection to its end; `more` is told when
/// there may be room for more requests.
pub async fn open(
    stream: Stream,
    more: impl Fn() + 'static,
) -> Result<(Connection, impl Future<Output = ()>), h2::Error> {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(UNSETTLED)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(decode::MAX_HEAD_BYTES as u32);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let now = clock::now();
    let state = Rc::new(State {
        streams: Cell::new(0),
        most: Cell::new(1),
        is_settled: Cell::new(false),
        is_closing: Cell::new(false),
        broken: RefCell::default(),
        has_served: Cell::new(false),
        idle_since: Cell::new(now),
        heard_at: Cell::new(now),
        more: Box::new(more),
    });
    Ok((Connection { sender, state: state.clone() }, drive(connection, state)))
}

async fn drive(mut connection: h2::client::Connection<Stream, Bytes>, state: Rc<State>) {
    let mut keep_alive = connection.ping_pong().map(KeepAlive::new);
    poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        if let Poll::Ready(Err(error)) = &polled {
            state.breaks(error);
        }
        let ended = polled.is_ready();
        let allowed = connection.max_concurrent_send_streams();
        if allowed != UNSETTLED {
            let most = allowed.min(MOST_STREAMS);
            if state.most.replace(most) < most {
                (state.more)();
            }
            state.settle();
        }
        let is_dead = keep_alive.as_mut().is_some_and(|keep_alive| keep_alive.is_dead(&state, cx));
        if ended || is_dead { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    state.close();
    // Whoever waits for a stream of it hears of it now.
    drop(connection);
    (state.more)();
}
