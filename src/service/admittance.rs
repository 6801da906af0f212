//! A request comes to a service that has a limit: it is admitted, waits, or is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::bulkhead::{Bulkhead, Entry, Slot, Waiting};
use super::errand::Deadlines;
use super::{CallError, Service};
use crate::per_worker::WorkerId;

/// The request's place at the service.
pub async fn enter(
    service: &Service,
    bulkhead: &Arc<Bulkhead>,
    worker: WorkerId,
    deadlines: Deadlines,
) -> Result<Slot, CallError> {
    match bulkhead.enter() {
        Entry::Admitted(slot) => Ok(slot),
        // Boxed, so that the requests that don't wait are no larger for it.
        Entry::Queued(waiting) => Box::pin(wait(service, waiting, worker, deadlines)).await,
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
    deadlines: Deadlines,
) -> Result<Slot, CallError> {
    let patience =
        service.settings.concurrency.as_ref().map_or(Duration::ZERO, |concurrency| concurrency.queue_timeout);
    let turn = Instant::now() + patience;
    let is_about_total = deadlines.total.is_some_and(|total| total <= turn);
    let until = deadlines.earliest().map_or(turn, |deadline| turn.min(deadline));
    timeout_at(until, waiting).await.map_err(|_| {
        if is_about_total {
            return CallError::TotalTimedOut;
        }
        service.metrics.queue_timed_out(worker);
        CallError::QueueTimedOut
    })
}
