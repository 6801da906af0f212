//! The built-in registry: instances register themselves over HTTP, stay by heartbeats, and leave
//! when they say so or fall silent.

pub mod api;
mod body;
pub mod client;
mod instance;
mod problem;
pub(super) mod source;
mod store;
#[cfg(test)]
mod tests;
mod watch;

pub use instance::{Announcement, Instance, InvalidMember, Key};
pub use store::{Registered, Store, StoreError, View};
