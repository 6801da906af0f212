//! `observability`: what the gateway tells of itself. Only the access log so far.

use serde_json::{Value as Json, json};

use crate::config::block::{Place, Value, block};
use crate::config::model::{AccessLog, LogOutput};
use crate::config::reader::Reader;
use crate::config::values::{FilePath, choice, choice_schema};
use crate::config::yaml::{Kind, Node};

/// What holds when nothing is written.
pub(super) const STDOUT: AccessLog = AccessLog { output: LogOutput::Stdout };

/// The block, as far as it is built.
pub(super) struct Observability(pub AccessLog);

block! {
    /// What the gateway tells of itself.
    "the observability block" ObservabilityBlock => Observability {
        /// One line per request.
        access_log: AccessLog,
    }
    later { "tracing" }
}

impl ObservabilityBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Observability> {
        self.access_log.or(STDOUT).map(Observability)
    }
}

block! {
    /// One line per request.
    "an access_log block" AccessLogBlock => AccessLog {
        /// stdout (the default), off, or a file, which is reopened on SIGUSR1.
        output: LogOutput,
        /// json, and nothing else so far.
        format: Format,
    }
}

impl AccessLogBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<AccessLog> {
        let (output, format) = (self.output.or(LogOutput::Stdout), self.format.or(Format));
        format?;
        Some(AccessLog { output: output? })
    }
}

impl Value for LogOutput {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "stdout" => Some(LogOutput::Stdout),
            // For older YAML, `off` is another way to write false.
            Kind::Scalar(scalar) if scalar.text == "off" || scalar.text == "false" => Some(LogOutput::Off),
            Kind::Scalar(scalar) if scalar.text == "stderr" => {
                reader.error(
                    node.span,
                    "the access log can't go to stderr",
                    "write stdout, off or the path of a file",
                );
                None
            }
            _ => FilePath::read(node, reader).map(|path| LogOutput::File(path.0)),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "type": "string", "minLength": 1, "not": { "const": "stderr" } }, { "const": false }] })
    }
}

#[derive(Clone, Copy)]
struct Format;

impl Value for Format {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        choice(node, reader, "a format of the access log", &[("json", Format)], &[])
    }

    fn schema() -> Json {
        choice_schema(&[("json", Format)])
    }
}
