//! What the workers see of a service's answers, brought to where the limit is found.
//!
//! A window is closed by whoever brings the answer that ends it. Others who come at that moment go on: nobody waits for the lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::gradient::{Bounds, Gradient, Step, Window};
use crate::clock::Millis;
use crate::service::samples::Samples;

#[derive(Debug)]
pub struct Adaptive {
    samples: Samples,
    peak: AtomicU32,
    /// What the present window ends with.
    ends_at: AtomicU64,
    needs: AtomicU32,
    counts_from: AtomicU64,
    gradient: Mutex<Gradient>,
}

/// An answer, as far as it tells how the service is.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub began: Millis,
    pub at: Millis,
    /// From the end of the request to the head of the response.
    pub took: Duration,
}

impl Adaptive {
    pub fn new(bounds: Bounds, now: Millis) -> Self {
        let gradient = Gradient::new(bounds);
        let first = gradient.first(now.0);
        Adaptive {
            samples: Samples::default(),
            peak: AtomicU32::new(0),
            ends_at: AtomicU64::new(first.ends_at),
            needs: AtomicU32::new(first.samples),
            counts_from: AtomicU64::new(first.counts_from),
            gradient: Mutex::new(gradient),
        }
    }

    /// Changes the bounds, and gives the limit between them.
    pub fn set(&self, bounds: Bounds) -> u32 {
        self.with(|gradient| gradient.set(bounds))
    }

    pub fn bounds(&self) -> Bounds {
        self.with(|gradient| gradient.bounds())
    }

    /// What an answer takes when the service has time for it.
    pub fn baseline(&self) -> Option<Duration> {
        self.with(|gradient| gradient.baseline()).map(|micros| Duration::from_micros(micros as u64))
    }

    /// Counts an answer that came while so many requests were in flight. A new limit, where a window ends with it.
    pub fn answered(&self, answered: Answered, in_flight: u32) -> Option<u32> {
        if in_flight > self.peak.load(Relaxed) {
            self.peak.fetch_max(in_flight, Relaxed);
        }
        if answered.began.0 < self.counts_from.load(Relaxed) {
            return None;
        }
        let count = self.samples.add(answered.took);
        if count < self.needs.load(Relaxed) || answered.at.0 < self.ends_at.load(Relaxed) {
            return None;
        }
        let mut gradient = self.gradient.try_lock().ok()?;
        if answered.at.0 < self.ends_at.load(Relaxed) {
            // Somebody else has closed it a moment ago.
            return None;
        }
        let micros = self.samples.take(0.5)?;
        let peak = self.peak.swap(in_flight, Relaxed);
        let Step { limit, ends_at, samples, counts_from } =
            gradient.step(Window { ends_at: answered.at.0, micros, peak });
        self.ends_at.store(ends_at, Relaxed);
        self.needs.store(samples, Relaxed);
        self.counts_from.store(counts_from, Relaxed);
        Some(limit)
    }

    /// On the control side.
    fn with<T>(&self, read: impl FnOnce(&mut Gradient) -> T) -> T {
        read(&mut self.gradient.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
