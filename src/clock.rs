//! Monotonic milliseconds since the process began, cheap to keep in an atomic.
//!
//! It reads tokio's clock, so tests of anything timed run on the paused clock.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Milliseconds since the first reading of the clock in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

const HEAD_START: Duration = Duration::from_secs(60);

static START: OnceLock<Instant> = OnceLock::new();

/// The present moment.
pub fn now() -> Millis {
    Millis::of(Instant::now())
}

fn start() -> Instant {
    // A little before the first reading, since a test's paused clock may begin before another test's.
    *START.get_or_init(|| {
        let now = std::time::Instant::now();
        Instant::from_std(now.checked_sub(HEAD_START).unwrap_or(now))
    })
}

thread_local! {
    static TICK: Cell<Option<Tick>> = const { Cell::new(None) };
}

/// Both clocks as they were at the last tick of this thread.
#[derive(Clone, Copy)]
struct Tick {
    moment: Millis,
    wall: SystemTime,
    since_epoch: Duration,
}

/// The present moment or the last tick of this thread's clockwork, if it has one that runs: for whatever
/// does not mind some milliseconds, since a reading costs as much as a dozen memory accesses.
pub fn recent() -> Millis {
    TICK.get().map_or_else(now, |tick| tick.moment)
}

/// The time of day, as [`recent`] as that.
pub fn recent_wall() -> SystemTime {
    TICK.get().map_or_else(SystemTime::now, |tick| tick.wall)
}

/// The time of day since 1970; zero on a clock that stands before that.
pub fn recent_since_epoch() -> Duration {
    TICK.get().map_or_else(|| since_epoch(SystemTime::now()), |tick| tick.since_epoch)
}

fn since_epoch(wall: SystemTime) -> Duration {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Reads the clocks for [`recent`]. Who calls this must go on calling it every few milliseconds, or call [`rest`].
pub fn tick() {
    let wall = SystemTime::now();
    TICK.set(Some(Tick { moment: now(), wall, since_epoch: since_epoch(wall) }));
}

/// From here on there are no ticks.
pub fn rest() {
    TICK.set(None);
}

impl Millis {
    /// The moment of a reading of the clock that somebody has made already.
    pub fn of(instant: Instant) -> Millis {
        let since = instant.saturating_duration_since(start());
        Millis(since.as_secs() * 1000 + u64::from(since.subsec_millis()))
    }

    pub fn plus(self, duration: Duration) -> Millis {
        Millis(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// The time from `earlier` to this moment, zero when `earlier` is later.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn between_two_ticks_time_stands_still() {
        tick();
        let (moment, wall) = (recent(), recent_wall());
        tokio::time::advance(Duration::from_millis(7)).await;
        assert_eq!((recent(), recent_wall()), (moment, wall));
        assert_eq!(now(), moment.plus(Duration::from_millis(7)));
        tick();
        assert_eq!(recent(), now());
        rest();
        tokio::time::advance(Duration::from_millis(7)).await;
        assert_eq!(recent(), now());
    }
}
