//! Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing with Bounded Loads, 2016):
//! a request goes to the first instance from its key's place on that is usable and has room.
//!
//! An instance has room while the requests that it has in flight are less than `max_load` times its share of all that
//! are. Both are counted by the worker itself, which has its part of the same traffic.

use std::sync::atomic::Ordering::*;

use super::Picker;
use crate::service::groups::Group;

/// How far the search goes. Most of the points it meets belong to different instances.
const MAX_STEPS: usize = 128;
/// So many requests an instance may always have of one worker: few requests are no load, and belong where their key
/// does.
const ALWAYS: f64 = 8.0;
/// Where a key is among all, as far as groups are concerned. It has nothing to do with its place on a group's ring.
pub(super) fn place_among_groups(key: u64) -> u32 {
    ((key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Picker<'_> {
    /// The instance of the group that `key` belongs to at present. Where all that were found are full, it is the least
    /// busy of them.
    pub(super) fn by_key(&self, group: usize, key: u64) -> Option<usize> {
        let Group { ring, first, .. } = &self.set.groups[group];
        let fair = self.max_load.map(|most| most * self.load_per_weight(group));
        let mut least: Option<(usize, f64)> = None;
        let mut beginner = None;
        // An instance that begins gets its keys one by one, not each request of all by chance.
        let chance = (key as u32) as f64 / 2f64.powi(32);
        let places = ring.get()?.from(key).take(MAX_STEPS).map(|place| first + place);
        for index in places.filter(|&index| self.is_candidate(index)) {
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

    /// The requests that the worker has in flight in a group, this one included, for each unit of usable weight.
    fn load_per_weight(&self, group: usize) -> f64 {
        // With several groups it has been counted on already.
        let survey = if self.set.groups.len() > 1 { self.known() } else { self.survey() };
        let in_flight = f64::from(self.in_flight.of(self.worker).load(Relaxed) + 1);
        in_flight * survey.share(group) / survey.usable_weight(group).max(1.0)
    }
}
