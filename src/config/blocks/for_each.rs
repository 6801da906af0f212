//! `for_each` and what belongs to it: a part that is asked for each element of another.

use serde_json_path::JsonPath;

use super::plan::Resolver;
use crate::config::block::Value;
use crate::config::block::{Place, block};
use crate::config::model::{
    At, Batch, BodyPiece, ForEach, PartCall, PartPiece, PartTemplate, ValueOf, ValueStep,
};
use crate::config::reader::{Form, Reader};
use crate::config::source::Span;
use crate::config::text::quoted;
use crate::config::values::part_template::value_path;
use crate::config::values::text_schema;
use crate::config::values::units::Number;
use crate::config::yaml::Node;

/// `$.orders[*].lines[*]`: the name of a part and the way from its answer.
pub(super) struct Elements {
    pub part: String,
    pub query: String,
}

impl Value for Elements {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "a JSONPath to the elements of a part",
            remedy: "write $ and the part's name first, as in $.orders[*], or $['order-lines'][*] for a name with other signs",
        };
        reader.parse(node, &form, |text| elements(text).ok_or(None))
    }

    fn schema() -> serde_json::Value {
        text_schema("\\$[.\\[].+")
    }
}

fn elements(text: &str) -> Option<Elements> {
    JsonPath::parse(text).ok()?;
    let rest = text.strip_prefix('$')?;
    let (part, rest) = if let Some(rest) = rest.strip_prefix('[') {
        let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
        let (name, rest) = rest[1..].split_once(quote)?;
        (name, rest.strip_prefix(']')?)
    } else {
        let rest = rest.strip_prefix('.')?;
        rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()))
    };
    let is_plain = !part.is_empty() && !part.contains(['\\', '*']);
    is_plain.then(|| Elements { part: part.to_owned(), query: format!("${rest}") })
}

/// The way to a value inside of an element.
pub(super) struct Way(pub Vec<ValueStep>);

impl Value for Way {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "the way to a value", remedy: "write it as in price or offer.price" };
        reader.parse(node, &form, |text| {
            let path = value_path(text)?;
            let first = std::iter::once(ValueStep::Member(path.name));
            Ok(Way(first.chain(path.steps).collect()))
        })
    }

    fn schema() -> serde_json::Value {
        String::schema()
    }
}

block! {
    /// Many elements in one call.
    "a batch block" BatchBlock => Batch {
        /// The query parameter that gets the keys, with commas between them.
        parameter: String ["ids"],
        /// Where an element has its key, as in product_id. Default: the element is the key.
        value: Way,
        /// Where an element of the answer has it, as in id.
        key: Way ["id"],
        /// Keys of one call. Default 50.
        size: Number<1, 1000>,
    }
}

impl BatchBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Batch> {
        Some(Batch {
            parameter: self.parameter.required()?,
            value: self.value.optional::<Way>()?.map_or_else(Vec::new, |way| way.0),
            key: self.key.required::<Way>()?.0,
            size: self.size.or(50usize)?,
        })
    }
}

/// What a part says of its elements, as written.
pub(super) struct ForEachBody {
    pub elements: At<Elements>,
    pub into: Option<At<String>>,
    pub concurrency: usize,
    pub max_items: usize,
    pub batch: Option<At<Batch>>,
}

impl Resolver<'_> {
    pub(super) fn for_each(&mut self, body: ForEachBody, reader: &mut Reader<'_>) -> Option<ForEach> {
        let from = self.other(&body.elements.value.part, body.elements.span, false, reader)?;
        Some(ForEach {
            from,
            query: body.elements.value.query,
            into: body.into.map(|into| into.value),
            concurrency: body.concurrency,
            max_items: body.max_items,
            batch: body.batch.map(|batch| batch.value),
        })
    }
}

/// Whether a call uses the element, which a batch has many of.
pub(super) fn uses_item(call: &PartCall) -> bool {
    let is_item = |value: &ValueOf| matches!(value, ValueOf::Item(_));
    let in_text = |text: &PartTemplate| {
        text.0.iter().any(|piece| matches!(piece, PartPiece::Value(value) if is_item(value)))
    };
    let in_body = |piece: &BodyPiece| match piece {
        BodyPiece::Literal(_) => false,
        BodyPiece::Whole(value) | BodyPiece::Within(value) => is_item(value),
    };
    in_text(&call.path)
        || call.headers.iter().any(|(_, text)| in_text(text))
        || call.body.iter().flatten().any(in_body)
}

/// A part whose request is the same for every element asks one question many times.
pub(super) fn fits(name: &str, is_batch: bool, uses: bool, span: Span, reader: &mut Reader<'_>) -> bool {
    match (is_batch, uses) {
        (true, true) => {
            let message = format!(
                "the part {} asks for many elements in one call, so that {{item}} is none of them",
                quoted(name)
            );
            reader.error(span, message, "say with `value` under `batch` where an element has its key");
            false
        }
        (false, false) => {
            let message = format!("the part {} asks the same for every element", quoted(name));
            reader.error(
                span,
                message,
                "use {item} in `path`, `headers` or `body`, as in {item.product_id}, or `batch`",
            );
            false
        }
        _ => true,
    }
}
