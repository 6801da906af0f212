//! YAML text → a tree of nodes, each with the place where it was written.
//!
//! The rest of `config` knows only [`Node`]; the YAML library stops here. We read its stream of
//! events instead of deserializing: that keeps the text of every scalar as it was typed (`2`, `"2"`
//! and `1.0` stay apart), finds both places of a duplicate key, and shares what an alias repeats
//! instead of copying it. Nodes and depth are counted with the aliases expanded, so that whoever
//! walks the tree is bounded too.

mod builder;
mod syntax;
mod words;

use std::borrow::Cow;
use std::rc::Rc;

use super::source::{Problems, Span};

/// Nodes in a document, aliases expanded. 100,000 routes of usual size are under half of it.
pub(super) const MAX_NODES: usize = 4_000_000;
/// Nodes that aliases and merges may add. A configuration reuses blocks; a bomb multiplies them.
pub(super) const MAX_REPEATED_NODES: usize = 500_000;
/// Levels of nesting, aliases expanded. The contract needs about ten.
pub(super) const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Node<'s> {
    /// Where to point: for a block or a list that has a key, at the key.
    pub span: Span,
    pub kind: Kind<'s>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind<'s> {
    Null,
    Scalar(Scalar<'s>),
    List(Rc<[Node<'s>]>),
    Map(Rc<[Entry<'s>]>),
}

#[derive(Clone, Debug)]
pub(super) struct Scalar<'s> {
    /// The text as typed, quotes and escapes resolved.
    pub text: Cow<'s, str>,
    /// Without quotes, so that it may be a number or a truth value.
    pub plain: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Entry<'s> {
    pub key: Cow<'s, str>,
    pub key_span: Span,
    pub value: Node<'s>,
}

impl Node<'_> {
    /// `text`, `a list`, `a block of keys` or `nothing`, for messages.
    pub fn described(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a block of keys",
        }
    }
}

/// Reads one document. Duplicate keys go to `problems` and the first one counts, so that whatever
/// else is wrong can be found too; `None` means that no tree could be built, and `problems` says why.
pub(super) fn parse<'s>(text: &'s str, problems: &mut Problems) -> Option<Node<'s>> {
    builder::Builder::new(text, MAX_NODES, problems).run()
}

#[cfg(test)]
mod tests;
