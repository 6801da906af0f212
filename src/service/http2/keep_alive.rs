//! Finds out whether the other side of a connection is still there, while requests wait and nothing comes.
//!
//! Rarely: servers take frequent pings for an attack (gRPC's do so below five minutes) and close the connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::connection::State;
use crate::clock;

/// So long nothing has come while somebody waits.
const QUIET: Duration = Duration::from_secs(30);
/// From one ping to the next at least.
const APART: Duration = Duration::from_secs(310);
const PONG_WITHIN: Duration = Duration::from_secs(10);

pub struct KeepAlive {
    ping: PingPong,
    timer: Pin<Box<Sleep>>,
    is_asking: bool,
    last: Option<Instant>,
}

impl KeepAlive {
    pub fn new(ping: PingPong) -> Self {
        KeepAlive { ping, timer: Box::pin(sleep(QUIET)), is_asking: false, last: None }
    }

    /// Whether a ping was not answered. When that is not known, the task is woken when it may be.
    pub fn is_dead(&mut self, state: &State, cx: &mut Context<'_>) -> bool {
        if self.is_asking {
            match self.ping.poll_pong(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(_)) => {
                    self.is_asking = false;
                    state.hear();
                    self.timer.as_mut().reset(Instant::now() + QUIET);
                }
                Poll::Ready(Err(_)) => return true,
            }
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.is_asking {
                return true;
            }
            let now = Instant::now();
            let is_quiet = state.streams() > 0 && clock::now().since(state.heard_at()) >= QUIET;
            let may_ask = self.last.is_none_or(|last| now.duration_since(last) >= APART);
            let mut next = QUIET;
            if is_quiet && may_ask && self.ping.send_ping(Ping::opaque()).is_ok() {
                (self.is_asking, self.last, next) = (true, Some(now), PONG_WITHIN);
                // So that the answer wakes this task.
                if self.ping.poll_pong(cx).is_ready() {
                    self.is_asking = false;
                }
            }
            self.timer.as_mut().reset(now + next);
        }
        false
    }
}
