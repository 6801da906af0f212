//! The one timer of a connection, whatever it waits for: it is moved only when something is due earlier than it
//! stands, and otherwise found too early when it fires. So an ordinary request moves none.

use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep};

/// Made when a connection first has to wait.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether `due` has passed. When it has not, the task is woken then at the latest.
    pub fn is_over(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if due < timer.deadline() {
            timer.as_mut().reset(due);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return true;
            }
            timer.as_mut().reset(due);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    async fn over(alarm: &mut Alarm, due: Instant) -> Duration {
        let began = Instant::now();
        poll_fn(|cx| if alarm.is_over(due, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_it_is_due_wherever_it_stood() {
        let mut alarm = Alarm::default();
        let second = Duration::from_secs(1);
        assert_eq!(over(&mut alarm, Instant::now() + second).await, second);
        // It has fired; it stands too late; it stands too early.
        for due in [second * 60, second, second * 100] {
            let at = Instant::now() + due;
            assert!(!poll_fn(|cx| Poll::Ready(alarm.is_over(at + second, cx))).await);
            assert_eq!(over(&mut alarm, at).await, due);
            assert_eq!(over(&mut alarm, Instant::now()).await, Duration::ZERO);
        }
    }
}
