//! One part of an `aggregate`, as written.

use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Value as Json, json};

use super::for_each::{Elements, ForEachBody};
use super::references::ServiceRef;
use super::stale::StaleIfErrorValue;
use crate::config::block::{Place, Value, block};
use crate::config::model::{
    At, Batch, FieldStep, Hedging, PartShape, Ref, RetriesGiven, StaleIfError, StatusRange,
};
use crate::config::reader::Reader;
use crate::config::source::Span;
use crate::config::text::quoted;
use crate::config::values::body::JsonText;
use crate::config::values::body_template::BodyTemplate;
use crate::config::values::field_path::{FieldPath, QueryText, field_key};
use crate::config::values::http::{Direction, header_key, may_edit};
use crate::config::values::part_template::{PartTarget, PartText};
use crate::config::values::units::{Number, Size, Wait};
use crate::config::values::{NonEmpty, choice, choice_schema};
use crate::config::yaml::{Kind, Node};

/// A part whose names are not resolved yet.
pub(super) struct PartBody {
    pub source: SourceBody,
    pub after: Vec<At<String>>,
    pub required: bool,
    pub fallback: Option<At<FallbackBody>>,
    pub shape: PartShape,
    pub for_each: Option<ForEachBody>,
    /// Where `hidden: true` is written.
    pub hidden: Option<Span>,
}

pub(super) enum SourceBody {
    Call(Box<CallBody>),
    Static(String),
}

pub(super) struct CallBody {
    pub service: Ref,
    pub method: Method,
    pub path: At<PartTarget>,
    pub headers: Vec<(HeaderName, At<PartText>)>,
    pub body: Option<At<BodyTemplate>>,
    pub forward_headers: Option<Vec<HeaderName>>,
    pub is_text: bool,
    pub accept_status: Vec<StatusRange>,
    pub timeout: Option<Duration>,
    pub max_body: Option<u64>,
    pub stale_if_error: Option<StaleIfError>,
    pub retries: RetriesGiven,
    pub hedging: Option<Hedging>,
}

