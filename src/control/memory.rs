//! Looks after the memory of the process, where the configuration has a limit to it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::memory::Memory;
use crate::snapshot::Snapshot;
use crate::telemetry::events;
use crate::telemetry::metrics::resident_bytes;

/// Between two looks at the memory. In that time a worker can take in so much, and no more than its limits allow.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks whether a reload has brought a limit.
const ASK: Duration = Duration::from_secs(1);

/// Tells the snapshot in force, for ever.
pub async fn watch(published: Arc<ArcSwap<Snapshot>>) {
    loop {
        let memory = published.load().memory.clone();
        tokio::time::sleep(match &memory {
            Some(memory) => {
                look(memory);
                LOOK
            }
            None => ASK,
        })
        .await;
    }
}

fn look(memory: &Memory) {
    let Some(used) = resident_bytes() else { return };
    let (used_mib, limit_mib) = (used >> 20, memory.limit() >> 20);
    match memory.note(used) {
        Some(true) => events::warn(format_args!(
            "out of memory: {used_mib} MiB are in use and max_memory is {limit_mib} MiB; new requests are refused"
        )),
        Some(false) => {
            events::info(format_args!("there is memory again: {used_mib} MiB of {limit_mib} MiB are in use"));
        }
        None => {}
    }
}
