//! What outlier detection counts of an instance: one worker's own numbers, written by nobody else.
//!
//! They only ever grow, and wrap. The control side adds those of all workers up once in an interval and takes the
//! difference, so that nobody has to set them back and no worker waits for another's cache line.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// A quarter of an octave is 19 per cent: near enough for "three times as long".
const PER_OCTAVE: u32 = 4;
/// From a microsecond to half a minute.
const OCTAVES: u32 = 25;
const BUCKETS: usize = (PER_OCTAVE * OCTAVES) as usize;

#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: AtomicU32,
    failures: AtomicU32,
    /// Failures since the last success, or since a run was noted.
    run: AtomicU32,
    runs: AtomicU32,
    /// How long good answers took; made by the control side where that is wanted.
    times: OnceLock<Box<[AtomicU32; BUCKETS]>>,
}

/// The tallies of all workers, added up.
#[derive(Clone, Debug, PartialEq)]
pub struct Tallied {
    pub requests: u32,
    /// Of them.
    pub failures: u32,
    /// Times that one worker saw as many failures in a row as are asked for.
    pub runs: u32,
    times: [u32; BUCKETS],
}

fn add(cell: &AtomicU32, more: u32) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

impl Tally {
    /// A request has ended. `run_of` failures in a row are noted as a run.
    pub fn record(&self, failed: bool, run_of: u32) {
        add(&self.requests, 1);
        if !failed {
            if self.run.load(Relaxed) != 0 {
                self.run.store(0, Relaxed);
            }
            return;
        }
        add(&self.failures, 1);
        add(&self.run, 1);
        if self.run.load(Relaxed) >= run_of {
            self.run.store(0, Relaxed);
            add(&self.runs, 1);
        }
    }

    /// A good answer took so long.
    pub fn answered(&self, took: Duration) {
        if let Some(times) = self.times.get() {
            add(&times[bucket(took)], 1);
        }
    }

    /// From now on, how long answers take is wanted, too.
    pub fn keep_times(&self) {
        self.times.get_or_init(|| Box::new([const { AtomicU32::new(0) }; BUCKETS]));
    }
}

impl Default for Tallied {
    fn default() -> Self {
        Tallied { requests: 0, failures: 0, runs: 0, times: [0; BUCKETS] }
    }
}

impl Tallied {
    pub(super) fn of<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Self {
        let mut sum = Tallied::default();
        for tally in tallies {
            sum.requests = sum.requests.wrapping_add(tally.requests.load(Relaxed));
            sum.failures = sum.failures.wrapping_add(tally.failures.load(Relaxed));
            sum.runs = sum.runs.wrapping_add(tally.runs.load(Relaxed));
            for (sum, bucket) in
                sum.times.iter_mut().zip(tally.times.get().into_iter().flat_map(|t| t.iter()))
            {
                *sum = sum.wrapping_add(bucket.load(Relaxed));
            }
        }
        sum
    }

    /// What has come to it since `before`.
    pub fn since(&self, before: &Tallied) -> Tallied {
        let mut times = self.times;
        times.iter_mut().zip(&before.times).for_each(|(now, before)| *now = now.wrapping_sub(*before));
        Tallied {
            requests: self.requests.wrapping_sub(before.requests),
            failures: self.failures.wrapping_sub(before.failures),
            runs: self.runs.wrapping_sub(before.runs),
            times,
        }
    }

    /// Good answers whose time was taken.
    pub fn timed(&self) -> u64 {
        self.times.iter().map(|&count| u64::from(count)).sum()
    }

    /// What the answer in the middle took; `None` without any.
    pub fn median(&self) -> Option<Duration> {
        let mut left = self.timed() as f64 / 2.0;
        for (index, &count) in self.times.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = f64::from(count);
            if left <= count {
                let micros = lower(index) + (lower(index + 1) - lower(index)) * left / count;
                return Some(Duration::from_secs_f64(micros / 1e6));
            }
            left -= count;
        }
        None
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, (1 << OCTAVES) - 1);
    let octave = micros.ilog2();
    let part = ((micros << PER_OCTAVE.ilog2()) >> octave) as u32 - PER_OCTAVE;
    (octave * PER_OCTAVE + part) as usize
}

/// The lower end of a bucket, in microseconds.
fn lower(index: usize) -> f64 {
    let (octave, part) = (index as u32 / PER_OCTAVE, index as u32 % PER_OCTAVE);
    2f64.powi(octave as i32) * (1.0 + f64::from(part) / f64::from(PER_OCTAVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tally: &Tally) -> (u32, u32, u32) {
        let sum = Tallied::of([tally].into_iter());
        (sum.requests, sum.failures, sum.runs)
    }

    #[test]
    fn a_run_is_noted_when_it_is_long_enough_and_then_another_begins() {
        let tally = Tally::default();
        for failed in [true, true, false, true, true] {
            tally.record(failed, 3);
        }
        assert_eq!(told(&tally), (5, 4, 0));
        tally.record(true, 3);
        assert_eq!(told(&tally), (6, 5, 1));
        (0..3).for_each(|_| tally.record(true, 3));
        assert_eq!(told(&tally), (9, 8, 2));
        tally.record(true, 1);
        assert_eq!(told(&tally), (10, 9, 3), "what counts as a run may change");
    }

    #[test]
    fn workers_are_added_up_and_numbers_may_wrap() {
        let (one, other) = (Tally::default(), Tally::default());
        one.requests.store(u32::MAX, Relaxed);
        other.record(true, 9);
        let before = Tallied::of([&one, &other].into_iter());
        one.record(false, 9);
        other.record(true, 9);
        let now = Tallied::of([&one, &other].into_iter());
        let since = now.since(&before);
        assert_eq!((since.requests, since.failures, since.runs), (2, 1, 0));
    }

    #[test]
    fn the_middle_of_the_times_is_found_to_a_fifth() {
        let tally = Tally::default();
        tally.answered(Duration::from_millis(5));
        assert_eq!(Tallied::of([&tally].into_iter()).median(), None, "nobody wants to know");
        tally.keep_times();
        let before = Tallied::of([&tally].into_iter());
        for ms in 1..=99 {
            tally.answered(Duration::from_millis(ms));
        }
        tally.answered(Duration::MAX);
        tally.answered(Duration::ZERO);
        tally.keep_times();
        let since = Tallied::of([&tally].into_iter()).since(&before);
        assert_eq!(since.timed(), 101);
        let median = since.median().expect("there are some").as_secs_f64();
        assert!((0.042..0.058).contains(&median), "{median}");
    }
}
