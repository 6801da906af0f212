//! Monotonic milliseconds since the process began, cheap to keep in an atomic.
//!
//! It reads tokio's clock, so tests of anything timed run on the paused clock.

use std::sync::OnceLock;
use std::time::Duration;

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

impl Millis {
    /// The moment of a reading of the clock that somebody has made already.
    pub fn of(instant: Instant) -> Millis {
        Millis(instant.saturating_duration_since(start()).as_millis() as u64)
    }

    pub fn plus(self, duration: Duration) -> Millis {
        Millis(self.0.saturating_add(duration.as_millis() as u64))
    }

    /// The time from `earlier` to this moment, zero when `earlier` is later.
    pub fn since(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
