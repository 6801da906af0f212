//! The built-in registry: instances register themselves over HTTP, stay by heartbeats, and leave
//! when they say so or fall silent.

pub mod api;
pub mod body;
pub mod client;
mod event_stream;
mod instance;
mod problem;
pub(super) mod shared;
pub(super) mod source;
pub mod state_file;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod watch;

pub use instance::{Announcement, Instance, InvalidMember, Key, Metadata};
pub use store::{Registered, Store, StoreError, Subscription, View};
