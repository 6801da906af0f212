//! Gatehouse: an API gateway in one binary and one YAML file.
//!
//! `ARCHITECTURE.md` draws the whole; `pipeline` is the life of a request on one screen.

pub mod action;
pub mod admin;
pub mod buffers;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod discovery;
pub mod exchange;
pub mod gateway;
pub mod http;
pub mod identity;
pub mod listener;
pub mod memory;
mod pem_files;
pub mod per_worker;
pub mod pipeline;
pub mod policy;
pub mod reason;
pub mod refusal;
pub mod request;
pub mod route;
pub mod service;
pub mod snapshot;
mod socket;
pub mod telemetry;
pub mod worker;
