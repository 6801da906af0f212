//! Where a value was written, and what is wrong with it there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a configuration file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    pub line: u32,
    pub column: u32,
    /// Length in characters, 1 or more, for the underline.
    pub length: u32,
}

/// A configuration text and the file it came from.
#[derive(Clone)]
pub struct Source {
    pub path: PathBuf,
    pub text: Arc<str>,
}

/// The text is left out: it may hold secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).field("bytes", &self.text.len()).finish()
    }
}

impl Source {
    /// The files that values are taken from, as `${file:…}` says.
    pub fn named_files(&self) -> Vec<PathBuf> {
        super::variables::files(&self.text, self.directory())
    }

    /// The directory that relative paths in the file start from.
    pub fn directory(&self) -> &Path {
        self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong, with the cure. Messages are lower case without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub span: Span,
    /// What is wrong: `unknown key "retrys"`.
    pub message: String,
    /// What to do about it: `did you mean "retries"?`.
    pub remedy: String,
}

/// All problems of one file, in the order of their places once [`Problems::sort`] has run.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    pub fn error(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Error, span, message.into(), remedy.into());
    }

    pub fn warning(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) {
        self.push(Severity::Warning, span, message.into(), remedy.into());
    }

    fn push(&mut self, severity: Severity, span: Span, message: String, remedy: String) {
        self.list.push(Problem { severity, span, message, remedy });
    }

    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|p| p.severity == Severity::Error)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds those of another look at the same file.
    pub fn extend(&mut self, others: Problems) {
        self.list.extend(others.list);
    }

    pub fn sort(&mut self) {
        self.list.sort_by_key(|p| p.span);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}
