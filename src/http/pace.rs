//! How slow a client may be: a least number of bytes a second over the time for which it was waited for.
//!
//! Only that time counts. Who is waited for by nobody, because the other side has the turn, is not slow.

use std::time::Duration;

/// What is asked of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Bytes a second; 0 asks for nothing.
    pub least: u64,
    /// So long it may take beyond what its bytes account for: connections stutter.
    pub grace: Duration,
}

impl Demand {
    pub const NONE: Demand = Demand { least: 0, grace: Duration::ZERO };
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// So long the client was waited for.
    waited: Duration,
    /// Bytes that have come, or were taken.
    moved: u64,
}

impl Pace {
    pub fn moved(&mut self, bytes: u64) {
        self.moved = self.moved.saturating_add(bytes);
    }

    pub fn waited(&mut self, time: Duration) {
        self.waited = self.waited.saturating_add(time);
    }

    /// So long it may be waited for yet.
    pub fn left(&self, demand: Demand) -> Duration {
        let Some(earned) = self.moved.saturating_mul(1000).checked_div(demand.least) else {
            return Duration::MAX;
        };
        demand.grace.saturating_add(Duration::from_millis(earned)).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_buy_time() {
        let demand = Demand { least: 100, grace: Duration::from_secs(10) };
        let mut pace = Pace::default();
        assert_eq!(pace.left(demand), demand.grace);
        pace.waited(Duration::from_secs(4));
        assert_eq!(pace.left(demand), Duration::from_secs(6));
        pace.moved(250);
        assert_eq!(pace.left(demand), Duration::from_millis(8500));
        pace.waited(Duration::from_secs(60));
        assert_eq!(pace.left(demand), Duration::ZERO);
        assert_eq!(pace.left(Demand::NONE), Duration::MAX);
        pace.moved(u64::MAX);
        assert!(pace.left(demand) > Duration::from_secs(60));
    }
}
