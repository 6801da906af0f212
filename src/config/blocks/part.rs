//! One part of an `aggregate`, as written.

use std::time::Duration;

use http::HeaderName;
use serde_json::{Value as Json, json};

use super::references::ServiceRef;
use crate::config::block::{Place, Value, block};
use crate::config::model::{At, Ref, StatusRange};
use crate::config::reader::Reader;
use crate::config::source::Span;
use crate::config::values::NonEmpty;
use crate::config::values::body::JsonText;
use crate::config::values::http::{Direction, header_key, may_edit};
use crate::config::values::part_template::{PartTarget, PartText};
use crate::config::values::units::{Size, Wait};
use crate::config::yaml::{Kind, Node};

/// A part whose names are not resolved yet.
pub(super) struct PartBody {
    pub service: Ref,
    pub path: At<PartTarget>,
    pub headers: Vec<(HeaderName, At<PartText>)>,
    pub accept_status: Vec<StatusRange>,
    pub timeout: Option<Duration>,
    pub max_body: u64,
    pub after: Vec<At<String>>,
    pub required: bool,
    pub fallback: Option<At<FallbackBody>>,
    pub hidden: bool,
}

block! {
    /// One call of an aggregate.
    "a part" PartBlock => PartBody {
        /// The name of a service.
        service: ServiceRef ["user-service"],
        /// Path and query to GET, with `{name}` for the parameters of the route's path and `{part.member}` for values of other parts.
        path: At<PartTarget> ["\"/users/{id}\""],
        /// Header fields of the part's request, with values likewise; they take the place of the client's.
        headers: PartHeaders,
        /// Parts that must be there before this one begins, besides those whose values it uses.
        after: Vec<At<String>>,
        /// Whether the whole fails when this part does. Default false.
        required: bool,
        /// What stands in for a part that failed: JSON, or { part: NAME } for the answer of another part. Default null.
        fallback: At<FallbackBody>,
        /// Statuses with which the part has succeeded, as in 404 or 200-299. Default 200-299.
        accept_status: NonEmpty<StatusRange>,
        /// For this part, within that of the whole. Default: what is left of that.
        timeout: Wait,
        /// The largest response of the part. Default 1MiB.
        max_body: Size<1, { 1 << 30 }>,
        /// Whether the part is left out of the document: it is there for others. Default false.
        hidden: bool,
    }
    later { "method", "body", "select", "allow", "deny", "rename", "for_each", "merge" }
}

impl PartBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<PartBody> {
        let required = self.required.or(false)?;
        let fallback = self.fallback.optional::<At<FallbackBody>>()?;
        if let Some(fallback) = fallback.as_ref().filter(|_| required) {
            reader.error(
                fallback.span,
                "a required part never uses its fallback",
                "remove `fallback`, or `required: true`",
            );
            return None;
        }
        let (service, path) = (self.service.required(), self.path.required::<At<PartTarget>>());
        let headers = self.headers.optional::<PartHeaders>()?.map_or_else(Vec::new, |headers| headers.0);
        let accept = self.accept_status.optional::<NonEmpty<StatusRange>>()?;
        Some(PartBody {
            path: path?,
            service: service?,
            headers,
            accept_status: accept.map_or_else(Vec::new, |accept| accept.0),
            timeout: self.timeout.optional::<Wait>()?.map(|timeout| timeout.0),
            max_body: self.max_body.or(1u64 << 20)?,
            after: self.after.or(Vec::new())?,
            required,
            fallback,
            hidden: self.hidden.or(false)?,
        })
    }
}

/// What stands in for a failed part, as written.
pub(super) enum FallbackBody {
    Value(String),
    Part(String),
}

impl Value for FallbackBody {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let Kind::Map(entries) = &node.kind
            && let [only] = &entries[..]
            && only.key == "part"
            && matches!(only.value.kind, Kind::Scalar(_))
        {
            return String::read(&only.value, reader).map(FallbackBody::Part);
        }
        JsonText::read(node, reader).map(|json| FallbackBody::Value(json.0))
    }

    fn schema() -> Json {
        json!({})
    }
}

/// `name: value` for the header fields of a part's request.
struct PartHeaders(Vec<(HeaderName, At<PartText>)>);

impl Value for PartHeaders {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of headers")?;
        let mut fields: Vec<(HeaderName, At<PartText>)> = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = header_key(&entry.key, entry.key_span, reader)?;
            let value = At::<PartText>::read(&entry.value, reader);
            if !may_edit(&name, Direction::Request, entry.key_span, reader)
                || !is_free(&name, entry.key_span, reader)
            {
                return None;
            }
            if fields.iter().any(|(known, _)| *known == name) {
                let message = format!("the header {name} is set twice");
                reader.error(entry.key_span, message, "keep one of them: case makes no difference");
                return None;
            }
            fields.push((name, value?));
        }
        Some(PartHeaders(fields))
    }

    fn schema() -> Json {
        json!({ "type": ["object", "null"], "additionalProperties": PartText::schema() })
    }
}

/// What the gateway says of a request by itself is said once.
fn is_free(name: &HeaderName, span: Span, reader: &mut Reader<'_>) -> bool {
    let is_ours = matches!(name.as_str(), "via" | "forwarded" | "traceparent" | "tracestate" | "expect")
        || name.as_str().starts_with("x-forwarded-");
    if is_ours {
        let message = format!("the header {name} is the gateway's own");
        reader.error(span, message, "it tells where the request came from: remove it here");
    }
    !is_ours
}
