//! What ARCHITECTURE.md and STYLE promise about the code, held by reading it: who may import whom, how
//! large things get, and that documents and examples are what they say they are.
//!
//! An exception is one line in a list here, with its reason. A line that is no longer needed fails too.

mod documents;
mod layers;
mod reference;
mod shape;
mod source;
