//! The numbers themselves: counts and histograms that one thread writes and any may read.
//!
//! Because a cell has one writer, adding to it is a plain load and store.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::per_worker::WorkerId;

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Only ever called by the one thread that this cell belongs to.
    pub(super) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Likewise. The sum over all workers may still be right when one worker's count wraps.
    pub(super) fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// Likewise.
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the histograms' buckets, in seconds. What is longer falls into one more bucket.
pub(super) const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

const BOUNDS_NANOS: [u64; BOUNDS.len()] = {
    let mut nanos = [0; BOUNDS.len()];
    let mut i = 0;
    while i < nanos.len() {
        // All bounds are whole numbers of microseconds; adding a half rounds away the binary error.
        nanos[i] = (BOUNDS[i] * 1e6 + 0.5) as u64 * 1000;
        i += 1;
    }
    nanos
};

#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Histogram {
    sum_nanos: Count,
    buckets: [Count; BUCKETS],
}

impl Histogram {
    pub(super) fn record(&self, duration: Duration) {
        let nanos = nanoseconds(duration);
        // Counting the smaller bounds compares all of them without a branch.
        let bucket: usize = BOUNDS_NANOS.iter().map(|&bound| usize::from(nanos > bound)).sum();
        self.buckets[bucket].add(1);
        self.sum_nanos.add(nanos);
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Histograms of several workers, added up.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Distribution {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum_seconds: f64,
}

impl Distribution {
    pub(super) fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut all = Distribution::default();
        for histogram in histograms {
            for (total, bucket) in all.buckets.iter_mut().zip(&histogram.buckets) {
                *total += bucket.value();
            }
            all.sum_seconds += histogram.sum_nanos.value() as f64 / 1e9;
        }
        all
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// One `T` for each worker, each made when its worker first needs it, on cache lines of its own:
/// what is never used costs a pointer.
#[derive(Debug)]
pub(super) struct LazyPerWorker<T> {
    workers: usize,
    slots: OnceLock<Box<[Slot<T>]>>,
}

type Slot<T> = OnceLock<Arc<Padded<T>>>;

/// 128 bytes: x86 fetches cache lines in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(super) struct Padded<T>(pub(super) T);

impl<T: Default> LazyPerWorker<T> {
    pub(super) fn new(workers: usize) -> Self {
        LazyPerWorker { workers: workers.max(1), slots: OnceLock::new() }
    }

    pub(super) fn of(&self, worker: WorkerId) -> &T {
        &self.shared(worker).0
    }

    /// The same, to be kept by the worker.
    pub(super) fn shared(&self, worker: WorkerId) -> &Arc<Padded<T>> {
        let slots = self.slots.get_or_init(|| (0..self.workers).map(|_| OnceLock::new()).collect());
        slots[worker.0].get_or_init(Arc::default)
    }

    /// Those that exist.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.slots.get().into_iter().flatten().filter_map(|slot| slot.get()).map(|padded| &padded.0)
    }

    pub(super) fn sum(&self, cell: impl Fn(&T) -> u64) -> u64 {
        self.all().map(cell).fold(0, u64::wrapping_add)
    }

    pub(super) fn is_unused(&self) -> bool {
        self.all().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_belongs_to_that_bound() {
        for (bucket, nanos) in BOUNDS_NANOS.into_iter().enumerate() {
            for (duration, expected) in [(nanos, bucket), (nanos + 1, bucket + 1)] {
                let histogram = Histogram::default();
                histogram.record(Duration::from_nanos(duration));
                let all = Distribution::of([&histogram].into_iter());
                assert_eq!(all.buckets.iter().position(|&count| count == 1), Some(expected));
                assert_eq!((all.count(), all.sum_seconds), (1, duration as f64 / 1e9));
            }
        }
        assert_eq!(
            (BOUNDS_NANOS[0], BOUNDS_NANOS[2], BOUNDS_NANOS[13]),
            (500_000, 2_500_000, 10_000_000_000)
        );
    }

    #[test]
    fn workers_are_added_up_and_made_when_needed() {
        let counts = LazyPerWorker::<Count>::new(4);
        assert!(counts.is_unused());
        counts.of(WorkerId(3)).add(7);
        counts.of(WorkerId(0)).subtract(2);
        assert_eq!(counts.all().count(), 2);
        assert_eq!(counts.sum(Count::value), 5);
    }
}
