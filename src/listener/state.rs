//! What an HTTP/1.1 connection is doing, as far as its watchdog is concerned.
//!
//! The watchdog looks at it after each turn of the connection and keeps one timer for all limits, so
//! a request costs none.

use std::time::Duration;

use crate::clock::{self, Millis};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// A request head is awaited, or the rest of a body that nobody reads.
    Head,
    /// A request is being answered.
    Busy,
}

/// What the watchdog found to have taken too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    Idle,
    Head,
    /// The client does not read what is being sent to it.
    Write,
}

#[derive(Debug)]
pub struct ConnectionState {
    phase: Phase,
    since: Millis,
    /// Since when the client has not read what is being sent to it.
    blocked_since: Option<Millis>,
    /// Some of the next request's head has come, and not all.
    amid_head: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub head: Duration,
    pub idle: Duration,
}

impl ConnectionState {
    /// The first request is awaited as if its first byte had come: who connects has one to send.
    pub fn new() -> Self {
        ConnectionState { phase: Phase::Head, since: clock::now(), blocked_since: None, amid_head: false }
    }

    /// Some of a head has come, and its end has not.
    pub fn received_part(&mut self) {
        self.amid_head = true;
        if self.phase == Phase::Idle {
            self.phase = Phase::Head;
            self.since = clock::now();
        }
    }

    pub fn is_amid_head(&self) -> bool {
        self.amid_head
    }

    pub fn request_began(&mut self) {
        self.phase = Phase::Busy;
        self.amid_head = false;
    }

    pub fn request_ended(&mut self) {
        self.phase = Phase::Idle;
        self.since = clock::recent();
    }

    /// The request is answered, and the rest of its body is to come as soon as a head would have to.
    pub fn awaits_rest(&mut self) {
        self.phase = Phase::Head;
        self.since = clock::now();
    }

    pub fn write_blocked(&mut self, blocked: bool) {
        match (blocked, self.blocked_since) {
            (true, None) => self.blocked_since = Some(clock::now()),
            (false, Some(_)) => self.blocked_since = None,
            _ => {}
        }
    }

    /// The next moment at which something would have taken too long, and what.
    pub fn deadline(&self, patience: Patience) -> Option<(Millis, Overdue)> {
        if let Some(blocked) = self.blocked_since {
            return Some((blocked.plus(patience.idle), Overdue::Write));
        }
        match self.phase {
            Phase::Idle => Some((self.since.plus(patience.idle), Overdue::Idle)),
            Phase::Head => Some((self.since.plus(patience.head), Overdue::Head)),
            Phase::Busy => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

    #[tokio::test(start_paused = true)]
    async fn the_head_of_a_request_is_timed_from_its_first_byte() {
        let mut state = ConnectionState::new();
        state.request_began();
        assert_eq!(state.deadline(PATIENCE), None);
        state.request_ended();
        let idle_since = clock::now();
        assert_eq!(state.deadline(PATIENCE), Some((idle_since.plus(PATIENCE.idle), Overdue::Idle)));
        tokio::time::advance(Duration::from_secs(3)).await;
        state.received_part();
        let head_since = clock::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        state.received_part();
        assert_eq!(state.deadline(PATIENCE), Some((head_since.plus(PATIENCE.head), Overdue::Head)));
        assert!(state.is_amid_head());
        state.request_began();
        assert!(!state.is_amid_head());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_overdue_even_while_busy() {
        let mut state = ConnectionState::new();
        state.request_began();
        state.write_blocked(true);
        let since = clock::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        state.write_blocked(true);
        assert_eq!(state.deadline(PATIENCE), Some((since.plus(PATIENCE.idle), Overdue::Write)));
        state.write_blocked(false);
        assert_eq!(state.deadline(PATIENCE), None);
    }
}
