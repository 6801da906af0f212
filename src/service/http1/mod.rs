//! HTTP/1.1 as it is spoken to instances: requests written, responses read, one connection at a time.
//!
//! Nothing here runs by itself: a connection is a value, and whoever waits for its response drives it from its own
//! task. What comes from an instance is foreign bytes: whatever could be read in two ways is refused
//! (RFC 9112 §6.3), and everything has a bound.

mod alarm;
mod chunked;
mod connection;
pub mod decode;
mod encode;
mod held;
mod outgoing;

pub use alarm::Alarm;
pub use connection::{Connection, Failed, MAX_INTERIMS, Workspace};
pub use encode::Framing;
