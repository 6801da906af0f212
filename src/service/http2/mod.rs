//! HTTP/2 as it is spoken to instances: requests as streams of a few connections that they share.
//!
//! A connection is driven by a task of its own; a stream is a value, driven by the task that waits for its response, as a
//! connection of HTTP/1.1 is. What is not known to have been looked at by the instance (RFC 9113 §6.8, §8.7) may be sent
//! again, whatever it is.

mod connection;
mod exchange;
mod head;
mod held;
mod keep_alive;
mod outgoing;

pub use connection::{Connection, Seat, open};
pub use exchange::Exchange;
