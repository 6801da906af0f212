//! `aggregate`: one response out of those of several services.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::part::PartBody;
use super::plan::{Ground, plan};
use crate::config::block::{Place, Value, block};
use crate::config::model::{Aggregate, At};
use crate::config::reader::Reader;
use crate::config::text::quoted;
use crate::config::values::units::Wait;
use crate::config::yaml::Node;

/// `aggregate` as written: what its parts wait for is found out when the route around it is known.
pub(super) struct AggregateBody {
    timeout: Duration,
    parts: Parts,
}

block! {
    /// One JSON object with the response of every part under its name.
    "an aggregate block" AggregateBlock => AggregateBody {
        /// For all parts together. Default 10s.
        timeout: Wait,
        /// The calls. Those that need nothing of others are made at once.
        parts: Parts ["{ user: { service: user-service, path: \"/users/{id}\" } }"],
    }
    later { "stream" }
}

impl AggregateBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<AggregateBody> {
        let (timeout, parts) = (self.timeout.or(Duration::from_secs(10)), self.parts.required::<Parts>());
        Some(AggregateBody { timeout: timeout?, parts: parts? })
    }
}

impl AggregateBody {
    /// Resolves all names; problems are told for those that can't be.
    pub fn on(self, ground: &Ground<'_>, reader: &mut Reader<'_>) -> Option<Aggregate> {
        Some(Aggregate { timeout: self.timeout, parts: plan(self.parts.0, ground, reader)? })
    }
}

/// `name: part`, in the order of the file. The names are keys of the response.
struct Parts(Vec<(At<String>, PartBody)>);

impl Value for Parts {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of parts")?;
        if entries.is_empty() {
            reader.error(
                node.span,
                "an aggregate needs at least one part",
                "name one, with `service` and `path`",
            );
            return None;
        }
        let parts: Vec<_> = entries
            .iter()
            .map(|entry| {
                let body = PartBody::read(&entry.value, reader);
                if entry.key == "_errors" || entry.key.is_empty() {
                    let message = format!("a part can't be named {}", quoted(&entry.key));
                    reader.error(entry.key_span, message, "name it after what it brings");
                    return None;
                }
                body.map(|body| (At { value: entry.key.to_string(), span: entry.key_span }, body))
            })
            .collect();
        parts.into_iter().collect::<Option<_>>().map(Parts)
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "minLength": 1, "not": { "const": "_errors" } },
            "additionalProperties": PartBody::schema(),
        })
    }
}
