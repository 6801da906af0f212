//! Text → [`Config`]: typed and validated, with a place and a cure for everything that is wrong.
//!
//! No sockets and no clock here, and no import of anything outside this module. [`load`] reads the
//! text into a tree of nodes (`yaml`), and the tree into the [model](Config) by the declarations in
//! `blocks`, out of which [`schema`] comes too. Problems are collected, never thrown, so that one run
//! tells all of them; [`render`] shows them with their lines.

mod block;
mod blocks;
mod document;
mod instance_file;
mod load;
mod mask;
mod model;
mod read;
mod reader;
mod render;
mod schema;
mod secret;
mod source;
mod suggest;
mod text;
mod values;
mod variables;
mod yaml;

pub use document::parse_document;
pub use instance_file::{FileInstance, parse_instance_file};
pub use load::{Loaded, load};
pub use model::*;
pub use read::{MAX_FILE_BYTES, ReadError, read_source};
pub use render::{render, render_json};
pub use schema::schema;
pub use secret::Secret;
pub use source::{Problem, Problems, Severity, Source, Span};
pub use values::units::parse_duration;
