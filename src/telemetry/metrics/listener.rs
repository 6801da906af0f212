//! The connections of one listener.

use std::sync::Arc;

use super::cells::{Count, LazyPerWorker};
use crate::per_worker::WorkerId;

#[derive(Debug)]
pub struct ListenerMetrics {
    name: Arc<str>,
    shards: LazyPerWorker<Shard>,
}

#[derive(Debug, Default)]
struct Shard {
    accepted: Count,
    active: Count,
    refused: Count,
    turned_away: Count,
    accept_failures: Count,
    floods: Count,
    tls_failures: [Count; TlsFailure::ALL.len()],
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// It took longer than `header_timeout`.
    Timeout,
    /// The client went away.
    Closed,
    /// It was no TLS, or wrong TLS.
    Malformed,
    /// The client has no version, suite or group that is accepted.
    Unsupported,
    /// The client wants to speak nothing that is spoken here (RFC 7301 §3.2).
    Protocol,
    /// The client showed no certificate, or one that is not believed.
    ClientCertificate,
    /// The client said no, as it does to a certificate that it doesn't trust.
    RefusedByClient,
    Other,
}

impl TlsFailure {
    const ALL: [TlsFailure; 8] = [
        TlsFailure::Timeout,
        TlsFailure::Closed,
        TlsFailure::Malformed,
        TlsFailure::Unsupported,
        TlsFailure::Protocol,
        TlsFailure::ClientCertificate,
        TlsFailure::RefusedByClient,
        TlsFailure::Other,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            TlsFailure::Timeout => "timeout",
            TlsFailure::Closed => "closed",
            TlsFailure::Malformed => "malformed",
            TlsFailure::Unsupported => "unsupported",
            TlsFailure::Protocol => "protocol",
            TlsFailure::ClientCertificate => "client_certificate",
            TlsFailure::RefusedByClient => "refused_by_client",
            TlsFailure::Other => "other",
        }
    }
}

impl ListenerMetrics {
    pub(super) fn new(name: Arc<str>, workers: usize) -> Self {
        ListenerMetrics { name, shards: LazyPerWorker::new(workers) }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A connection was accepted. It must end with exactly one [`closed`](Self::closed) on the same
    /// worker.
    pub fn accepted(&self, worker: WorkerId) {
        let shard = self.shards.of(worker);
        shard.accepted.add(1);
        shard.active.add(1);
    }

    pub fn closed(&self, worker: WorkerId) {
        self.shards.of(worker).active.subtract(1);
    }

    /// Accepting has to wait, because there are `max_connections` already.
    pub fn refused(&self, worker: WorkerId) {
        self.shards.of(worker).refused.add(1);
    }

    pub fn tls_failed(&self, worker: WorkerId, failure: TlsFailure) {
        self.shards.of(worker).tls_failures[failure as usize].add(1);
    }

    /// A client had as many connections as it may have, or began them too fast.
    pub fn turned_away(&self, worker: WorkerId) {
        self.shards.of(worker).turned_away.add(1);
    }

    /// The system gave no connection, mostly for want of file descriptors.
    pub fn accept_failed(&self, worker: WorkerId) {
        self.shards.of(worker).accept_failures.add(1);
    }

    /// A connection of HTTP/2 was ended for a flood.
    pub fn flooded(&self, worker: WorkerId) {
        self.shards.of(worker).floods.add(1);
    }

    pub(super) fn turned_away_total(&self) -> u64 {
        self.shards.sum(|shard| shard.turned_away.value())
    }

    pub(super) fn accept_failures_total(&self) -> u64 {
        self.shards.sum(|shard| shard.accept_failures.value())
    }

    pub(super) fn floods_total(&self) -> u64 {
        self.shards.sum(|shard| shard.floods.value())
    }

    pub(super) fn active_total(&self) -> i64 {
        self.shards.sum(|shard| shard.active.value()) as i64
    }

    pub(super) fn accepted_total(&self) -> u64 {
        self.shards.sum(|shard| shard.accepted.value())
    }

    pub(super) fn refused_total(&self) -> u64 {
        self.shards.sum(|shard| shard.refused.value())
    }

    /// By cause, of those that occurred.
    pub(super) fn tls_failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let total =
            |failure: TlsFailure| self.shards.sum(|shard| shard.tls_failures[failure as usize].value());
        TlsFailure::ALL
            .into_iter()
            .map(move |failure| (failure.label(), total(failure)))
            .filter(|(_, n)| *n > 0)
    }
}
