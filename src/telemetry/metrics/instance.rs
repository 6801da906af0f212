//! What happened to the attempts at one instance of a service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::cells::{Count, Distribution, Histogram, LazyPerWorker};
use crate::per_worker::WorkerId;

/// How an attempt at an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With the head of a response of this status.
    Status(u16),
    ConnectFailure,
    ConnectTimeout,
    /// Its certificate is not accepted.
    TlsCertificate,
    /// TLS could not be agreed on for another reason.
    TlsFailure,
    TlsTimeout,
    /// None of the connections that the pool may have became free in time: the instance has seen nothing of it.
    PoolExhausted,
    ResponseTimeout,
    Reset,
    InvalidResponse,
    /// The client went away, or the attempt was no longer needed.
    Cancelled,
}

const LABELS: [&str; 15] = [
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "connect_failure",
    "connect_timeout",
    "pool_exhausted",
    "response_timeout",
    "reset",
    "invalid_response",
    "cancelled",
    "tls_certificate",
    "tls_failure",
    "tls_timeout",
];

impl Outcome {
    /// Where its label stands in [`LABELS`].
    fn index(self) -> usize {
        match self {
            // A status outside 100 to 599 is not HTTP, but an instance may send one.
            Outcome::Status(status) => usize::from((status / 100).clamp(1, 5)) - 1,
            Outcome::ConnectFailure => 5,
            Outcome::ConnectTimeout => 6,
            Outcome::PoolExhausted => 7,
            Outcome::ResponseTimeout => 8,
            Outcome::Reset => 9,
            Outcome::InvalidResponse => 10,
            Outcome::Cancelled => 11,
            Outcome::TlsCertificate => 12,
            Outcome::TlsFailure => 13,
            Outcome::TlsTimeout => 14,
        }
    }
}

#[derive(Debug)]
pub struct InstanceMetrics {
    service: Arc<str>,
    address: SocketAddr,
    /// The address as the label has it.
    label: String,
    shards: LazyPerWorker<Shard>,
}

#[derive(Debug, Default)]
struct Shard {
    outcomes: [Count; LABELS.len()],
    duration: Histogram,
}

impl InstanceMetrics {
    pub(super) fn new(service: Arc<str>, address: SocketAddr, workers: usize) -> Self {
        InstanceMetrics { service, address, label: address.to_string(), shards: LazyPerWorker::new(workers) }
    }

    pub fn service(&self) -> &Arc<str> {
        &self.service
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// An attempt has ended. `latency` is the time to the response's head, or to the failure; that
    /// of cancelled attempts says nothing about the instance and stays out of the histogram.
    pub fn record(&self, worker: WorkerId, outcome: Outcome, latency: Duration) {
        let shard = self.shards.of(worker);
        shard.outcomes[outcome.index()].add(1);
        if outcome != Outcome::Cancelled {
            shard.duration.record(latency);
        }
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn is_unused(&self) -> bool {
        self.shards.is_unused()
    }

    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let totals = (0..LABELS.len()).map(|index| (LABELS[index], self.total(index)));
        totals.filter(|&(_, count)| count > 0)
    }

    pub(super) fn durations(&self) -> Distribution {
        Distribution::of(self.shards.all().map(|shard| &shard.duration))
    }

    fn total(&self, index: usize) -> u64 {
        self.shards.sum(|shard| shard.outcomes[index].value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_their_labels_and_cancelled_ones_no_latency() {
        let metrics = InstanceMetrics::new("users".into(), "127.0.0.1:1".parse().unwrap(), 1);
        let all = [
            Outcome::Status(7),
            Outcome::Status(200),
            Outcome::Status(302),
            Outcome::Status(404),
            Outcome::Status(999),
            Outcome::ConnectFailure,
            Outcome::ConnectTimeout,
            Outcome::PoolExhausted,
            Outcome::ResponseTimeout,
            Outcome::Reset,
            Outcome::InvalidResponse,
            Outcome::Cancelled,
            Outcome::TlsCertificate,
            Outcome::TlsFailure,
            Outcome::TlsTimeout,
        ];
        for outcome in all {
            metrics.record(WorkerId(0), outcome, Duration::from_millis(1));
        }
        assert_eq!(metrics.outcomes().collect::<Vec<_>>(), LABELS.map(|label| (label, 1)));
        assert_eq!(metrics.durations().count(), 14);
    }
}
