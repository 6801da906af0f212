//! `aggregate`: one response out of those of several services.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::action::Uses;
use super::references::ServiceRef;
use crate::config::block::{Place, Value, block};
use crate::config::model::{Aggregate, At, Part, Ref, Template};
use crate::config::reader::Reader;
use crate::config::text::quoted;
use crate::config::values::body::JsonText;
use crate::config::values::template::{PathAndQueryTemplate, names};
use crate::config::values::units::{Size, Wait};
use crate::config::yaml::Node;

/// `aggregate` as written.
pub(super) struct AggregateBody {
    pub aggregate: Aggregate,
    pub uses: Uses,
}

block! {
    /// One JSON object with the response of every part under its name.
    "an aggregate block" AggregateBlock => AggregateBody {
        /// For all parts together. Default 10s.
        timeout: Wait,
        /// The calls, all made at once.
        parts: Parts ["{ user: { service: user-service, path: \"/users/{id}\" } }"],
    }
}

impl AggregateBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<AggregateBody> {
        let (timeout, parts) = (self.timeout.or(Duration::from_secs(10)), self.parts.required::<Parts>());
        let mut uses = Uses::default();
        let parts: Vec<Part> = parts?
            .0
            .into_iter()
            .map(|(name, body)| {
                let used = names(&body.path.value).into_iter().map(|name| (name.to_owned(), body.path.span));
                uses.parameters.extend(used);
                Part {
                    name,
                    service: body.service,
                    path: body.path.value,
                    required: body.required,
                    fallback: body.fallback,
                    max_body: body.max_body,
                }
            })
            .collect();
        Some(AggregateBody { aggregate: Aggregate { timeout: timeout?, parts }, uses })
    }
}

/// `name: part`, in the order of the file. The names are keys of the response.
struct Parts(Vec<(String, PartBody)>);

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
                body.map(|body| (entry.key.to_string(), body))
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

struct PartBody {
    service: Ref,
    path: At<Template>,
    required: bool,
    fallback: String,
    max_body: u64,
}

block! {
    /// One call of an aggregate.
    "a part" PartBlock => PartBody {
        /// The name of a service.
        service: ServiceRef ["user-service"],
        /// Path and query to GET, with `{name}` for the parameters of the route's path.
        path: At<PathAndQueryTemplate> ["\"/users/{id}\""],
        /// Whether the whole fails when this part does. Default false.
        required: bool,
        /// What stands in for a part that failed, as JSON. Default null.
        fallback: At<JsonText>,
        /// The largest response of the part. Default 1MiB.
        max_body: Size<1, { 1 << 30 }>,
    }
    later {
        "method", "body", "headers", "select", "allow", "deny", "rename", "after", "for_each", "merge", "timeout",
    }
}

impl PartBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<PartBody> {
        let required = self.required.or(false)?;
        let fallback = self.fallback.optional::<At<JsonText>>()?;
        if let Some(fallback) = fallback.as_ref().filter(|_| required) {
            reader.error(
                fallback.span,
                "a required part never uses its fallback",
                "remove `fallback`, or `required: true`",
            );
            return None;
        }
        let (service, path) = (self.service.required(), self.path.required::<At<PathAndQueryTemplate>>());
        let path = path?;
        Some(PartBody {
            service: service?,
            path: At { value: path.value.0, span: path.span },
            required,
            fallback: fallback.map_or_else(|| "null".to_owned(), |fallback| fallback.value.0),
            max_body: self.max_body.or(1u64 << 20)?,
        })
    }
}
