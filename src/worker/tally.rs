//! Requests that are not in the counts of their routes yet.
//!
//! Among many routes, the counts of each are out of the nearer caches when a request of it begins or ends.
//! If they were written there and then, every request would wait for its own; a batch of them is fetched at the
//! same time. Until a batch is full, they wait here for the worker's next pulse, or for a scrape.

use std::cell::RefCell;

use super::CurrentRoute;
use crate::telemetry::metrics::Finished;

/// So many are a few KiB here, and more than a processor fetches at once.
const BATCH: usize = 32;
/// Where many begin before any ends.
const BEGUN: usize = 2 * BATCH;

#[derive(Default)]
pub struct Tally {
    begun: RefCell<Vec<CurrentRoute>>,
    ended: RefCell<Vec<(CurrentRoute, Finished)>>,
}

impl Tally {
    /// It must be followed by exactly one [`ended`](Self::ended).
    pub fn began(&self, route: CurrentRoute) {
        let mut begun = self.begun.borrow_mut();
        begun.push(route);
        let is_full = begun.len() >= BEGUN;
        drop(begun);
        if is_full {
            self.settle();
        }
    }

    pub fn ended(&self, route: CurrentRoute, finished: Finished) {
        let mut ended = self.ended.borrow_mut();
        ended.push((route, finished));
        let is_full = ended.len() >= BATCH;
        drop(ended);
        if is_full {
            self.settle();
        }
    }

    /// Adds them to the counts. Those that began come first: nothing is done with them but to fetch their counts,
    /// where most of those that ended find theirs then.
    pub fn settle(&self) {
        self.begun.borrow_mut().drain(..).for_each(|route| route.counts().begin());
        self.ended.borrow_mut().drain(..).for_each(|(route, finished)| route.counts().finish(&finished));
    }
}
