//! How many requests a service may have at once.

use std::time::Duration;

use crate::config::block::{Place, block};
use crate::config::model::{At, Concurrency};
use crate::config::reader::Reader;
use crate::config::values::units::{Number, Wait};

block! {
    /// Requests of the service at once, over all workers and instances.
    "a concurrency block" ConcurrencyBlock => Concurrency {
        /// Requests in flight.
        max: Number<1, 1_000_000> ["1000"],
        /// Further requests that wait until others have ended; those beyond are refused. Default 0.
        queue: Number<0, 1_000_000>,
        /// How long one waits. Default 250ms.
        queue_timeout: At<Wait>,
    }
}

impl ConcurrencyBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Concurrency> {
        let (max, queue) = (self.max.required(), self.queue.or(0u32));
        let queue_timeout = self.queue_timeout.optional::<At<Wait>>()?;
        if let (Some(0), Some(timeout)) = (queue, &queue_timeout) {
            reader.warning(
                timeout.span,
                "nobody waits, because `queue` is 0",
                "add `queue: 200`, or remove it",
            );
        }
        Some(Concurrency {
            max: max?,
            queue: queue?,
            queue_timeout: queue_timeout.map_or(Duration::from_millis(250), |timeout| timeout.value.0),
        })
    }
}
