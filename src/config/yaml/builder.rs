//! The events of the YAML library, folded into nodes by a stack of open collections.
//!
//! Invariant: a node is charged to the limits before it is kept, and an alias is charged for all
//! that it stands for, so neither memory nor a later walk can outgrow the limits.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle, StructureStyle, Tag};

use super::{Entry, Kind, MAX_DEPTH, MAX_REPEATED_NODES, Node, Scalar, syntax};
use crate::config::source::{Problems, Span};
use crate::config::text::quoted;

/// Reading stops here; the problem that says why is already told.
pub(super) struct Stop;

/// A finished node with what the limits need to know about it.
#[derive(Clone)]
struct Built<'s> {
    node: Node<'s>,
    /// Nodes in it, itself included, aliases expanded.
    nodes: usize,
    /// Levels in it, itself included.
    depth: usize,
}

enum Open<'s> {
    List(Vec<Node<'s>>),
    Map { entries: Vec<Entry<'s>>, key: Option<(Cow<'s, str>, Span)>, merges: Vec<Built<'s>> },
}

struct Frame<'s> {
    open: Open<'s>,
    start: Span,
    block: bool,
    anchor: usize,
    nodes: usize,
    depth: usize,
}

pub(super) struct Builder<'s, 'p> {
    text: &'s str,
    problems: &'p mut Problems,
    stack: Vec<Frame<'s>>,
    anchors: HashMap<usize, Built<'s>>,
    root: Option<Node<'s>>,
    nodes: usize,
    max_nodes: usize,
    repeated: usize,
    documents: usize,
}

impl<'s, 'p> Builder<'s, 'p> {
    pub fn new(text: &'s str, max_nodes: usize, problems: &'p mut Problems) -> Self {
        Builder {
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            problems,
            stack: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            nodes: 0,
            max_nodes,
            repeated: 0,
            documents: 0,
        }
    }

