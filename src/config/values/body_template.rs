//! JSON written as YAML, with values in it: the body of a part's request. A text that is a value and nothing else becomes
//! that value, whatever it is; within other text a value is text.

use serde_json::{Value as Json, json};

use super::body::JsonText;
use super::part_template::{ValuePath, Written, text};
use crate::config::block::Value;
use crate::config::reader::{Form, Reader, has_variables};
use crate::config::yaml::{Kind, Node};

/// Compact JSON in pieces.
pub(in crate::config) struct BodyTemplate(pub Vec<WrittenBody>);

#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum WrittenBody {
    /// A stretch of JSON.
    Literal(String),
    /// A JSON value.
    Whole(ValuePath),
    /// Characters of a JSON string.
    Within(ValuePath),
}

impl Value for BodyTemplate {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let mut pieces = Vec::new();
        write(node, &mut pieces, reader).then_some(BodyTemplate(pieces))
    }

    fn schema() -> Json {
        json!({})
    }
}

const TEXT: Form = Form {
    name: "a text with values",
    remedy: "write `{name}` or `{part.member}` for a value, and `{{` for a brace",
};

fn write(node: &Node<'_>, pieces: &mut Vec<WrittenBody>, reader: &mut Reader<'_>) -> bool {
    match &node.kind {
        Kind::List(items) => {
            let mut whole = true;
            for (index, item) in items.iter().enumerate() {
                literal(pieces, if index > 0 { "," } else { "[" });
                whole &= write(item, pieces, reader);
            }
            literal(pieces, if items.is_empty() { "[]" } else { "]" });
            whole
        }
        Kind::Map(entries) => {
            let mut whole = true;
            for (index, entry) in entries.iter().enumerate() {
                literal(pieces, if index > 0 { "," } else { "{" });
                literal(pieces, &Json::from(&*entry.key).to_string());
                literal(pieces, ":");
                whole &= write(&entry.value, pieces, reader);
            }
            literal(pieces, if entries.is_empty() { "{}" } else { "}" });
            whole
        }
        Kind::Scalar(scalar) if scalar.text.contains(['{', '}']) && !has_variables(node) => {
            let Some(written) = reader.parse(node, &TEXT, text) else { return false };
            strings(written, pieces);
            true
        }
        _ => match JsonText::read(node, reader) {
            Some(json) => {
                literal(pieces, &json.0);
                true
            }
            None => false,
        },
    }
}

fn strings(written: Vec<Written>, pieces: &mut Vec<WrittenBody>) {
    if let [Written::Value(path)] = &written[..] {
        pieces.push(WrittenBody::Whole(path.clone()));
        return;
    }
    literal(pieces, "\"");
    for piece in written {
        match piece {
            Written::Literal(text) => {
                let quoted = Json::from(text).to_string();
                literal(pieces, &quoted[1..quoted.len() - 1]);
            }
            Written::Value(path) => pieces.push(WrittenBody::Within(path)),
        }
    }
    literal(pieces, "\"");
}

fn literal(pieces: &mut Vec<WrittenBody>, text: &str) {
    match pieces.last_mut() {
        Some(WrittenBody::Literal(last)) => last.push_str(text),
        _ => pieces.push(WrittenBody::Literal(text.to_owned())),
    }
}
