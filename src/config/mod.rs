//! Text → [`Config`]: typed and validated, with a place and a cure for everything that is wrong.
//!
//! No sockets and no clock here, and no import of anything outside this module.

mod model;
mod secret;
mod source;

pub use model::*;
pub use secret::Secret;
pub use source::{Problem, Problems, Severity, Source, Span};
