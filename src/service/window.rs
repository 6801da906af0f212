//! One worker's counts of requests and failures over a sliding window of ten buckets.
//!
//! Only its worker writes a window, with plain stores; any worker may read it. Counts belong to one
//! epoch of the breaker: what happened before the breaker last opened says nothing about it now.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::time::Duration;

use crate::clock::Millis;

const BUCKETS: u64 = 10;
const TICK_BITS: u32 = 24;
const COUNT_BITS: u32 = 20;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

#[derive(Debug, Default)]
pub(super) struct Window {
    epoch: AtomicU32,
    /// Each one word of tick, requests and failures, so that a reader never sees half of a bucket.
    buckets: [AtomicU64; BUCKETS as usize],
}

/// What the buckets of one or more windows add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub requests: u64,
    pub failures: u64,
}

impl Window {
    /// Counts one result. To be called by the window's own worker only.
    pub fn record(&self, epoch: u16, now: Millis, length: Duration, failed: bool) {
        if self.epoch.load(Relaxed) != u32::from(epoch) {
            for bucket in &self.buckets {
                bucket.store(0, Relaxed);
            }
            self.epoch.store(u32::from(epoch), Release);
        }
        let tick = tick(now, length);
        let slot = &self.buckets[(tick % BUCKETS) as usize];
        let mut bucket = Bucket::unpack(slot.load(Relaxed));
        if bucket.tick != tick & TICK_MASK {
            bucket = Bucket { tick: tick & TICK_MASK, counts: Counts::default() };
        }
        // A full bucket stops counting altogether, which keeps its ratio right.
        if bucket.counts.requests < COUNT_MASK {
            bucket.counts.requests += 1;
            bucket.counts.failures += u64::from(failed);
            slot.store(bucket.pack(), Relaxed);
        }
    }

    /// What was counted in `epoch` during the `length` that ends now, to the nearest tenth.
    pub fn counts(&self, epoch: u16, now: Millis, length: Duration) -> Counts {
        let mut sum = Counts::default();
        if self.epoch.load(Acquire) != u32::from(epoch) {
            return sum;
        }
        let tick = tick(now, length);
        for bucket in &self.buckets {
            let bucket = Bucket::unpack(bucket.load(Relaxed));
            if tick.wrapping_sub(bucket.tick) & TICK_MASK < BUCKETS {
                sum.requests += bucket.counts.requests;
                sum.failures += bucket.counts.failures;
            }
        }
        sum
    }
}

/// The number of the bucket that `now` falls in, counted from the start of the process.
fn tick(now: Millis, length: Duration) -> u64 {
    now.0 / (length.as_millis() as u64 / BUCKETS).max(1)
}

struct Bucket {
    tick: u64,
    counts: Counts,
}

impl Bucket {
    fn pack(&self) -> u64 {
        self.tick << (2 * COUNT_BITS) | self.counts.requests << COUNT_BITS | self.counts.failures
    }

    fn unpack(word: u64) -> Self {
        Bucket {
            tick: word >> (2 * COUNT_BITS),
            counts: Counts { requests: word >> COUNT_BITS & COUNT_MASK, failures: word & COUNT_MASK },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn counts(window: &Window, now: u64) -> (u64, u64) {
        let counts = window.counts(0, Millis(now), LENGTH);
        (counts.requests, counts.failures)
    }

    #[test]
    fn old_buckets_leave_the_window_one_by_one() {
        let window = Window::default();
        for second in 0..10 {
            window.record(0, Millis(second * 1000), LENGTH, second % 2 == 0);
        }
        assert_eq!(counts(&window, 9_999), (10, 5));
        assert_eq!(counts(&window, 10_000), (9, 4));
        assert_eq!(counts(&window, 18_999), (1, 0));
        assert_eq!(counts(&window, 19_000), (0, 0));
    }

    #[test]
    fn another_epoch_starts_from_nothing() {
        let window = Window::default();
        window.record(0, Millis(5), LENGTH, true);
        assert_eq!(window.counts(1, Millis(5), LENGTH), Counts::default());
        window.record(1, Millis(6), LENGTH, false);
        assert_eq!(window.counts(1, Millis(6), LENGTH), Counts { requests: 1, failures: 0 });
        assert_eq!(window.counts(0, Millis(6), LENGTH), Counts::default());
    }

    #[test]
    fn a_full_bucket_keeps_its_ratio() {
        let window = Window::default();
        for turn in 0..(COUNT_MASK + 1000) {
            window.record(0, Millis(0), LENGTH, turn % 2 == 0);
        }
        let counts = window.counts(0, Millis(0), LENGTH);
        assert_eq!(counts.requests, COUNT_MASK);
        assert_eq!(counts.failures, COUNT_MASK.div_ceil(2));
    }

    #[test]
    fn an_extreme_length_is_no_division_by_zero() {
        let window = Window::default();
        window.record(0, Millis(7), Duration::ZERO, true);
        assert_eq!(window.counts(0, Millis(7), Duration::ZERO), Counts { requests: 1, failures: 1 });
    }
}
