//! Looks after the memory of the process, where the configuration has a limit to it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::snapshot::Snapshot;
use crate::telemetry::events;
use crate::telemetry::metrics::resident_bytes;

/// Between two looks. In that time a worker can take in so much, and no more than its limits allow.
const LOOK: Duration = Duration::from_millis(100);

/// Tells the snapshot in force, for ever.
pub async fn watch(published: Arc<ArcSwap<Snapshot>>) {
    loop {
        if let Some(memory) = published.load().memory.clone()
            && let Some(used) = resident_bytes()
        {
            let (used_mib, limit_mib) = (used >> 20, memory.limit() >> 20);
            match memory.note(used) {
                Some(true) => events::warn(format_args!(
                    "out of memory: {used_mib} MiB are in use and max_memory is {limit_mib} MiB; new requests are refused"
                )),
                Some(false) => events::info(format_args!(
                    "there is memory again: {used_mib} MiB of {limit_mib} MiB are in use"
                )),
                None => {}
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
