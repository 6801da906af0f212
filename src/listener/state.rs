//! What an HTTP/1.1 connection is doing, as far as its watchdog is concerned.
//!
//! The watchdog looks at it after each turn of the connection and keeps one timer for all limits, so
//! a request costs none.

use std::time::Duration;

use crate::clock::{self, Millis};
use crate::http::pace::{Demand, Pace};

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
    /// How the client takes the present response.
    pace: Pace,
    /// Some of the next request's head has come, and not all.
    amid_head: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub head: Duration,
    pub idle: Duration,
    /// Bytes a second that a client has to take.
    pub least: u64,
}

impl ConnectionState {
    /// The first request is awaited as if its first byte had come: who connects has one to send.
    pub fn new() -> Self {
        ConnectionState {
            phase: Phase::Head,
            since: clock::now(),
            blocked_since: None,
            pace: Pace::default(),
            amid_head: false,
        }
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
        self.pace = Pace::default();
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
            (false, Some(since)) => {
                self.pace.waited(clock::now().since(since));
                self.blocked_since = None;
            }
            _ => {}
        }
    }

    /// The client has taken some of what is being sent to it: it reads, however slowly.
    pub fn took(&mut self, bytes: usize) {
        self.write_blocked(false);
        self.pace.moved(bytes as u64);
    }

    /// The next moment at which something would have taken too long, and what.
    pub fn deadline(&self, patience: Patience) -> Option<(Millis, Overdue)> {
        if let Some(blocked) = self.blocked_since {
            let wait =
                patience.idle.min(self.pace.left(Demand { least: patience.least, grace: patience.idle }));
            return Some((blocked.plus(wait), Overdue::Write));
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

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75), least: 100 };

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

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_little_at_a_time_has_to_keep_up() {
        let mut state = ConnectionState::new();
        state.request_began();
        // Two seconds' worth of bytes with every thirtieth second.
        let mut lefts = Vec::new();
        for _ in 0..4 {
            state.write_blocked(true);
            let (due, overdue) = state.deadline(PATIENCE).expect("it is waited for");
            assert_eq!(overdue, Overdue::Write);
            lefts.push(due.since(clock::now()).as_secs());
            tokio::time::advance(Duration::from_secs(30)).await;
            state.took(200);
        }
        assert_eq!(lefts, [75, 47, 19, 0]);
        // What is asked for is asked of all of it: who has taken much may pause.
        state.took(1_000_000);
        state.write_blocked(true);
        assert_eq!(state.deadline(PATIENCE).map(|(due, _)| due.since(clock::now()).as_secs()), Some(75));
        state.write_blocked(false);
        // The next answer is another matter.
        state.request_ended();
        state.request_began();
        state.write_blocked(true);
        assert_eq!(state.deadline(PATIENCE).map(|(due, _)| due.since(clock::now()).as_secs()), Some(75));
    }
}