block! {
    /// One call of an aggregate.
    "a part" PartBlock => PartBody {
        /// The name of a service.
        service: ServiceRef ["user-service"],
        /// Path and query, with `{name}` for the parameters of the route's path and `{part.member}` for values of other parts.
        path: At<PartTarget> ["\"/users/{id}\""],
        /// Default GET, or POST with a body.
        method: At<Method>,
        /// The request's body as JSON. A text that is `{part.member}` and nothing else becomes that value.
        body: At<BodyTemplate>,
        /// The client's header fields that are passed on; what the gateway adds always is. Default: all.
        forward_headers: Vec<HeaderName>,
        /// What the answer is: json, or text, which becomes a string. Default json.
        r#as: As,
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
        /// The largest response of the part. Default 1MiB, and no bound where `stream` passes it through as it comes.
        max_body: Size<1, { 1 << 30 }>,
        /// What of the answer is meant, as a JSONPath of RFC 9535.
        select: QueryText,
        /// The only fields that are passed on, as in items[*].price. Default: all.
        allow: NonEmpty<FieldPath>,
        /// Fields that are left out.
        deny: Vec<FieldPath>,
        /// New names of fields, by their ways.
        rename: Renames,
        /// A name: the answer stands in an object under it.
        wrap: String,
        /// Elements of another part, each of which the part is asked for with `{item.member}`, as in $.orders[*].
        for_each: At<Elements>,
        /// The member under which each answer stands in its element. Default: an array of the answers stands under the part's name.
        into: At<String>,
        /// Elements that are asked for at once. Default 8.
        concurrency: At<Number<1, 1000>>,
        /// More elements fail the part. Default 100.
        max_items: At<Number<1, 10_000>>,
        /// Many elements in one call.
        batch: At<Batch>,
        /// Whether the members of the answer stand in the root of the document. Default false.
        merge: At<bool>,
        /// Whether the part is left out of the document: it is there for others. Default false.
        hidden: At<bool>,
        /// Keep the last good answers for so long: one of them stands in for an answer that fails, before the fallback does. Default: not done.
        stale_if_error: At<StaleIfErrorValue>,
        /// For this part; what is not given is the service's.
        retries: RetriesGiven,
        /// In place of the service's.
        hedging: Hedging,
    }
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
        let on = |switch: Option<At<bool>>| switch.filter(|switch| switch.value).map(|switch| switch.span);
        let (merge, hidden) = (on(self.merge.optional()?), on(self.hidden.optional()?));
        if let (Some(span), Some(_)) = (merge, hidden) {
            reader.error(
                span,
                "a hidden part stands in no document, nor in its root",
                "keep one of `merge` and `hidden`",
            );
            return None;
        }
        let allow = self.allow.optional::<NonEmpty<FieldPath>>()?.map_or_else(Vec::new, |allow| allow.0);
        let deny: Vec<FieldPath> = self.deny.or(Vec::new())?;
        let ways = |paths: Vec<FieldPath>| paths.into_iter().map(|path| path.0).collect();
        let shape = PartShape {
            select: self.select.optional::<QueryText>()?.map(|query| query.0),
            allow: ways(allow),
            deny: ways(deny),
            rename: self.rename.optional::<Renames>()?.map_or_else(Vec::new, |renames| renames.0),
            wrap: self.wrap.optional()?,
            merge: merge.is_some(),
        };
        let each = Each {
            elements: self.for_each.optional()?,
            into: self.into.optional()?,
            batch: self.batch.optional()?,
            concurrency: self.concurrency.optional()?,
            max_items: self.max_items.optional()?,
        };
        let for_each = each.body(merge, fallback.as_ref(), reader)?;
        let headers = self.headers.optional::<PartHeaders>()?.map_or_else(Vec::new, |headers| headers.0);
        let accept = self.accept_status.optional::<NonEmpty<StatusRange>>()?;
        let body = self.body.optional::<At<BodyTemplate>>()?;
        let method = method(self.method.optional()?, body.as_ref(), reader)?;
        let stale_if_error = stale(self.stale_if_error.optional()?, required, &method, reader)?;
        let call = CallBody {
            method,
            body,
            forward_headers: self.forward_headers.optional()?,
            is_text: self.r#as.or(As::Json)? == As::Text,
            path: self.path.required()?,
            service: self.service.required()?,
            headers,
            accept_status: accept.map_or_else(Vec::new, |accept| accept.0),
            timeout: self.timeout.optional::<Wait>()?.map(|timeout| timeout.0),
            max_body: self.max_body.optional()?,
            stale_if_error,
            retries: self.retries.or(RetriesGiven::default())?,
            hedging: self.hedging.optional()?,
        };
        Some(PartBody {
            source: SourceBody::Call(Box::new(call)),
            for_each,
            after: self.after.or(Vec::new())?,
            required,
            fallback,
            shape,
            hidden,
        })
    }
}

fn method(
    given: Option<At<Method>>,
    body: Option<&At<BodyTemplate>>,
    reader: &mut Reader<'_>,
) -> Option<Method> {
    let Some(given) = given else { return Some(if body.is_some() { Method::POST } else { Method::GET }) };
    let (message, remedy) = match (given.value.as_str(), body) {
        ("HEAD" | "TRACE" | "OPTIONS", _) => {
            ("a part needs an answer with content", "write GET, POST, PUT, PATCH or DELETE")
        }
        ("GET", Some(_)) => {
            ("nobody reads the body of a GET request", "write POST, or remove one of `method` and `body`")
        }
        _ => return Some(given.value),
    };
    reader.error(given.span, message, remedy);
    None
}

