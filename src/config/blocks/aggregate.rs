//! `aggregate`: one response out of those of several services.

use std::time::Duration;

use http::HeaderName;
use serde_json::{Value as Json, json};

use super::append::{AppendBody, Appends, appends};
use super::part::PartBody;
use super::plan::{Ground, plan};
use super::static_part::AnyPart;
use crate::config::block::{Place, Value, block};
use crate::config::model::{Aggregate, Append, At, Part, PartFallback, ServerTiming, Stream};
use crate::config::reader::Reader;
use crate::config::secret::Secret;
use crate::config::source::Span;
use crate::config::text::quoted;
use crate::config::values::choice;
use crate::config::values::units::Wait;
use crate::config::yaml::Node;

/// `aggregate` as written: what its parts wait for is found out when the route around it is known.
pub(super) struct AggregateBody {
    timeout: Duration,
    parts: Parts,
    append: Vec<AppendBody>,
    server_timing: Option<ServerTiming>,
    stream: Stream,
}

block! {
    /// Who is told how long the parts took.
    "a server_timing block" ServerTimingBlock => ServerTiming {
        /// The request's field by which it is asked for; no part gets it.
        header: HeaderName ["x-debug-timing"],
        /// What has to be in it: a secret, where not everybody may know.
        value: Secret ["\"${TIMING_KEY}\""],
    }
}

impl ServerTimingBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<ServerTiming> {
        let value: Secret = self.value.required()?;
        if value.expose().is_empty() {
            reader.error(place.span, "this value is empty, so that everybody would be told", "write one");
            return None;
        }
        Some(ServerTiming { header: self.header.required()?, value })
    }
}

block! {
    /// One JSON object with the response of every part under its name.
    "an aggregate block" AggregateBlock => AggregateBody {
        /// For all parts together. Default 10s.
        timeout: Wait,
        /// The calls. Those that need nothing of others are made at once.
        parts: Parts ["{ user: { service: user-service, path: \"/users/{id}\" } }"],
        /// Arrays of several parts as one, by the names that these have in the document.
        append: Appends,
        /// Tell how long the parts took, in Server-Timing, to a client that asks with this field. Default: nobody is told.
        server_timing: ServerTiming,
        /// `true`: the parts go out as they come, in their order, as one document; `ndjson`: as a line for each. Default false.
        stream: Stream,
    }
}

impl AggregateBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<AggregateBody> {
        let (timeout, parts) = (self.timeout.or(Duration::from_secs(10)), self.parts.required::<Parts>());
        let append = self.append.optional::<Appends>()?.map_or_else(Vec::new, |appends| appends.0);
        let (server_timing, stream) = (self.server_timing.optional()?, self.stream.or(Stream::Off)?);
        Some(AggregateBody { timeout: timeout?, parts: parts?, append, server_timing, stream })
    }
}

impl AggregateBody {
    /// Resolves all names; problems are told for those that can't be.
    pub fn on(self, ground: &Ground<'_>, reader: &mut Reader<'_>) -> Option<Aggregate> {
        let spots: Vec<Span> = self.parts.0.iter().map(|(name, _)| name.span).collect();
        let parts = plan(self.parts.0, ground, reader)?;
        let append = appends(self.append, &parts, reader)?;
        fallbacks_fit(&parts, &append, &spots, reader).then_some(())?;
        joins_fit(&parts, &spots, reader).then_some(())?;
        let stream = streams(self.stream, &parts, &spots, reader)?;
        Some(Aggregate { timeout: self.timeout, parts, append, server_timing: self.server_timing, stream })
    }
}

/// Of members that meet in the root the last gives the value in the place of the first: none could go out before all are there.
fn streams(stream: Stream, parts: &[Part], spots: &[Span], reader: &mut Reader<'_>) -> Option<Stream> {
    if stream == Stream::Off {
        return Some(stream);
    }
    let Some(merged) = parts.iter().position(|part| part.shape.merge) else { return Some(stream) };
    let message = format!(
        "the part {} is merged into the root, which is known only when all parts are there",
        quoted(&parts[merged].name)
    );
    reader.error(spots[merged], message, "remove `merge`, or `stream`");
    None
}

const STREAMS: [(&str, Stream); 3] =
    [("true", Stream::Document), ("false", Stream::Off), ("ndjson", Stream::Lines)];

impl Value for Stream {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        choice(node, reader, "a way to stream", &STREAMS, &[])
    }

    fn schema() -> Json {
        json!({ "type": ["boolean", "string"], "pattern": "^(true|false|ndjson)$|\\$\\{" })
    }
}

/// What stands in for a part has to be of its kind, or null: nothing then stands where it would.
fn fallbacks_fit(parts: &[Part], append: &[Append], spots: &[Span], reader: &mut Reader<'_>) -> bool {
    let mut fit = true;
    for (place, part) in parts.iter().enumerate() {
        let is_appended = append.iter().any(|append| append.of.contains(&place));
        let (kind, open) = match (part.shape.merge, is_appended) {
            (true, _) => ("merged into the root: its fallback has to be an object", "{"),
            (false, true) if part.for_each.is_some() => continue,
            (false, true) => ("appended to others: its fallback has to be a list", "["),
            (false, false) => continue,
        };
        if let PartFallback::Value(json) = &part.fallback
            && json != "null"
            && !json.starts_with(open)
        {
            let message = format!("the part {} is {kind}", quoted(&part.name));
            reader.error(spots[place], message, "write one, or remove `fallback`");
            fit = false;
        }
    }
    fit
}

/// What stands in elements needs elements that stand somewhere, and a name of its own there.
fn joins_fit(parts: &[Part], spots: &[Span], reader: &mut Reader<'_>) -> bool {
    let into = |part: &Part| {
        part.for_each.clone().and_then(|each| each.into.map(|into| (each.from, each.query, into)))
    };
    for (place, part) in parts.iter().enumerate() {
        let Some(stands) = into(part) else { continue };
        let (message, remedy) = if parts[stands.0].hidden {
            (
                format!(
                    "{} is hidden, so that nothing stands in its elements",
                    quoted(&parts[stands.0].name)
                ),
                "show it, or remove `into`",
            )
        } else if parts[..place].iter().any(|other| into(other).as_ref() == Some(&stands)) {
            (format!("two parts stand in the same elements as {}", quoted(&stands.2)), "choose another name")
        } else {
            continue;
        };
        reader.error(spots[place], message, remedy);
        return false;
    }
    true
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
                let body = AnyPart::read(&entry.value, reader).map(|part| part.0);
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
            "additionalProperties": AnyPart::schema(),
        })
    }
}
