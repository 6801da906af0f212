//! One timer for each connection, whatever it waits for: it is moved only when something is due earlier
//! than it stands, and otherwise found too early when it fires.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use super::state::{ConnectionState, Overdue, Patience};
use crate::clock::{self, Millis};

pub struct Watchdog {
    patience: Patience,
    armed: Millis,
    timer: Pin<Box<Sleep>>,
}

impl Watchdog {
    pub fn new(patience: Patience) -> Self {
        let first = patience.head.min(patience.idle);
        Watchdog { patience, armed: clock::now().plus(first), timer: Box::pin(tokio::time::sleep(first)) }
    }

    /// Ready when the connection has taken too long over something.
    pub fn poll(&mut self, state: &ConnectionState, cx: &mut Context<'_>) -> Poll<Overdue> {
        let due = state.deadline(self.patience);
        if let Some((at, _)) = due
            && at < self.armed
        {
            self.arm(at);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = clock::now();
            match due {
                Some((at, overdue)) if at <= now => return Poll::Ready(overdue),
                Some((at, _)) => self.arm(at),
                // Nothing is due while a request is answered: look again when something could be.
                None => self.arm(now.plus(self.patience.head.min(self.patience.idle))),
            }
        }
        Poll::Pending
    }

    fn arm(&mut self, at: Millis) {
        self.armed = at;
        let now = clock::now();
        self.timer.as_mut().reset(tokio::time::Instant::now() + at.since(now));
    }
}
