//! What reading a value needs: the problems so far, the environment, and the names that exist.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::source::{Problems, Span};
use super::suggest::Suggestions;
use super::text::quoted;
use super::variables::{self, Variables};
use super::yaml::{Entry, Kind, Node};

pub(super) struct Reader<'a> {
    pub problems: Problems,
    pub suggestions: Suggestions,
    pub names: Names,
    variables: Variables<'a>,
    directory: &'a Path,
}

/// The names a file defines and which of them something uses.
#[derive(Default)]
pub(super) struct Names {
    pub services: NameTable,
    pub authenticators: NameTable,
    pub rate_limits: NameTable,
}

#[derive(Default)]
pub(super) struct NameTable {
    /// In the order of the file.
    pub defined: Vec<String>,
    index: HashMap<String, usize>,
    pub used: HashSet<String>,
}

impl NameTable {
    pub fn define(&mut self, name: &str) {
        if !self.index.contains_key(name) {
            self.index.insert(name.to_owned(), self.defined.len());
            self.defined.push(name.to_owned());
        }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }
}

/// What a kind of scalar is called and how it is written, for messages.
pub(super) struct Form {
    /// `a duration`
    pub name: &'static str,
    /// `write a number and a unit: 250ms, 5s, 2m or 1h`
    pub remedy: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(environment: &'a dyn Fn(&str) -> Option<String>, directory: &'a Path) -> Self {
        Reader {
            problems: Problems::default(),
            suggestions: Suggestions::default(),
            names: Names::default(),
            variables: Variables::new(environment, directory),
            directory,
        }
    }

    pub fn error(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.error(span, message, remedy);
    }

    pub fn warning(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.warning(span, message, remedy);
    }

    pub fn not_supported(&mut self, span: Span, what: &str) {
        self.error(
            span,
            format!("{} is not supported yet", quoted(what)),
            "remove it: this version can't do what it says",
        );
    }

    /// The text of a scalar, its variables replaced. Anything else is a problem: `form` was expected.
    pub fn text<'n>(&mut self, node: &'n Node<'_>, form: &Form) -> Option<Cow<'n, str>> {
        match &node.kind {
            Kind::Scalar(scalar) => match self.variables.replace(&scalar.text) {
                Ok(text) => Some(text),
                Err(fault) => {
                    self.error(node.span, fault.message, fault.remedy);
                    None
                }
            },
            _ => {
                let message = format!("expected {}, found {}", form.name, node.described());
                self.error(node.span, message, form.remedy);
                None
            }
        }
    }

    /// Reads a scalar with `parse`, which may give a remedy better than that of `form`.
    ///
    /// Neither a message nor a remedy ever holds what a variable was replaced by.
    pub fn parse<T>(
        &mut self,
        node: &Node<'_>,
        form: &Form,
        parse: impl FnOnce(&str) -> Result<T, Option<String>>,
    ) -> Option<T> {
        let text = self.text(node, form)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(remedy) => {
                let remedy = remedy.filter(|_| !has_variables(node));
                let message = format!("{} is not {}", shown(node), form.name);
                self.error(node.span, message, remedy.unwrap_or_else(|| form.remedy.to_owned()));
                None
            }
        }
    }

    /// The entries of a mapping; nothing at all counts as an empty one.
    pub fn entries<'n, 's>(&mut self, node: &'n Node<'s>, title: &str) -> Option<&'n [Entry<'s>]> {
        match &node.kind {
            Kind::Map(entries) => Some(entries),
            Kind::Null => Some(&[]),
            Kind::Scalar(_) | Kind::List(_) => {
                let message = format!("expected {title}, found {}", node.described());
                self.error(node.span, message, "write its keys below it, each as `key: value`");
                None
            }
        }
    }

    /// The items of a list; nothing at all counts as an empty one.
    pub fn items<'n, 's>(&mut self, node: &'n Node<'s>) -> Option<&'n [Node<'s>]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            Kind::Null => Some(&[]),
            Kind::Scalar(scalar) => {
                let remedy = match scalar.text.len() < 40 && !has_variables(node) {
                    true => format!("put it in brackets: [{}]", scalar.text.escape_default()),
                    false => "put it in brackets".to_owned(),
                };
                self.error(node.span, "expected a list, found text", remedy);
                None
            }
            Kind::Map(_) => {
                self.error(
                    node.span,
                    "expected a list, found a block of keys",
                    "begin each item with `- `, or put them in brackets",
                );
                None
            }
        }
    }

    /// A path as the process opens it: relative ones start from the configuration's directory.
    pub fn path(&self, text: &str) -> PathBuf {
        let joined = self.directory.join(text);
        std::path::absolute(&joined).unwrap_or(joined)
    }

    pub fn replace_variables<'t>(&mut self, text: &'t str) -> Result<Cow<'t, str>, variables::Fault> {
        self.variables.replace(text)
    }
}

/// A scalar as it was typed, quoted: variables stay names.
pub(super) fn shown(node: &Node<'_>) -> String {
    match &node.kind {
        Kind::Scalar(scalar) => quoted(&scalar.text),
        _ => node.described().to_owned(),
    }
}

pub(super) fn has_variables(node: &Node<'_>) -> bool {
    matches!(&node.kind, Kind::Scalar(scalar) if scalar.text.contains("${"))
}