    pub fn run(mut self) -> Option<Node<'s>> {
        let mut options = granit_parser::Options::default();
        options.set_emit_comments(false);
        // One more than ours, so that the message about depth is ours in most cases.
        options.flow_nesting_limit = MAX_DEPTH + 1;
        options.block_nesting_limit = MAX_DEPTH + 1;
        for event in Parser::new_from_str_with_options(self.text, options) {
            let outcome = match event {
                Ok((event, span)) => self.event(event, span),
                Err(error) => {
                    syntax::explain(&error, self.text, self.problems);
                    Err(Stop)
                }
            };
            if outcome.is_err() {
                return None;
            }
        }
        if self.root.is_none() {
            self.stop(
                Span { line: 1, column: 1, length: 1 },
                "the configuration is empty",
                "begin with `listeners:` and `routes:`; `gatehouse schema` lists every key",
            )
            .ok();
        }
        self.root
    }

    fn event(&mut self, event: Event<'s>, at: granit_parser::Span) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => self.scalar(text, style, anchor, tag, &at),
            Event::SequenceStart(style, anchor, tag) => {
                self.open(Open::List(Vec::new()), style, anchor, tag, &at)
            }
            Event::MappingStart(style, anchor, tag) => {
                let open = Open::Map { entries: Vec::new(), key: None, merges: Vec::new() };
                self.open(open, style, anchor, tag, &at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, &at),
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return self.stop(
                        self.place(&at),
                        "a second document begins here",
                        "a configuration is one document: remove the `---` or split the file",
                    );
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'s, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<Cow<'s, Tag>>,
        at: &granit_parser::Span,
    ) -> Result<(), Stop> {
        let span = self.place(at);
        // A long text weighs more: an alias of it is copied when it is read.
        let nodes = 1 + text.len() / 64;
        self.charge(nodes, span)?;
        let as_text = self.tag(tag.as_deref(), span)? || style != ScalarStyle::Plain;
        let kind = match &*text {
            "" | "~" | "null" | "Null" | "NULL" if !as_text => Kind::Null,
            _ => Kind::Scalar(Scalar { text, plain: !as_text }),
        };
        let built = Built { node: Node { span, kind }, nodes, depth: 1 };
        self.keep(built, anchor)
    }

    fn open(
        &mut self,
        open: Open<'s>,
        style: StructureStyle,
        anchor: usize,
        tag: Option<Cow<'s, Tag>>,
        at: &granit_parser::Span,
    ) -> Result<(), Stop> {
        let start = Span { length: 1, ..self.place(at) };
        if let Some(Frame { open: Open::Map { key: None, .. }, .. }) = self.stack.last() {
            return self.stop(
                start,
                "a key must be plain text",
                "a value that begins with `[`, `{` or `*` needs quotes",
            );
        }
        self.charge(1, start)?;
        self.tag(tag.as_deref(), start)?;
        if self.stack.len() >= MAX_DEPTH {
            return self.too_deep(start);
        }
        let block = style == StructureStyle::Block;
        self.stack.push(Frame { open, start, block, anchor, nodes: 1, depth: 1 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let (kind, mut nodes, mut depth, first) = match frame.open {
            Open::List(items) => {
                let first = items.first().map(|item| item.span);
                (Kind::List(items.into()), frame.nodes, frame.depth, first)
            }
            Open::Map { mut entries, merges, .. } => {
                self.report_duplicates(&mut entries);
                let (mut nodes, mut depth) = (frame.nodes, frame.depth);
                for merge in merges {
                    self.merge(merge, &mut entries, &mut nodes, &mut depth, frame.start)?;
                }
                let first = entries.first().map(|entry| entry.key_span);
                (Kind::Map(entries.into()), nodes, depth, first)
            }
        };
        nodes = nodes.max(1);
        depth = depth.max(1);
        let span = if frame.block { first.unwrap_or(frame.start) } else { frame.start };
        self.keep(Built { node: Node { span, kind }, nodes, depth }, frame.anchor)
    }

    fn alias(&mut self, anchor: usize, at: &granit_parser::Span) -> Result<(), Stop> {
        let span = self.place(at);
        let Some(built) = self.anchors.get(&anchor).cloned() else {
            return self.stop(
                span,
                "this alias stands for a block that it is itself part of",
                "write the block out here",
            );
        };
        self.charge(built.nodes, span)?;
        self.charge_repeated(built.nodes, span)?;
        if self.stack.len() + built.depth > MAX_DEPTH {
            return self.too_deep(span);
        }
        self.keep(built, 0)
    }

    /// Hands a finished node to the collection that is open, or makes it the root.
    fn keep(&mut self, built: Built<'s>, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.anchors.insert(anchor, built.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        match &mut frame.open {
            Open::List(items) => items.push(built.node),
            Open::Map { key: key @ None, .. } => {
                let Kind::Scalar(scalar) = built.node.kind else {
                    return self.stop(
                        Span { length: built.node.span.length.max(1), ..built.node.span },
                        "a key must be plain text",
                        "write a name before the colon",
                    );
                };
                *key = Some((scalar.text, built.node.span));
                return Ok(());
            }
            Open::Map { entries, key, merges } => {
                let Some((key, key_span)) = key.take() else { return Ok(()) };
                let mut value = built.node;
                // A block, a list or nothing at all is best pointed at by its key.
                if !matches!(value.kind, Kind::Scalar(_)) {
                    value.span = key_span;
                }
                if key == "<<" {
                    merges.push(Built { node: value, nodes: built.nodes, depth: built.depth });
                    return Ok(());
                }
                entries.push(Entry { key, key_span, value });
            }
        }
        frame.nodes += built.nodes + 1;
        frame.depth = frame.depth.max(built.depth + 1);
        Ok(())
    }

    /// `<<: *defaults` or `<<: [*a, *b]`: entries that the mapping doesn't have itself.
    fn merge(
        &mut self,
        merge: Built<'s>,
        entries: &mut Vec<Entry<'s>>,
        nodes: &mut usize,
        depth: &mut usize,
        span: Span,
    ) -> Result<(), Stop> {
        self.charge_repeated(merge.nodes, span)?;
        *nodes += merge.nodes;
        *depth = (*depth).max(merge.depth);
        let sources = match &merge.node.kind {
            Kind::Map(_) => vec![merge.node.clone()],
            Kind::List(items) => items.to_vec(),
            _ => Vec::new(),
        };
        let mut known: std::collections::HashSet<Cow<'s, str>> =
            entries.iter().map(|entry| entry.key.clone()).collect();
        for source in &sources {
            let Kind::Map(merged) = &source.kind else {
                return self.stop(
                    source.span,
                    "`<<` takes a block of keys",
                    "name an anchor: `<<: *name`, after `&name` at the block to be repeated",
                );
            };
            for entry in merged.iter().filter(|entry| known.insert(entry.key.clone())) {
                entries.push(entry.clone());
            }
        }
        if sources.is_empty() {
            return self.stop(
                merge.node.span,
                "`<<` takes a block of keys",
                "name an anchor: `<<: *name`, after `&name` at the block to be repeated",
            );
        }
        Ok(())
    }

    fn report_duplicates(&mut self, entries: &mut Vec<Entry<'s>>) {
        let duplicated = |list: &[Entry<'s>]| {
            let mut first: HashMap<&str, Span> = HashMap::with_capacity(list.len());
            let mut found = Vec::new();
            for (index, entry) in list.iter().enumerate() {
                match first.get(&*entry.key) {
                    Some(span) => found.push((index, *span)),
                    None => {
                        first.insert(&entry.key, entry.key_span);
                    }
                }
            }
            found
        };
        // Nearly all mappings are small, and comparing a few keys is cheaper than hashing them.
        let small = entries.len() <= 12;
        if small && !entries.iter().enumerate().any(|(i, e)| entries[..i].iter().any(|o| o.key == e.key)) {
            return;
        }
        let found = duplicated(entries);
        for (index, first) in &found {
            let entry = &entries[*index];
            self.problems.error(
                entry.key_span,
                format!("the key {} is written twice", quoted(&entry.key)),
                format!("keep one of them; the first is at line {}", first.line),
            );
        }
        let mut index = 0;
        let mut next = found.iter().map(|(index, _)| *index).peekable();
        entries.retain(|_| {
            let drop = next.peek() == Some(&index);
            if drop {
                next.next();
            }
            index += 1;
            !drop
        });
    }

    /// Whether the tag makes a text of what would be a number. Only YAML's own tags are known.
    fn tag(&mut self, tag: Option<&Tag>, span: Span) -> Result<bool, Stop> {
        match tag {
            None => Ok(false),
            Some(tag) if tag.is_yaml_core_schema() => Ok(tag.is_yaml_core_schema_tag("str")),
            Some(_) => self
                .stop(
                    span,
                    "tags have no meaning in a configuration",
                    "remove the `!` or put the text in quotes",
                )
                .map(|()| false),
        }
    }

    fn charge(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > self.max_nodes {
            return self.stop(
                span,
                format!("the configuration has more than {} values", self.max_nodes),
                "split it over several gateways, or match with prefixes instead of single paths",
            );
        }
        Ok(())
    }

    fn charge_repeated(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.repeated = self.repeated.saturating_add(nodes);
        if self.repeated > MAX_REPEATED_NODES {
            return self.stop(
                span,
                format!("aliases repeat more than {MAX_REPEATED_NODES} values"),
                "aliases of aliases multiply: write fewer of them",
            );
        }
        Ok(())
    }

    fn too_deep(&mut self, span: Span) -> Result<(), Stop> {
        self.stop(span, format!("nested more than {MAX_DEPTH} levels deep"), "no block needs so many levels")
    }

    fn stop(
        &mut self,
        span: Span,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Result<(), Stop> {
        self.problems.error(span, message, remedy);
        Err(Stop)
    }

    fn place(&self, at: &granit_parser::Span) -> Span {
        syntax::place(&at.start, at.len(), self.text)
    }
}
