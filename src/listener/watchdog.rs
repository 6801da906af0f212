//! One timer for each connection, whatever it waits for: it is moved only when something is due earlier
//! than it stands, and otherwise found too early when it fires.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use super::state::{ConnectionState, Overdue, Patience};
use crate::clock::{self, Millis};

#[derive(Default)]
pub struct Watchdog {
    /// `None` until something can come due: a connection whose only request is there at once needs none.
    timer: Option<Timer>,
}

struct Timer {
    armed: Millis,
    sleep: Pin<Box<Sleep>>,
    /// The timer has the task's waker, which stays the same for its life: it need not be given it again.
    is_set: bool,
}

impl Watchdog {
    /// Ready when the connection has taken too long over something. Always called by the same task.
    pub fn poll(
        &mut self,
        state: &ConnectionState,
        patience: Patience,
        cx: &mut Context<'_>,
    ) -> Poll<Overdue> {
        let due = state.deadline(patience);
        let timer = match (&mut self.timer, due) {
            (Some(timer), _) => timer,
            (none, Some((at, _))) => none.insert(Timer::new(at)),
            (None, None) => return Poll::Pending,
        };
        if let Some((at, _)) = due
            && at < timer.armed
        {
            timer.arm(at);
        }
        while timer.fires(cx) {
            let now = clock::now();
            match due {
                Some((at, overdue)) if at <= now => return Poll::Ready(overdue),
                Some((at, _)) => timer.arm(at),
                // Nothing is due while a request is answered: look again when something could be.
                None => timer.arm(now.plus(patience.head.min(patience.idle))),
            }
        }
        Poll::Pending
    }
}

impl Timer {
    fn new(at: Millis) -> Self {
        let sleep = Box::pin(tokio::time::sleep_until(moment(at)));
        Timer { armed: at, sleep, is_set: false }
    }

    fn fires(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_set && !self.sleep.is_elapsed() {
            return false;
        }
        self.is_set = true;
        // A task that has used up its turn is told to come again, and the timer would not have taken its waker.
        pin!(unconstrained(self.sleep.as_mut())).poll(cx).is_ready()
    }

    fn arm(&mut self, at: Millis) {
        self.armed = at;
        self.is_set = false;
        self.sleep.as_mut().reset(moment(at));
    }
}

fn moment(at: Millis) -> Instant {
    let now = Instant::now();
    now + at.since(Millis::of(now))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75), least: 100 };

    #[tokio::test(start_paused = true)]
    async fn there_is_no_timer_before_something_can_come_due() {
        let mut state = ConnectionState::new();
        state.request_began();
        let mut watchdog = Watchdog::default();
        assert!(poll_fn(|cx| Poll::Ready(watchdog.poll(&state, PATIENCE, cx))).await.is_pending());
        assert!(watchdog.timer.is_none());
        state.request_ended();
        assert_eq!(poll_fn(|cx| watchdog.poll(&state, PATIENCE, cx)).await, Overdue::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_is_found_when_it_is_due() {
        let began = tokio::time::Instant::now();
        let mut state = ConnectionState::new();
        let mut watchdog = Watchdog::default();
        let early =
            tokio::time::timeout(Duration::from_secs(9), poll_fn(|cx| watchdog.poll(&state, PATIENCE, cx)));
        assert!(early.await.is_err());
        state.request_began();
        state.request_ended();
        assert_eq!(poll_fn(|cx| watchdog.poll(&state, PATIENCE, cx)).await, Overdue::Idle);
        assert_eq!(began.elapsed().as_secs(), 84);
        state.received_part();
        assert_eq!(poll_fn(|cx| watchdog.poll(&state, PATIENCE, cx)).await, Overdue::Head);
        assert_eq!(began.elapsed().as_secs(), 94);
        state.request_began();
        let silence = tokio::time::timeout(
            Duration::from_secs(1000),
            poll_fn(|cx| watchdog.poll(&state, PATIENCE, cx)),
        );
        assert!(silence.await.is_err());
        state.write_blocked(true);
        assert_eq!(poll_fn(|cx| watchdog.poll(&state, PATIENCE, cx)).await, Overdue::Write);
    }
}
