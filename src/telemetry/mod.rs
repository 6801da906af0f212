//! What the gateway tells about itself: the access log, the metrics and its own messages.
//!
//! Nothing here waits for anything on the side of a worker: counters are a worker's own, log
//! records go into bounded queues that drop and count when they are full.

pub mod access_log;
pub mod events;
mod json;
pub mod metrics;
pub mod record;
mod rfc3339;
mod writer;

pub use rfc3339::{rfc3339, rfc3339_milliseconds};
