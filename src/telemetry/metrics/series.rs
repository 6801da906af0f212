//! Metrics by name: the same name gives the same object for as long as anybody uses it, and for
//! [`KEPT_UNUSED`] after that, so that its last numbers are scraped and a reload that takes a route
//! out and in again does not set its counters back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{self, Millis};

const KEPT_UNUSED: Duration = Duration::from_secs(600);
/// When there are more unused ones than this, they are all dropped at once.
const UNUSED_LIMIT: usize = 10_000;
/// Without scrapes, a look for unused ones is due after this many new ones.
const SWEEP_AFTER_NEW: usize = 1000;

#[derive(Debug)]
pub(super) struct Series<K, M> {
    inner: Mutex<Inner<K, M>>,
}

#[derive(Debug)]
struct Inner<K, M> {
    entries: BTreeMap<K, Entry<M>>,
    new_since_sweep: usize,
}

#[derive(Debug)]
struct Entry<M> {
    metrics: Arc<M>,
    unused_since: Option<Millis>,
}

impl<K, M> Default for Series<K, M> {
    fn default() -> Self {
        Series { inner: Mutex::new(Inner { entries: BTreeMap::new(), new_since_sweep: 0 }) }
    }
}

impl<K: Ord, M> Series<K, M> {
    pub(super) fn of(&self, key: K, make: impl FnOnce() -> M) -> Arc<M> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = inner.entries.get(&key) {
            return entry.metrics.clone();
        }
        if inner.new_since_sweep >= SWEEP_AFTER_NEW {
            inner.sweep(clock::now());
        }
        inner.new_since_sweep += 1;
        let metrics = Arc::new(make());
        inner.entries.insert(key, Entry { metrics: metrics.clone(), unused_since: None });
        metrics
    }

    /// In the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<M>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.sweep(clock::now());
        inner.entries.values().map(|entry| entry.metrics.clone()).collect()
    }
}

impl<K: Ord, M> Inner<K, M> {
    fn sweep(&mut self, now: Millis) {
        self.new_since_sweep = 0;
        let mut unused = 0;
        for entry in self.entries.values_mut() {
            // The only reference is ours. Nobody can take another meanwhile: that needs our lock.
            if Arc::strong_count(&entry.metrics) == 1 {
                entry.unused_since.get_or_insert(now);
                unused += 1;
            } else {
                entry.unused_since = None;
            }
        }
        let kept_for = if unused > UNUSED_LIMIT { Duration::ZERO } else { KEPT_UNUSED };
        self.entries.retain(|_, entry| entry.unused_since.is_none_or(|since| now.since(since) < kept_for));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_stays_a_while_and_then_goes() {
        let series = Series::<u32, &str>::default();
        let used = series.of(1, || "used");
        drop(series.of(2, || "left"));
        assert_eq!(series.all().len(), 2);

        tokio::time::advance(KEPT_UNUSED - Duration::from_secs(1)).await;
        assert_eq!(*series.of(2, || "made anew"), "left", "a name that comes back keeps its numbers");
        assert_eq!(series.all().len(), 2);

        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(series.all().len(), 1);
        assert_eq!(*series.of(2, || "made anew"), "made anew");
        assert_eq!(*series.of(1, || "made anew"), *used);
    }

    #[test]
    fn without_scrapes_the_unused_are_bounded_too() {
        let series = Series::<usize, usize>::default();
        for n in 0..3 * UNUSED_LIMIT {
            drop(series.of(n, || n));
        }
        assert!(series.inner.lock().unwrap().entries.len() <= UNUSED_LIMIT + SWEEP_AFTER_NEW);
    }
}
