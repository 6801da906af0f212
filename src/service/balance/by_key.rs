//! Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing with Bounded Loads, 2016):
//! a request goes to the first instance from its key's place on that is usable and has room.
//!
//! An instance has room while the requests that it has in flight are less than `max_load` times its share of all that
//! are. Both are counted by the worker itself, which has its part of the same traffic.

use std::sync::atomic::Ordering::*;
use std::time::Duration;

use super::Picker;

/// How far the search goes. Most of the points it meets belong to different instances.
const MAX_STEPS: usize = 128;
/// So many requests an instance may always have of one worker: few requests are no load, and belong where their key
/// does.
const ALWAYS: f64 = 8.0;
/// How long the sum of the usable instances' weights is good for.
const RECOUNT_AFTER: Duration = Duration::from_millis(100);

impl Picker<'_> {
    /// The instance that `key` belongs to at present. Where all that were found are full, it is the least busy of them.
    pub(super) fn by_key(&self, key: u64) -> Option<usize> {
        let ring = self.set.ring()?;
        let fair = self.max_load.map(|most| most * self.load_per_weight());
        let mut least: Option<(usize, f64)> = None;
        let mut beginner = None;
        // An instance that begins gets its keys one by one, not each request of all by chance.
        let chance = (key as u32) as f64 / 2f64.powi(32);
        for index in ring.from(key).take(MAX_STEPS).filter(|&index| self.is_candidate(index)) {
            let instance = &self.set.member(index).instance;
            if self.share(instance) <= chance {
                beginner = beginner.or(Some(index));
                continue;
            }
            let Some(fair) = fair else { return Some(index) };
            let (load, weight) = (f64::from(instance.in_flight(self.worker)), f64::from(instance.weight()));
            if load < (fair * weight).ceil().max(ALWAYS) {
                return Some(index);
            }
            if least.is_none_or(|(_, least)| load / weight < least) {
                least = Some((index, load / weight));
            }
        }
        least.map(|(index, _)| index).or(beginner)
    }

    /// The requests that the worker has in flight, this one included, for each unit of usable weight.
    fn load_per_weight(&self) -> f64 {
        f64::from(self.in_flight.of(self.worker).load(Relaxed) + 1) / self.usable_weight()
    }

    fn usable_weight(&self) -> f64 {
        let cursor = self.cursors.of(self.worker);
        if self.now.0 >= cursor.recount_at.load(Relaxed) {
            let usable = self.set.instances().filter(|instance| self.is_usable(instance));
            let sum: u64 = usable.map(|instance| u64::from(instance.weight())).sum();
            cursor.usable_weight.store(sum, Relaxed);
            cursor.recount_at.store(self.now.plus(RECOUNT_AFTER).0, Relaxed);
        }
        cursor.usable_weight.load(Relaxed).max(1) as f64
    }
}
