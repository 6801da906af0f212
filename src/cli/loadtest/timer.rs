//! Waits until a moment, finer than the millisecond of tokio's timers: a request that is sent a millisecond late
//! would be measured a millisecond too slow.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

pub enum Timer {
    Fine(AsyncFd<OwnedFd>),
    /// Where the kernel gives none, and on the paused clock of tests.
    Coarse,
}

impl Timer {
    /// Of the runtime that it is called in.
    pub fn new() -> Timer {
        let fine = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC);
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for what doesn't own its descriptor; this does"
        )]
        match fine.map(AsyncFd::new) {
            Ok(Ok(descriptor)) => Timer::Fine(descriptor),
            _ => Timer::Coarse,
        }
    }

    /// May be dropped half-way; the next wait sets the timer anew.
    pub async fn until(&self, moment: Instant) {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self {
                Timer::Fine(descriptor) if set(descriptor, left).is_ok() => {
                    let Ok(mut ready) = descriptor.readable().await else { return };
                    // Setting it anew takes back that it has expired, so nothing needs to be read.
                    ready.clear_ready();
                }
                _ => return tokio::time::sleep_until(moment).await,
            }
        }
    }
}

fn set(descriptor: &AsyncFd<OwnedFd>, left: Duration) -> rustix::io::Result<()> {
    let nanos = i64::from(left.subsec_nanos());
    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: seconds, tv_nsec: nanos },
    };
    timerfd_settime(descriptor, TimerfdTimerFlags::empty(), &once).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_never_fires_early() {
        let timer = Timer::new();
        for micros in [0, 1, 300, 1500] {
            let moment = Instant::now() + Duration::from_micros(micros);
            timer.until(moment).await;
            assert!(Instant::now() >= moment, "{micros} µs");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_coarse_one_runs_on_the_clock_of_tests() {
        let moment = Instant::now() + Duration::from_secs(3600);
        Timer::Coarse.until(moment).await;
        assert!(Instant::now() >= moment);
    }
}
