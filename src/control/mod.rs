//! The control side: what runs beside requests and alone writes what they read.

pub mod changes;
pub mod health;
pub mod keys;
pub mod maintenance;
pub mod memory;
pub mod outliers;
pub mod returning;
pub mod transitions;
pub mod upkeep;
pub mod watch;
