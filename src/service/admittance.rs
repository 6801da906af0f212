//! A request comes to a service that has a limit: it is admitted, waits, or is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::CallError;
use super::bulkhead::{Bulkhead, Entry, Slot, Waiting};
use super::errand::Errand;

/// The request's place at the service.
pub async fn enter(errand: &Errand<'_>, bulkhead: &Arc<Bulkhead>) -> Result<Slot, CallError> {
    match bulkhead.enter() {
        Entry::Admitted(slot) => Ok(slot),
        // Boxed, so that the requests that don't wait are no larger for it.
        Entry::Queued(waiting) => Box::pin(wait(errand, waiting)).await,
        Entry::Refused => {
            errand.service.metrics.over_limit(errand.caller.worker);
            Err(CallError::OverLimit)
        }
    }
}

async fn wait(errand: &Errand<'_>, waiting: Waiting) -> Result<Slot, CallError> {
    let concurrency = errand.service.settings.concurrency.as_ref();
    let turn = Instant::now() + concurrency.map_or(Duration::ZERO, |concurrency| concurrency.queue_timeout);
    let is_about_total = errand.total.is_some_and(|total| total <= turn);
    let until = errand.deadline().map_or(turn, |deadline| turn.min(deadline));
    timeout_at(until, waiting).await.map_err(|_| {
        if is_about_total {
            return CallError::TotalTimedOut;
        }
        errand.service.metrics.queue_timed_out(errand.caller.worker);
        CallError::QueueTimedOut
    })
}
