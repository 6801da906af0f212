//! Ways to fields of an answer: `address.city`, `items[*].price`, `["odd.name"].x`.

use serde_json::Value as Json;
use serde_json_path::JsonPath;

use super::text_schema;
use crate::config::block::Value;
use crate::config::model::FieldStep;
use crate::config::reader::{Form, Reader};
use crate::config::source::Span;
use crate::config::text::quoted;
use crate::config::yaml::Node;

#[derive(Clone, Debug)]
pub(in crate::config) struct FieldPath(pub Vec<FieldStep>);

const FIELD: Form = Form {
    name: "a way to a field",
    remedy: "write it as in address.city or items[*].price; a name with dots as in [\"a.b\"]",
};

impl Value for FieldPath {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &FIELD, |text| field_path(text).map(FieldPath).ok_or(None))
    }

    fn schema() -> Json {
        text_schema(".+")
    }
}

/// The same, written as a key.
pub(in crate::config) fn field_key(key: &str, span: Span, reader: &mut Reader<'_>) -> Option<Vec<FieldStep>> {
    let path = field_path(key);
    if path.is_none() {
        reader.error(span, format!("{} is not {}", quoted(key), FIELD.name), FIELD.remedy);
    }
    path
}

/// No path of use is longer, and each step of one may cost a level of the stack.
const MOST_STEPS: usize = 32;

fn field_path(text: &str) -> Option<Vec<FieldStep>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[*]") {
            steps.push(FieldStep::Each);
            rest = after;
        } else if let Some(inner) = rest.strip_prefix("[\"") {
            let (name, after) = inner.split_once("\"]")?;
            steps.push(FieldStep::Member(name.to_owned()));
            rest = after;
        } else {
            let inner = if steps.is_empty() { rest } else { rest.strip_prefix('.')? };
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            let (name, after) = inner.split_at(end);
            if name.is_empty() || name.contains([']', '"', '*']) {
                return None;
            }
            steps.push(FieldStep::Member(name.to_owned()));
            rest = after;
        }
    }
    (1..=MOST_STEPS).contains(&steps.len()).then_some(steps)
}

/// A query of RFC 9535.
pub(in crate::config) struct QueryText(pub String);

impl Value for QueryText {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "a JSONPath",
            remedy: "write one of RFC 9535, as in $.data.items or $.items[?@.price < 10]",
        };
        reader.parse(node, &form, |text| match JsonPath::parse(text) {
            Ok(_) => Ok(QueryText(text.to_owned())),
            Err(_) if !text.starts_with('$') && JsonPath::parse(&format!("$.{text}")).is_ok() => {
                Err(Some(format!("write $.{text}")))
            }
            Err(_) => Err(None),
        })
    }

    fn schema() -> Json {
        text_schema("\\$.*")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> FieldStep {
        FieldStep::Member(name.to_owned())
    }

    #[test]
    fn ways_go_through_lists() {
        assert_eq!(field_path("a").unwrap(), [member("a")]);
        assert_eq!(
            field_path("items[*].price").unwrap(),
            [member("items"), FieldStep::Each, member("price")]
        );
        assert_eq!(field_path("[*][*].a").unwrap(), [FieldStep::Each, FieldStep::Each, member("a")]);
        assert_eq!(field_path("a[\"b.c\"].d").unwrap(), [member("a"), member("b.c"), member("d")]);
        for bad in ["", ".", "a.", ".a", "a..b", "a[0]", "a[", "a[*", "[*]a", "a.*", "a]"] {
            assert!(field_path(bad).is_none(), "{bad}");
        }
    }
}
