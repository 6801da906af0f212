//! The values that blocks are made of: how each is read, and its schema.

pub(super) mod body;
pub(super) mod body_template;
pub(super) mod field_path;
pub(super) mod http;
pub(super) mod net;
pub(super) mod part_template;
pub(super) mod path;
pub(super) mod template;
pub(super) mod units;

use serde_json::{Value as Json, json};

use super::block::Value;
use super::model::At;
use super::reader::{Form, Reader, has_variables, shown};
use super::secret::Secret;
use super::source::Span;
use super::text::{alternatives, quoted};
use super::yaml::{Kind, Node};

/// A scalar that may also be written with a variable: `pattern`, or anything that holds `${`.
pub(super) fn text_schema(pattern: &str) -> Json {
    json!({ "type": "string", "pattern": format!("^({pattern})$|\\$\\{{") })
}

/// A scalar that YAML may take for a number.
pub(super) fn number_or_text_schema(pattern: &str) -> Json {
    let mut schema = text_schema(pattern);
    schema["type"] = json!(["string", "number"]);
    schema
}

impl<T: Value> Value for At<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(node, reader).map(|value| At { value, span: node.span })
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let items = reader.items(node)?;
        let read: Vec<Option<T>> = items.iter().map(|item| T::read(item, reader)).collect();
        read.into_iter().collect()
    }

    fn schema() -> Json {
        json!({ "type": ["array", "null"], "items": T::schema() })
    }
}

/// A list of one or more.
pub(super) struct NonEmpty<T>(pub Vec<T>);

impl<T> From<NonEmpty<T>> for Vec<T> {
    fn from(list: NonEmpty<T>) -> Self {
        list.0
    }
}

impl<T: Value> Value for NonEmpty<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let list = Vec::read(node, reader)?;
        if list.is_empty() {
            reader.error(node.span, "this list is empty", "write at least one item");
            return None;
        }
        Some(NonEmpty(list))
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema(), "minItems": 1 })
    }
}

impl Value for bool {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "true or false", remedy: "write true or false" };
        reader.parse(node, &form, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            "yes" | "on" | "True" | "TRUE" => Err(Some("write true".to_owned())),
            "no" | "off" | "False" | "FALSE" => Err(Some("write false".to_owned())),
            _ => Err(None),
        })
    }

    fn schema() -> Json {
        json!({ "type": ["boolean", "string"], "pattern": "^(true|false)$|\\$\\{" })
    }
}

/// A switch that can only be off, because what it switches is not built.
pub(super) struct Off;

impl Value for Off {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match bool::read(node, reader)? {
            false => Some(Off),
            true => {
                reader.error(node.span, "this is not supported yet", "write false, or remove the key");
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "const": false })
    }
}

/// Text that isn't empty.
impl Value for String {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "text", remedy: "write a text" };
        let text = reader.text(node, &form)?;
        if text.is_empty() {
            reader.error(node.span, "this text is empty", "write one, or remove the key");
            return None;
        }
        Some(text.into_owned())
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"], "minLength": 1 })
    }
}

/// Text that may be empty.
pub(super) fn text_value(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<String> {
    let form = Form { name: "text", remedy: "write a text" };
    reader.text(node, &form).map(std::borrow::Cow::into_owned)
}

/// Text that may be empty, and that is a secret.
impl Value for Secret {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "text", remedy: "write the secret as text, best as `${VARIABLE}`" };
        reader.text(node, &form).map(|text| Secret::new(text.into_owned()))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number"] })
    }
}

/// A path of the file system, made absolute.
pub(super) struct FilePath(pub std::path::PathBuf);

impl Value for FilePath {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::read(node, reader)?;
        if text.contains('\0') {
            reader.error(node.span, "a path can't hold a NUL character", "remove it");
            return None;
        }
        Some(FilePath(reader.path(&text)))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

impl From<FilePath> for std::path::PathBuf {
    fn from(path: FilePath) -> Self {
        path.0
    }
}

/// The name that users give to a listener, service, route and so on. It shows up in logs, metrics
/// and URLs, so it is kept plain.
#[derive(Clone, Debug)]
pub(super) struct Name(pub String);

const NAME: Form = Form {
    name: "a name",
    remedy: "use letters, digits, `-`, `_` and `.`, at most 100 of them, beginning with a letter or digit",
};

fn is_name(text: &str) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

impl Value for Name {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parse(node, &NAME, |text| match is_name(text) {
            true => Ok(Name(text.to_owned())),
            false => Err(None),
        })
    }

    fn schema() -> Json {
        number_or_text_schema("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
    }
}

/// `name: value` for as many names as the user likes, in the order of the file.
pub(super) struct Named<T>(pub Vec<(At<String>, T)>);

impl<T: Value> Value for Named<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let entries = reader.entries(node, "a block of names")?;
        let mut named = Vec::with_capacity(entries.len());
        let mut whole = true;
        for entry in entries {
            if !is_name(&entry.key) {
                let message = format!("{} is not {}", quoted(&entry.key), NAME.name);
                reader.error(entry.key_span, message, NAME.remedy);
                whole = false;
            }
            match T::read(&entry.value, reader) {
                Some(value) => {
                    named.push((At { value: entry.key.to_string(), span: entry.key_span }, value));
                }
                None => whole = false,
            }
        }
        whole.then_some(Named(named))
    }

    fn schema() -> Json {
        json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$" },
            "additionalProperties": T::schema(),
        })
    }
}

/// One of a few words. `later` holds those that the contract names and this version can't do.
pub(super) fn choice<T: Copy>(
    node: &Node<'_>,
    reader: &mut Reader<'_>,
    name: &'static str,
    words: &[(&'static str, T)],
    later: &[&str],
) -> Option<T> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let remedy = format!("write {}", alternatives(&known));
    let text = match &node.kind {
        Kind::Scalar(_) => reader.text(node, &Form { name, remedy: "" })?,
        _ => {
            reader.error(node.span, format!("expected {name}, found {}", node.described()), remedy);
            return None;
        }
    };
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    if later.contains(&&*text) && !has_variables(node) {
        reader.not_supported(node.span, &text);
        return None;
    }
    let near = match has_variables(node) {
        true => None,
        false => reader.suggestions.nearest(&text, known.iter().copied()),
    };
    let remedy = near.map_or(remedy, |near| format!("did you mean {}?", quoted(near)));
    reader.error(node.span, format!("{} is not {name}", shown(node)), remedy);
    None
}

pub(super) fn choice_schema<T>(words: &[(&'static str, T)]) -> Json {
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    text_schema(&words.join("|"))
}

/// Tells of a name that nothing defines. `kind` is `service`, `block` where services are defined.
pub(super) fn undefined(
    reader: &mut Reader<'_>,
    span: Span,
    name: &str,
    kind: &str,
    block: &str,
    defined: &[String],
) {
    let near = reader.suggestions.nearest(name, defined.iter().map(String::as_str));
    let remedy = match near {
        Some(near) => format!("did you mean {}?", quoted(near)),
        None if defined.is_empty() => format!("define it under `{block}:`"),
        None if defined.len() <= 8 => {
            format!("there is {}; or define it under `{block}:`", defined.join(", "))
        }
        None => format!("define it under `{block}:`"),
    };
    reader.error(span, format!("there is no {kind} {}", quoted(name)), remedy);
}
