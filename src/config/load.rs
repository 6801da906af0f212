//! Text → [`Config`], or every problem of the text.

use super::block::Value;
use super::blocks;
use super::model::Config;
use super::reader::Reader;
use super::source::{Problems, Source};
use super::yaml::{self, Kind};

/// A configuration without errors, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Warnings only.
    pub warnings: Problems,
}

/// Reads a configuration. `environment` gives the values of `${NAME}`.
///
/// # Errors
///
/// All problems at once, in the order of their places; at least one of them is an error. Text that
/// isn't YAML has one: nothing behind it can be understood.
pub fn load(source: &Source, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let mut reader = Reader::new(environment, source.directory());
    let root = yaml::parse(&source.text, &mut reader.problems);
    let config = root.and_then(|root| {
        if !matches!(root.kind, Kind::Map(_)) {
            let message = format!("expected a configuration, found {}", root.described());
            reader.error(root.span, message, "begin with a key: `listeners:`, `services:`, `routes:` …");
            return None;
        }
        blocks::prepare(&root, &mut reader);
        Config::read(&root, &mut reader)
    });
    let mut problems = reader.problems;
    problems.sort();
    match config {
        Some(config) if !problems.has_errors() => Ok(Loaded { config, warnings: problems }),
        _ => Err(problems),
    }
}
