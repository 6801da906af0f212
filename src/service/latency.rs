//! How long an instance takes to answer, as one worker has seen it of late.
//!
//! A moving average that is quick to rise and slow to fall: an answer slower than it takes its place, faster ones
//! bring it down by half in each half-life. What was measured is only ever used beside what is known of another
//! instance, and counts the less the longer ago it was beside that: so an instance that was slow, and got
//! nothing since, is tried again before long.
//!
//! Invariants: an instance of which no answer has come is taken to be as fast as the one that it is compared with, so that
//! a new one neither draws all requests nor has to wait for any. What is no good answer (a failure, an answer that
//! nobody waited for any longer) can make an instance look slower and never faster.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::Duration;

use crate::clock::Millis;

const HALF_LIFE_MS: f64 = 2_500.0;
/// From so long ago on, nothing is known: eight half-lives.
const FORGOTTEN: Duration = Duration::from_secs(20);

/// One worker's own, written by nobody else.
#[derive(Debug, Default)]
pub(super) struct Latency {
    cost_us: AtomicU64,
    at_ms: AtomicU64,
    /// A good answer has come. Without one, the cost is what waiting in vain has shown it to be at least.
    answered: AtomicBool,
}

/// What a [`Latency`] knows at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Known {
    pub cost_us: f64,
    pub at: Millis,
    pub answered: bool,
}

impl Latency {
    /// The head of a good answer came after so long.
    pub fn answered(&self, took: Duration, now: Millis) {
        let known = self.known();
        let took = micros(took);
        let cost = if !known.answered || took >= known.cost_us {
            took
        } else {
            took + (known.cost_us - took) * weight(now.since(known.at))
        };
        self.store(cost, now);
        self.answered.store(true, Relaxed);
    }

    /// So long was waited, and no good answer came.
    pub fn waited_in_vain(&self, waited: Duration, now: Millis) {
        let waited = micros(waited);
        if waited > self.known().cost_us {
            self.store(waited, now);
        }
    }

    /// What was learnt after a moment, if that is one.
    pub fn known_after(&self, moment: Millis) -> Known {
        let known = self.known();
        let is_forgotten = moment != Millis::default() && known.at <= moment;
        if is_forgotten { Known { cost_us: 0.0, at: Millis::default(), answered: false } } else { known }
    }

    /// What was learnt up to a moment counts no more, if that is one.
    pub fn forget_before(&self, moment: Millis) {
        if moment != Millis::default() && self.answered_or_waited() && self.known().at <= moment {
            self.store(0.0, Millis::default());
            self.answered.store(false, Relaxed);
        }
    }

    fn answered_or_waited(&self) -> bool {
        self.cost_us.load(Relaxed) != 0
    }

    pub fn known(&self) -> Known {
        Known {
            cost_us: self.cost_us.load(Relaxed) as f64,
            at: Millis(self.at_ms.load(Relaxed)),
            answered: self.answered.load(Relaxed),
        }
    }

    fn store(&self, cost_us: f64, now: Millis) {
        self.cost_us.store(cost_us as u64, Relaxed);
        self.at_ms.store(now.0, Relaxed);
    }
}

impl Known {
    /// What each of two instances costs, where both are to be chosen from: microseconds, above zero.
    pub fn beside(self, other: Known) -> (f64, f64) {
        (self.cost_beside(other), other.cost_beside(self))
    }

    fn cost_beside(self, other: Known) -> f64 {
        if self.answered && !other.answered {
            return self.cost_us.max(1.0);
        }
        let others = if other.answered { other.cost_us } else { 1.0 };
        let own = if self.answered { self.cost_us } else { self.cost_us.max(others) };
        (others + (own - others) * weight(other.at.since(self.at))).max(1.0)
    }
}

/// How much of a value that is so old still counts, from 1 down to 0.
fn weight(age: Duration) -> f64 {
    if age >= FORGOTTEN { 0.0 } else { (-(age.as_millis() as f64) / HALF_LIFE_MS).exp2() }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64().min(3600.0) * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn cost_ms(latency: &Latency) -> f64 {
        (latency.known().cost_us / 1000.0).round()
    }

    fn known(cost_us: f64, at: u64) -> Known {
        Known { cost_us, at: Millis(at), answered: true }
    }

    #[test]
    fn it_rises_at_once_and_falls_by_half_in_a_half_life() {
        let latency = Latency::default();
        latency.answered(ms(10), Millis(0));
        assert_eq!(cost_ms(&latency), 10.0);
        latency.answered(ms(90), Millis(1));
        assert_eq!(cost_ms(&latency), 90.0);
        latency.answered(ms(10), Millis(2501));
        assert_eq!(cost_ms(&latency), 50.0);
        latency.answered(ms(10), Millis(2501));
        assert_eq!(cost_ms(&latency), 50.0, "no time has passed");
        latency.answered(ms(10), Millis(100_000));
        assert_eq!(cost_ms(&latency), 10.0, "what was so long ago is forgotten");
    }

    #[test]
    fn waiting_in_vain_makes_it_slower_and_never_faster() {
        let latency = Latency::default();
        latency.answered(ms(10), Millis(0));
        latency.waited_in_vain(ms(1), Millis(1));
        assert_eq!(latency.known(), known(10_000.0, 0));
        latency.waited_in_vain(ms(2000), Millis(2000));
        assert_eq!(latency.known(), known(2_000_000.0, 2000));
    }

    #[test]
    fn what_was_learnt_before_it_came_back_is_forgotten() {
        let latency = Latency::default();
        latency.waited_in_vain(ms(2000), Millis(3000));
        assert_eq!(latency.known_after(Millis(2999)).cost_us, 2_000_000.0);
        assert_eq!(latency.known_after(Millis(0)).cost_us, 2_000_000.0, "it never was away");
        let other = known(7_000.0, 3000);
        assert_eq!(latency.known_after(Millis(3000)).beside(other), (7_000.0, 7_000.0));
        latency.forget_before(Millis(3000));
        latency.answered(ms(8), Millis(3001));
        assert_eq!(latency.known(), known(8_000.0, 3001));
        latency.forget_before(Millis(3000));
        assert_eq!(latency.known(), known(8_000.0, 3001));
    }

    #[test]
    fn an_unknown_one_is_as_fast_as_the_other() {
        let nothing = Latency::default().known();
        assert_eq!(nothing.beside(known(7_000.0, 5)), (7_000.0, 7_000.0));
        assert_eq!(nothing.beside(nothing), (1.0, 1.0));
        let in_vain = Latency::default();
        in_vain.waited_in_vain(ms(1), Millis(5));
        assert_eq!(in_vain.known().beside(known(7_000.0, 5)), (7_000.0, 7_000.0), "failing fast is not fast");
        in_vain.waited_in_vain(ms(100), Millis(5));
        assert_eq!(in_vain.known().beside(known(7_000.0, 5)), (100_000.0, 7_000.0));
        assert_eq!(in_vain.known().beside(nothing), (100_000.0, 1.0));
    }

    #[test]
    fn a_slow_one_that_gets_nothing_comes_nearer_to_the_other() {
        let slow = known(90_000.0, 0);
        assert_eq!(slow.beside(known(10_000.0, 0)), (90_000.0, 10_000.0));
        assert_eq!(slow.beside(known(10_000.0, 2_500)), (50_000.0, 10_000.0));
        assert_eq!(slow.beside(known(10_000.0, 20_000)), (10_000.0, 10_000.0));
        assert_eq!(known(10_000.0, 0).beside(known(90_000.0, 60_000)), (90_000.0, 90_000.0));
    }
}
