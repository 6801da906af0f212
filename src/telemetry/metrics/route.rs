//! What happened to the requests of one route.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::cells::{Count, Distribution, Histogram, LazyPerWorker, Padded, nanoseconds};
use super::status::{self, StatusCounts};
use crate::per_worker::WorkerId;
use crate::reason::Reason;

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    pub status: u16,
    /// Why the gateway answered by itself.
    pub reason: Option<Reason>,
    /// From the request's head to the response's last byte.
    pub duration: Duration,
    /// The part of it that was spent waiting for instances.
    pub upstream: Option<Duration>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

#[derive(Debug)]
pub struct RouteMetrics {
    name: Arc<str>,
    shards: LazyPerWorker<Shard>,
}

/// What one worker counts of a route, for the worker to keep.
#[derive(Clone, Debug)]
pub struct RouteCounts(Arc<Padded<Shard>>);

/// With many routes each is out of the nearer caches when a request comes: what nearly every one writes is one cache
/// line, and the buckets of the histogram follow.
#[derive(Debug, Default)]
#[repr(C)]
struct Shard {
    active: Count,
    upstream_nanos: Count,
    bytes_in: Count,
    bytes_out: Count,
    statuses: StatusCounts,
    duration: Histogram,
    /// By [`Reason::index`].
    reasons: OnceLock<Box<[Count]>>,
}

impl RouteMetrics {
    pub(super) fn new(name: Arc<str>, workers: usize) -> Self {
        RouteMetrics { name, shards: LazyPerWorker::new(workers) }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn counts(&self, worker: WorkerId) -> RouteCounts {
        RouteCounts(self.shards.shared(worker).clone())
    }

    pub(super) fn is_unused(&self) -> bool {
        self.shards.is_unused()
    }

    pub(super) fn active(&self) -> i64 {
        self.shards.sum(|shard| shard.active.value()) as i64
    }

    pub(super) fn statuses(&self) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
        status::totals(self.shards.all().map(|shard| &shard.statuses))
    }

    pub(super) fn durations(&self) -> Distribution {
        Distribution::of(self.shards.all().map(|shard| &shard.duration))
    }

    pub(super) fn upstream_seconds(&self) -> f64 {
        self.shards.sum(|shard| shard.upstream_nanos.value()) as f64 / 1e9
    }

    pub(super) fn bytes_in(&self) -> u64 {
        self.shards.sum(|shard| shard.bytes_in.value())
    }

    pub(super) fn bytes_out(&self) -> u64 {
        self.shards.sum(|shard| shard.bytes_out.value())
    }

    /// Those that occurred.
    pub(super) fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts: Vec<_> = self.shards.all().filter_map(|shard| shard.reasons.get()).collect();
        Reason::ALL.iter().filter_map(move |reason| {
            let total = counts.iter().map(|of_worker| of_worker[reason.index()].value()).sum();
            (total > 0).then_some((reason.code(), total))
        })
    }
}

impl RouteCounts {
    /// A request begins. It must end with exactly one [`finish`](Self::finish), however it ends.
    pub fn begin(&self) {
        self.0.0.active.add(1);
    }

    pub fn finish(&self, end: &Finished) {
        let shard = &self.0.0;
        shard.active.subtract(1);
        shard.statuses.record(end.status);
        shard.duration.record(end.duration);
        shard.bytes_in.add(end.bytes_in);
        shard.bytes_out.add(end.bytes_out);
        if let Some(upstream) = end.upstream {
            shard.upstream_nanos.add(nanoseconds(upstream));
        }
        if let Some(reason) = end.reason {
            let counts = || Reason::ALL.iter().map(|_| Count::default()).collect();
            shard.reasons.get_or_init(counts)[reason.index()].add(1);
        }
    }
}
