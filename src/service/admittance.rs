//! A request comes to a service that has a limit: it is admitted, waits, or is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::bulkhead::{Bulkhead, Entry, Slot, Waiting};
use super::{CallError, Service};
use crate::per_worker::WorkerId;

/// The request's place at the service, before `deadline`.
pub async fn enter(
    service: &Service,
    bulkhead: &Arc<Bulkhead>,
    worker: WorkerId,
    deadline: Option<Instant>,
) -> Result<Slot, CallError> {
    match bulkhead.enter() {
        Entry::Admitted(slot) => Ok(slot),
        // Boxed, so that the requests that don't wait are no larger for it.
        Entry::Queued(waiting) => Box::pin(wait(service, waiting, worker, deadline)).await,
        Entry::Refused => {
            service.metrics.over_limit(worker);
            Err(CallError::OverLimit)
        }
    }
}

async fn wait(
    service: &Service,
    waiting: Waiting,
    worker: WorkerId,
    deadline: Option<Instant>,
) -> Result<Slot, CallError> {
    let patience =
        service.settings.concurrency.as_ref().map_or(Duration::ZERO, |concurrency| concurrency.queue_timeout);
    let until = Instant::now() + patience;
    let until = deadline.map_or(until, |deadline| until.min(deadline));
    timeout_at(until, waiting).await.map_err(|_| {
        service.metrics.queue_timed_out(worker);
        CallError::QueueTimedOut
    })
}
