//! How long answers took, counted by all workers at once, to find the one in the middle.
//!
//! Buckets are a sixteenth of an octave wide, from a microsecond to half a minute.

use std::sync::atomic::{AtomicU32, Ordering::*};
use std::time::Duration;

const PER_OCTAVE: usize = 16;
const OCTAVES: usize = 25;

#[derive(Debug)]
pub struct Samples {
    count: AtomicU32,
    buckets: Box<[AtomicU32]>,
}

impl Default for Samples {
    fn default() -> Self {
        let buckets = (0..OCTAVES * PER_OCTAVE).map(|_| AtomicU32::new(0)).collect();
        Samples { count: AtomicU32::new(0), buckets }
    }
}

impl Samples {
    /// Counts one, and gives how many there are.
    pub fn add(&self, took: Duration) -> u32 {
        self.buckets[bucket(took)].fetch_add(1, Relaxed);
        self.count.fetch_add(1, Relaxed) + 1
    }

    /// Forgets all of them; what was at or below the given share of them, in microseconds. `None` when there are none.
    pub fn take(&self, share: f64) -> Option<f64> {
        self.count.store(0, Relaxed);
        let mut taken = [0; OCTAVES * PER_OCTAVE];
        for (taken, bucket) in taken.iter_mut().zip(&self.buckets) {
            if bucket.load(Relaxed) > 0 {
                *taken = bucket.swap(0, Relaxed);
            }
        }
        let all: u64 = taken.iter().map(|&count| u64::from(count)).sum();
        let mut left = all as f64 * share;
        for (index, count) in taken.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let count = f64::from(count);
            if left <= count {
                return Some(lower(index) + (lower(index + 1) - lower(index)) * left / count);
            }
            left -= count;
        }
        None
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, (1 << OCTAVES) - 1);
    let octave = micros.ilog2();
    let part = ((micros << PER_OCTAVE.ilog2()) >> octave) as usize - PER_OCTAVE;
    octave as usize * PER_OCTAVE + part
}

/// The lower end of a bucket, in microseconds.
fn lower(index: usize) -> f64 {
    let (octave, part) = (index / PER_OCTAVE, index % PER_OCTAVE);
    2f64.powi(octave as i32) * (1.0 + part as f64 / PER_OCTAVE as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found_to_a_sixteenth() {
        let samples = Samples::default();
        assert_eq!(samples.take(0.5), None);
        for typical in [1u64, 37, 1_000, 65_536, 20_000_000] {
            for part in 1..=100 {
                samples.add(Duration::from_micros(typical * part / 50));
            }
            let middle = samples.take(0.5).expect("there are some");
            assert!((middle / typical as f64 - 1.0).abs() < 0.07 || typical == 1, "{typical}: {middle}");
            assert_eq!(samples.take(0.5), None, "they are forgotten");
        }
    }

    #[test]
    fn no_duration_is_too_short_or_too_long() {
        for took in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(33), Duration::MAX] {
            let samples = Samples::default();
            assert_eq!(samples.add(took), 1);
            let micros = samples.take(1.0).expect("there is one");
            assert!((1.0..=33_554_432.0).contains(&micros), "{took:?} {micros}");
        }
    }
}
