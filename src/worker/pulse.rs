//! A coarse ticker that runs only while requests do. It moves the worker's clock on, hands batches of the access log over, and keeps
//! an early timer in the runtime, so that a request's own timers, which are all later, need no system call to
//! wake the driver (tokio writes to an eventfd when a new timer becomes the first).

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock;

pub const INTERVAL: Duration = Duration::from_millis(10);
/// Ticks without a request before it rests.
const REST_AFTER: u32 = 100;

#[derive(Default)]
pub struct Pulse {
    running: Cell<bool>,
    beats: Cell<u64>,
    wake: Notify,
}

impl Pulse {
    pub fn beat(&self) {
        self.beats.set(self.beats.get().wrapping_add(1));
        if !self.running.replace(true) {
            self.wake.notify_one();
        }
    }

    /// Calls `tick` every [`INTERVAL`] while there are requests, for ever.
    pub async fn run(&self, tick: impl Fn()) {
        loop {
            self.wake.notified().await;
            let mut quiet = 0;
            while quiet < REST_AFTER {
                clock::tick();
                let before = self.beats.get();
                tokio::time::sleep(INTERVAL).await;
                tick();
                quiet = if self.beats.get() == before { quiet + 1 } else { 0 };
            }
            clock::rest();
            self.running.set(false);
        }
    }
}
