//! How failures weigh in what an instance's load is taken to be.

use std::sync::atomic::{AtomicU64, Ordering::*};

use super::UNIT;
use crate::clock::Millis;

/// What makes a failing instance look busy rather than idle. Each failure counts like a request that is
/// still in flight, and half of that is forgotten every half second; without it, the instance that fails
/// fastest would have the fewest requests in flight and draw all the others.
#[derive(Debug, Default)]
pub struct Penalty(AtomicU64);

const PENALTY_HALF_LIFE_MS: u64 = 500;
/// 64 failures: forgotten three seconds after the last of them, however many there were.
const MAX_PENALTY: u64 = 64 * UNIT;
const PENALTY_BITS: u32 = 16;

impl Penalty {
    pub fn add(&self, now: Millis) {
        let raised = (self.at(now) + UNIT).min(MAX_PENALTY);
        self.0.store(now.0 << PENALTY_BITS | raised, Relaxed);
    }

    pub fn at(&self, now: Millis) -> u64 {
        let word = self.0.load(Relaxed);
        let value = word & ((1 << PENALTY_BITS) - 1);
        if value == 0 {
            return 0;
        }
        let age = now.0.saturating_sub(word >> PENALTY_BITS);
        let (halvings, rest) = (age / PENALTY_HALF_LIFE_MS, age % PENALTY_HALF_LIFE_MS);
        // Between two halvings a straight line is close enough to the curve.
        let value = value.checked_shr(halvings as u32).unwrap_or(0);
        value - value * rest / (2 * PENALTY_HALF_LIFE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_penalty_fades_by_half_every_half_second() {
        let penalty = Penalty::default();
        for _ in 0..4 {
            penalty.add(Millis(1000));
        }
        assert_eq!(penalty.at(Millis(1000)), 4 * UNIT);
        assert_eq!(penalty.at(Millis(1250)), 3 * UNIT);
        assert_eq!(penalty.at(Millis(1500)), 2 * UNIT);
        assert_eq!(penalty.at(Millis(2000)), UNIT);
        assert_eq!(penalty.at(Millis(1_000_000_000)), 0);
        for _ in 0..1000 {
            penalty.add(Millis(3000));
        }
        assert_eq!(penalty.at(Millis(3000)), MAX_PENALTY);
        assert!(penalty.at(Millis(6000)) <= UNIT);
    }
}
