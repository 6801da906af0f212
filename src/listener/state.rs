//! What a client connection is doing, as its transport, its requests and its watchdog see it.
//!
//! The watchdog looks at it after each turn of the connection and keeps one timer for all limits, so
//! a request costs none.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::task::Waker;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Version};

use crate::clock::{self, Millis};
use crate::service::InformationalSink;

/// Bytes of interim responses that may wait for the client; what does not fit is left out,
/// as RFC 9110 §15.2 allows.
const MAX_INTERIM_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Between requests.
    Idle = 0,
    /// Some of a request head has come.
    Head = 1,
    /// A whole head is with the parser.
    Parsing = 2,
    /// A request is being answered.
    Busy = 3,
}

/// What the watchdog found to have taken too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    Idle,
    Head,
    /// The client does not read what is being sent to it.
    Write,
}

/// Shared by the parts of one connection; `Send` because hyper's upgrades ask it of the transport,
/// written by one thread only.
#[derive(Debug)]
pub struct ConnectionState {
    phase: AtomicU8,
    since: AtomicU64,
    /// 0: the client reads as we write. Otherwise since when it has not, plus one.
    blocked_since: AtomicU64,
    /// Something has come since the last request.
    received: AtomicBool,
    requests: AtomicU32,
    /// A request's body was not read to its end: the rest may still be under way.
    unread_body: AtomicBool,
    /// Of the last request.
    http10: AtomicBool,
    tunnel: AtomicBool,
    /// Bytes have come that wait for the request before them to end.
    held: AtomicBool,
    interim: Mutex<Vec<u8>>,
    has_interim: AtomicBool,
    /// The connection's task, which stays the same for its life.
    task: OnceLock<Waker>,
}

#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub head: Duration,
    pub idle: Duration,
}

impl Default for ConnectionState {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectionState {
    pub fn new() -> Self {
        ConnectionState {
            // The first request is awaited as if its first byte had come: who connects has one to send.
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU64::new(clock::now().0),
            blocked_since: AtomicU64::new(0),
            received: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            unread_body: AtomicBool::new(false),
            http10: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            held: AtomicBool::new(false),
            interim: Mutex::default(),
            has_interim: AtomicBool::new(false),
            task: OnceLock::new(),
        }
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Parsing,
            _ => Phase::Busy,
        }
    }

    fn enter(&self, phase: Phase, now: Millis) {
        self.phase.store(phase as u8, Relaxed);
        self.since.store(now.0, Relaxed);
    }

    pub fn received_bytes(&self) {
        self.received.store(true, Relaxed);
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head, clock::now());
        }
    }

    /// The head of a request is whole and has gone to the parser.
    pub fn head_passed(&self) {
        self.phase.store(Phase::Parsing as u8, Relaxed);
    }

    /// Bytes are held back; the connection is to look at them again when the request has ended.
    pub fn bytes_held(&self) {
        self.held.store(true, Relaxed);
    }

    /// What follows on the connection is no HTTP any more.
    pub fn begin_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    pub fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    pub fn request_began(&self, version: Version) {
        self.http10.store(version == Version::HTTP_10, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.phase.store(Phase::Busy as u8, Relaxed);
    }

    pub fn is_http10(&self) -> bool {
        self.http10.load(Relaxed)
    }

    /// Whether some of the next request's head has come, and not all.
    pub fn is_amid_head(&self) -> bool {
        self.phase() == Phase::Head && self.received.load(Relaxed)
    }

    pub fn request_ended(&self, body_was_read: bool) {
        self.received.store(false, Relaxed);
        if !body_was_read {
            self.unread_body.store(true, Relaxed);
        }
        self.enter(Phase::Idle, clock::now());
        // hyper does not read again by itself when its last attempt found nothing.
        if self.held.swap(false, Relaxed) {
            self.wake();
        }
    }

    pub fn left_body_unread(&self) -> bool {
        self.unread_body.load(Relaxed)
    }

    pub fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    pub fn write_blocked(&self, blocked: bool) {
        let before = self.blocked_since.load(Relaxed);
        if blocked && before == 0 {
            self.blocked_since.store(clock::now().0 + 1, Relaxed);
        } else if !blocked && before != 0 {
            self.blocked_since.store(0, Relaxed);
        }
    }

    /// The next moment at which something would have taken too long, and what.
    pub fn deadline(&self, patience: Patience) -> Option<(Millis, Overdue)> {
        let blocked = self.blocked_since.load(Relaxed);
        if blocked != 0 {
            return Some((Millis(blocked - 1).plus(patience.idle), Overdue::Write));
        }
        let since = Millis(self.since.load(Relaxed));
        match self.phase() {
            Phase::Idle => Some((since.plus(patience.idle), Overdue::Idle)),
            Phase::Head => Some((since.plus(patience.head), Overdue::Head)),
            Phase::Parsing | Phase::Busy => None,
        }
    }

    /// Interim bytes that wait to be written, if any.
    pub fn take_interim(&self) -> Option<Vec<u8>> {
        if !self.has_interim.swap(false, Relaxed) {
            return None;
        }
        let mut interim = self.interim.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Some(std::mem::take(&mut *interim))
    }

    /// The task to wake when there is something for the connection to do.
    pub fn set_task(&self, waker: &Waker) {
        self.task.get_or_init(|| waker.clone());
    }

    fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }
}

impl InformationalSink for ConnectionState {
    /// HTTP/1.1 only: there, an interim response is bytes before those of the final one.
    fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        if self.phase() != Phase::Busy || !crate::http::interim::may_pass(status) {
            return;
        }
        let mut interim = self.interim.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = interim.len();
        crate::http::interim::encode_http1(status, headers, &mut interim);
        if interim.len() > MAX_INTERIM_BYTES {
            interim.truncate(before);
            return;
        }
        self.has_interim.store(true, Relaxed);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    #[tokio::test(start_paused = true)]
    async fn the_head_of_a_request_is_timed_from_its_first_byte() {
        let state = ConnectionState::new();
        state.request_began(Version::HTTP_11);
        assert_eq!(state.deadline(PATIENCE), None);
        state.request_ended(true);
        let idle_since = clock::now();
        assert_eq!(state.deadline(PATIENCE), Some((idle_since.plus(PATIENCE.idle), Overdue::Idle)));
        tokio::time::advance(Duration::from_secs(3)).await;
        state.received_bytes();
        let head_since = clock::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        state.received_bytes();
        assert_eq!(state.deadline(PATIENCE), Some((head_since.plus(PATIENCE.head), Overdue::Head)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_overdue_even_while_busy() {
        let state = ConnectionState::new();
        state.request_began(Version::HTTP_11);
        state.write_blocked(true);
        let since = clock::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        state.write_blocked(true);
        assert_eq!(state.deadline(PATIENCE), Some((since.plus(PATIENCE.idle), Overdue::Write)));
        state.write_blocked(false);
        assert_eq!(state.deadline(PATIENCE), None);
    }

    #[test]
    fn interim_responses_are_bounded() {
        let state = ConnectionState::new();
        state.request_began(Version::HTTP_11);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::LINK, "</style.css>; rel=preload".parse().expect("a constant"));
        for _ in 0..10_000 {
            state.interim(StatusCode::EARLY_HINTS, &headers);
        }
        let bytes = state.take_interim().expect("some were kept");
        assert!(bytes.len() <= MAX_INTERIM_BYTES);
        assert!(bytes.starts_with(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"));
        assert_eq!(state.take_interim(), None);
    }
}