/// An older answer stands in for what can be had again, where it may.
fn stale(
    given: Option<At<StaleIfErrorValue>>,
    required: bool,
    method: &Method,
    reader: &mut Reader<'_>,
) -> Option<Option<StaleIfError>> {
    let Some(At { value: StaleIfErrorValue(stale), span }) = given else { return Some(None) };
    let (message, remedy) = if required {
        (
            "a required part fails rather than be an older one".to_owned(),
            "remove `stale_if_error`, or `required: true`",
        )
    } else if *method != Method::GET {
        (
            format!("an older answer can't stand in for that to a {method}, which may change something"),
            "remove `stale_if_error`, or ask with GET",
        )
    } else {
        return Some(Some(stale));
    };
    reader.error(span, message, remedy);
    None
}

/// `for_each` and the keys that only say something beside it.
struct Each {
    elements: Option<At<Elements>>,
    into: Option<At<String>>,
    batch: Option<At<Batch>>,
    concurrency: Option<At<Number<1, 1000>>>,
    max_items: Option<At<Number<1, 10_000>>>,
}

impl Each {
    fn body(
        self,
        merge: Option<Span>,
        fallback: Option<&At<FallbackBody>>,
        reader: &mut Reader<'_>,
    ) -> Option<Option<ForEachBody>> {
        let spans = [
            self.into.as_ref().map(|key| ("into", key.span)),
            self.batch.as_ref().map(|key| ("batch", key.span)),
            self.concurrency.as_ref().map(|key| ("concurrency", key.span)),
            self.max_items.as_ref().map(|key| ("max_items", key.span)),
        ];
        let Some(elements) = self.elements else {
            for (key, span) in spans.iter().flatten() {
                let message = format!("{} says nothing without `for_each`", quoted(key));
                reader.error(*span, message, "add `for_each`, or remove it");
            }
            return spans.iter().all(Option::is_none).then_some(None);
        };
        if let Some(span) = merge {
            let message = "the answers for elements are a list, which has no members";
            reader.error(span, message, "keep one of `merge` and `for_each`");
            return None;
        }
        if let Some(At { value: FallbackBody::Part(_), span }) = fallback {
            let message = "a part can't stand in for the answer for one element";
            reader.error(*span, message, "write what stands in for a single element, as JSON");
            return None;
        }
        Some(Some(ForEachBody {
            elements,
            into: self.into,
            concurrency: self.concurrency.map_or(8, |number| number.value.into()),
            max_items: self.max_items.map_or(100, |number| number.value.into()),
            batch: self.batch,
        }))
    }
}

/// What an answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    Json,
    Text,
}

const KINDS: [(&str, As); 2] = [("json", As::Json), ("text", As::Text)];

impl Value for As {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        choice(node, reader, "a kind of answer", &KINDS, &[])
    }

    fn schema() -> Json {
        choice_schema(&KINDS)
    }
}

/// `way: name`, each for one field.
struct Renames(Vec<(Vec<FieldStep>, String)>);

impl Value for Renames {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of names")?;
        let renames: Vec<Option<_>> = entries
            .iter()
            .map(|entry| {
                let way = field_key(&entry.key, entry.key_span, reader);
                let name = String::read(&entry.value, reader);
                if matches!(way.as_ref().and_then(|way| way.last()), Some(FieldStep::Each)) {
                    let message =
                        format!("{} means elements of an array, which have no names", quoted(&entry.key));
                    reader.error(entry.key_span, message, "name a field of theirs");
                    return None;
                }
                Some((way?, name?))
            })
            .collect();
        renames.into_iter().collect::<Option<_>>().map(Renames)
    }

    fn schema() -> Json {
        json!({ "type": ["object", "null"], "additionalProperties": String::schema() })
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
pub(super) fn is_free(name: &HeaderName, span: Span, reader: &mut Reader<'_>) -> bool {
    let is_ours = matches!(name.as_str(), "via" | "forwarded" | "traceparent" | "tracestate" | "expect")
        || name.as_str().starts_with("x-forwarded-");
    if is_ours {
        let message = format!("the header {name} is the gateway's own");
        reader.error(span, message, "it tells where the request came from: remove it here");
    }
    !is_ours
}
