//! A part of an `aggregate` that nobody is asked for.

use serde_json::Value as Json;

use super::part::{PartBody, SourceBody};
use crate::config::block::{Place, Value, block};
use crate::config::model::{At, PartShape};
use crate::config::reader::Reader;
use crate::config::values::body::JsonText;
use crate::config::yaml::{Kind, Node};

struct StaticBody(PartBody);

block! {
    /// A part that is written here.
    "a static part" StaticBlock => StaticBody {
        /// The part, as JSON.
        r#static: At<JsonText> ["{ version: 3 }"],
        /// Whether its members stand in the root of the document. Default false.
        merge: bool,
        /// Whether the part is left out of the document: it is there for others. Default false.
        hidden: At<bool>,
    }
}

impl StaticBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<StaticBody> {
        let At { value: JsonText(json), span } = self.r#static.required::<At<JsonText>>()?;
        let merge = self.merge.or(false)?;
        if merge && !json.starts_with('{') {
            reader.error(span, "what is merged into the root is an object", "write one, or remove `merge`");
            return None;
        }
        let hidden = self.hidden.optional::<At<bool>>()?;
        Some(StaticBody(PartBody {
            source: SourceBody::Static(json),
            for_each: None,
            after: Vec::new(),
            required: false,
            fallback: None,
            shape: PartShape { merge, ..PartShape::default() },
            hidden: hidden.filter(|hidden| hidden.value).map(|hidden| hidden.span),
        }))
    }
}

/// A part of either kind.
pub(super) struct AnyPart(pub PartBody);

impl Value for AnyPart {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let is_static =
            matches!(&node.kind, Kind::Map(entries) if entries.iter().any(|entry| entry.key == "static"));
        match is_static {
            true => StaticBody::read(node, reader).map(|body| AnyPart(body.0)),
            false => PartBody::read(node, reader).map(AnyPart),
        }
    }

    fn schema() -> Json {
        serde_json::json!({ "anyOf": [PartBody::schema(), StaticBody::schema()] })
    }
}
