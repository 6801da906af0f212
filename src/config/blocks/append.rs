//! `append`: the arrays of several parts of an aggregate as one.

use serde_json::{Value as Json, json};

use super::for_each::Way;
use crate::config::block::{Place, Value, block};
use crate::config::model::{Append, At, Part, ValueStep};
use crate::config::reader::Reader;
use crate::config::source::Span;
use crate::config::text::quoted;
use crate::config::values::NonEmpty;
use crate::config::values::units::Number;
use crate::config::yaml::Node;

/// `append` as written, with its name.
pub(super) struct AppendBody {
    name: String,
    span: Span,
    of: Vec<At<String>>,
    sort_by: Option<Vec<ValueStep>>,
    descending: bool,
    limit: Option<usize>,
}

pub(super) struct Appends(pub Vec<AppendBody>);

impl Value for Appends {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of names")?;
        let appends: Vec<Option<AppendBody>> = entries
            .iter()
            .map(|entry| {
                let body = OneAppend::read(&entry.value, reader)?;
                Some(AppendBody { name: entry.key.to_string(), span: entry.key_span, ..body.0 })
            })
            .collect();
        appends.into_iter().collect::<Option<_>>().map(Appends)
    }

    fn schema() -> Json {
        json!({ "type": ["object", "null"], "additionalProperties": OneAppend::schema() })
    }
}

struct OneAppend(AppendBody);

block! {
    /// One array out of those of several parts.
    "an append block" AppendBlock => OneAppend {
        /// Names of parts whose answers are arrays, in the order in which these follow each other.
        of: NonEmpty<At<String>> ["[shop-a, shop-b]"],
        /// The value of an element by which it is sorted, as in price or offer.price. Default: as they come.
        sort_by: Way,
        /// Whether the largest comes first. Default false.
        descending: bool,
        /// So many elements at most. Default: all.
        limit: Number<1, 1_000_000>,
    }
}

impl AppendBlock {
    fn finish(self, place: Place, _: &mut Reader<'_>) -> Option<OneAppend> {
        let of = self.of.required::<NonEmpty<At<String>>>();
        Some(OneAppend(AppendBody {
            name: String::new(),
            span: place.span,
            sort_by: self.sort_by.optional::<Way>()?.map(|key| key.0),
            descending: self.descending.or(false)?,
            limit: self.limit.optional()?,
            of: of?.0,
        }))
    }
}

/// Resolves the names of the parts; problems are told for what doesn't fit.
pub(super) fn appends(
    written: Vec<AppendBody>,
    parts: &[Part],
    reader: &mut Reader<'_>,
) -> Option<Vec<Append>> {
    let mut taken = Vec::new();
    let mut appends = Vec::with_capacity(written.len());
    for body in written {
        let clash = parts.iter().any(|part| part.name == body.name && !part.hidden && !part.shape.merge);
        if body.name == "_errors"
            || body.name.is_empty()
            || clash && !body.of.iter().any(|of| of.value == body.name)
        {
            let message = format!("a list can't be named {}", quoted(&body.name));
            reader.error(body.span, message, "give it a name that no part has");
            return None;
        }
        let of: Vec<Option<usize>> = body.of.iter().map(|of| source(of, parts, &mut taken, reader)).collect();
        appends.push(Append {
            name: body.name,
            of: of.into_iter().collect::<Option<_>>()?,
            sort_by: body.sort_by,
            descending: body.descending,
            limit: body.limit,
        });
    }
    Some(appends)
}

fn source(of: &At<String>, parts: &[Part], taken: &mut Vec<usize>, reader: &mut Reader<'_>) -> Option<usize> {
    let Some(place) = parts.iter().position(|part| part.name == of.value) else {
        let known = || parts.iter().map(|part| part.name.as_str());
        let remedy = match reader.suggestions.nearest(&of.value, known()) {
            Some(near) => format!("did you mean {}?", quoted(near)),
            None => format!("the aggregate has {}", known().collect::<Vec<_>>().join(", ")),
        };
        reader.error(of.span, format!("there is no part {}", quoted(&of.value)), remedy);
        return None;
    };
    let part = &parts[place];
    let wrong = match () {
        () if taken.contains(&place) => "is in a list already",
        () if part.hidden => "is hidden: it stands in no document",
        () if part.shape.merge => "is merged into the root",
        () if part.for_each.as_ref().is_some_and(|each| each.into.is_some()) => {
            "stands in elements of another"
        }
        () if part.shape.wrap.is_some() && part.for_each.is_none() => "is wrapped: it is no array",
        () => {
            taken.push(place);
            return Some(place);
        }
    };
    reader.error(of.span, format!("the part {} {wrong}", quoted(&of.value)), "keep one of both");
    None
}
