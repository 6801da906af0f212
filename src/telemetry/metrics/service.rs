//! What a service's requests met beyond single instances.

use std::sync::Arc;

use super::cells::{Count, LazyPerWorker};
use crate::per_worker::WorkerId;
use crate::reason::Reason;

#[derive(Debug)]
pub struct ServiceMetrics {
    name: Arc<str>,
    shards: LazyPerWorker<Shard>,
}

#[derive(Debug, Default)]
struct Shard {
    retries: Count,
    retries_refused: Count,
    fallbacks: Count,
    stale: Count,
    hedges: Count,
    hedges_won: Count,
    hedges_refused: Count,
    over_limit: Count,
    queue_timeouts: Count,
}

impl ServiceMetrics {
    pub(super) fn new(name: Arc<str>, workers: usize) -> Self {
        ServiceMetrics { name, shards: LazyPerWorker::new(workers) }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// An attempt after the first was begun.
    pub fn retried(&self, worker: WorkerId) {
        self.shards.of(worker).retries.add(1);
    }

    /// A retry would have been made, but the budget was used up.
    pub fn retry_refused(&self, worker: WorkerId) {
        self.shards.of(worker).retries_refused.add(1);
    }

    /// A second attempt was begun while the first was under way.
    pub fn hedged(&self, worker: WorkerId) {
        self.shards.of(worker).hedges.add(1);
    }

    /// The second attempt's answer was the one to take.
    pub fn hedge_won(&self, worker: WorkerId) {
        self.shards.of(worker).hedges_won.add(1);
    }

    /// A second attempt would have been made, but the budget was used up.
    pub fn hedge_refused(&self, worker: WorkerId) {
        self.shards.of(worker).hedges_refused.add(1);
    }

    /// The service's `fallback` was sent.
    pub fn fell_back(&self, worker: WorkerId) {
        self.shards.of(worker).fallbacks.add(1);
    }

    /// The last good answer was given in place of an error.
    pub fn gave_stale(&self, worker: WorkerId) {
        self.shards.of(worker).stale.add(1);
    }

    /// A request was refused because the service was at its limit and its queue was full.
    pub fn over_limit(&self, worker: WorkerId) {
        self.shards.of(worker).over_limit.add(1);
    }

    /// A request waited for the service, and its turn did not come in time.
    pub fn queue_timed_out(&self, worker: WorkerId) {
        self.shards.of(worker).queue_timeouts.add(1);
    }

    pub fn retries(&self) -> u64 {
        self.shards.sum(|shard| shard.retries.value())
    }

    pub fn hedges(&self) -> u64 {
        self.shards.sum(|shard| shard.hedges.value())
    }

    pub(super) fn hedges_won(&self) -> u64 {
        self.shards.sum(|shard| shard.hedges_won.value())
    }

    pub(super) fn hedges_refused(&self) -> u64 {
        self.shards.sum(|shard| shard.hedges_refused.value())
    }

    pub(super) fn retries_refused(&self) -> u64 {
        self.shards.sum(|shard| shard.retries_refused.value())
    }

    /// By reason.
    pub(super) fn concurrency_refused(&self) -> [(Reason, u64); 2] {
        [
            (Reason::ConcurrencyLimit, self.shards.sum(|shard| shard.over_limit.value())),
            (Reason::QueueTimeout, self.shards.sum(|shard| shard.queue_timeouts.value())),
        ]
    }

    pub(super) fn stale(&self) -> u64 {
        self.shards.sum(|shard| shard.stale.value())
    }

    pub(super) fn fallbacks(&self) -> u64 {
        self.shards.sum(|shard| shard.fallbacks.value())
    }
}
