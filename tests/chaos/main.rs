//! Instances that fail in every way there is, under steady load and with every balancing rule.
//!
//! What may be sent twice has to be answered as long as one instance can. What may not be is answered or told what
//! happened to it, and never later than the time limits allow. No instance gets more than the requests there are and
//! the retry budget. docs/resilience.md says what these tests show.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]
#![allow(clippy::print_stderr, reason = "a summary is worth reading when all is well, too")]

#[path = "../front_door/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the front-door tests use the rest")]
mod support;

mod bodies;
mod faults;
mod faulty;
mod load;
mod many;
mod network;
mod processes;
mod registries;
mod relay;
mod scene;
mod writes;
