//! Gatehouse: an API gateway in one binary and one YAML file.
//!
//! `ARCHITECTURE.md` draws the whole; `pipeline` is the life of a request on one screen.

pub mod clock;
pub mod config;
pub mod http;
pub mod per_worker;
pub mod reason;
