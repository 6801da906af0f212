//! The one declaration of a block of keys, from which come its reading and its schema.
//!
//! [`block!`] lists the keys that a block has, with their types and meanings. The parser knows
//! exactly these, and the JSON Schema is made of exactly these.

use serde_json::{Value as Json, json};

use super::reader::Reader;
use super::source::Span;
use super::text::quoted;
use super::yaml::{Entry, Node};

/// Something that can be written in a configuration.
pub(super) trait Value: Sized {
    /// Reads it. `None` when it is wrong; `reader` has been told what.
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// The JSON Schema of what [`Value::read`] takes.
    fn schema() -> Json;
}

/// What came of reading one key of a block.
pub(super) enum Field<T> {
    Absent,
    /// Written, but wrong, or required and missing: the problem is told already.
    Wrong,
    Read(T),
}

impl<T> Field<T> {
    /// The value, or the default of an absent key. `None` when the key was wrong.
    pub fn or<U: From<T>>(self, default: U) -> Option<U> {
        match self {
            Field::Absent => Some(default),
            Field::Wrong => None,
            Field::Read(value) => Some(value.into()),
        }
    }

    /// `Some(None)` for an absent key, `None` for one that was wrong.
    pub fn optional<U: From<T>>(self) -> Option<Option<U>> {
        match self {
            Field::Absent => Some(None),
            Field::Wrong => None,
            Field::Read(value) => Some(Some(value.into())),
        }
    }

    /// The value of a key declared as required.
    pub fn required<U: From<T>>(self) -> Option<U> {
        match self {
            Field::Absent | Field::Wrong => None,
            Field::Read(value) => Some(value.into()),
        }
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    pub fn value(&self) -> Option<&T> {
        match self {
            Field::Read(value) => Some(value),
            _ => None,
        }
    }
}

/// Where a block is written.
pub(super) struct Place {
    pub span: Span,
    /// Keys were found that don't belong there, so that "nothing is given" would be wrong to say.
    pub strays: bool,
    /// Keys that strays were probably meant to be: they aren't reported as missing too.
    pub meant: Vec<&'static str>,
}

/// The keys of a block, found among its entries.
pub(super) struct Keys<'n, 's> {
    entries: &'n [Entry<'s>],
    pub place: Place,
    title: &'static str,
}

impl<'n, 's> Keys<'n, 's> {
    /// Finds the entries, and tells of those that don't belong here.
    pub fn new(
        node: &'n Node<'s>,
        title: &'static str,
        known: &[&'static str],
        later: &[&'static str],
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let entries = reader.entries(node, title)?;
        let mut strays = false;
        let mut meant = Vec::new();
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            strays = true;
            match later.contains(&&*entry.key) {
                true => reader.not_supported(entry.key_span, &entry.key),
                false => meant.extend(unknown(entry, title, known, reader)),
            }
        }
        Some(Keys { entries, place: Place { span: node.span, strays, meant }, title })
    }

    pub fn field<T: Value>(&self, key: &str, example: Option<&str>, reader: &mut Reader<'_>) -> Field<T> {
        match (self.entries.iter().find(|entry| entry.key == key), example) {
            (Some(entry), _) => T::read(&entry.value, reader).map_or(Field::Wrong, Field::Read),
            (None, None) => Field::Absent,
            (None, Some(_)) if self.place.meant.contains(&key) => Field::Wrong,
            (None, Some(example)) => {
                let message = format!("{} needs the key {}", self.title, quoted(key));
                reader.error(self.place.span, message, format!("add `{key}: {example}`"));
                Field::Wrong
            }
        }
    }
}

/// Tells of a key that doesn't exist here; returns the one that was probably meant.
fn unknown(
    entry: &Entry<'_>,
    title: &str,
    known: &[&'static str],
    reader: &mut Reader<'_>,
) -> Option<&'static str> {
    // `retries { attempts: 2 }` is a key with a brace in it, as YAML reads it.
    if let Some((key, _)) = entry.key.split_once([' ', '{', '['])
        && let Some(meant) = known.iter().find(|known| **known == key)
        && let Some(opener) = entry.key[key.len()..].trim_start().chars().next()
        && matches!(opener, '{' | '[')
    {
        reader.error(
            entry.key_span,
            format!("a colon is missing behind {}", quoted(key)),
            format!("write `{key}: {opener}`"),
        );
        return Some(*meant);
    }
    let near = reader.suggestions.nearest(&entry.key, known.iter().copied());
    let remedy = if let Some(near) = near {
        format!("did you mean {}?", quoted(near))
    } else if let Some(place) = super::schema::place_of(&entry.key) {
        format!("{} belongs in {place}", quoted(&entry.key))
    } else if known.is_empty() {
        "nothing can be set here".to_owned()
    } else {
        format!("{title} can have: {}", known.join(", "))
    };
    let message = format!("unknown key {} in {title}", quoted(&entry.key));
    reader.error(entry.key_span, message, remedy);
    near
}

/// The schema of a block, from the schemas of its keys.
pub(super) fn object(doc: &[&str], keys: Vec<(&str, &[&str], Json, bool)>) -> Json {
    let required: Vec<&str> = keys.iter().filter(|(.., required)| *required).map(|(key, ..)| *key).collect();
    let mut properties = serde_json::Map::new();
    for (key, doc, mut schema, _) in keys {
        if let Json::Object(schema) = &mut schema {
            schema.insert("description".to_owned(), json!(prose(doc)));
        }
        properties.insert(key.to_owned(), schema);
    }
    let mut schema = json!({
        // Nothing written below a key is an empty block, which is fine when no key is required.
        "type": if required.is_empty() { json!(["object", "null"]) } else { json!("object") },
        "additionalProperties": false,
        "properties": properties,
    });
    if !doc.is_empty() {
        schema["description"] = json!(prose(doc));
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The lines of a doc comment as one paragraph.
fn prose(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// `block! { "a listener" ListenerBlock => Listener { /// meaning ⏎ key: Type ["example"], } later { "x" } }`
///
/// Declares the struct `ListenerBlock` with a [`Field`] per key and implements [`Value`] for
/// `Listener` by way of `ListenerBlock::finish(self, place, reader) -> Option<Listener>`. A key with
/// an example is required; the keys under `later` are named by the contract but not built.
macro_rules! block {
    (
        $(#[doc = $doc:literal])*
        $title:literal $block:ident => $out:ty {
            $( $(#[doc = $key_doc:literal])* $key:ident : $type:ty $([$example:literal])? ),* $(,)?
        }
        $(later { $($later:literal),* $(,)? })?
    ) => {
        $(#[doc = $doc])*
        struct $block {
            $( $key: $crate::config::block::Field<$type>, )*
        }

        impl $crate::config::block::Value for $out {
            fn read(
                node: &$crate::config::yaml::Node<'_>,
                reader: &mut $crate::config::reader::Reader<'_>,
            ) -> Option<Self> {
                const KNOWN: &[&str] = &[$($crate::config::block::key_name(stringify!($key))),*];
                const LATER: &[&str] = &[$($($later),*)?];
                let keys = $crate::config::block::Keys::new(node, $title, KNOWN, LATER, reader)?;
                let block = $block {
                    $( $key: {
                        let example: &[&str] = &[$($example)?];
                        let key = $crate::config::block::key_name(stringify!($key));
                        keys.field(key, example.first().copied(), reader)
                    }, )*
                };
                block.finish(keys.place, reader)
            }

            fn schema() -> serde_json::Value {
                $crate::config::block::object(&[$($doc),*], vec![
                    $( (
                        $crate::config::block::key_name(stringify!($key)),
                        &[$($key_doc),*][..],
                        <$type as $crate::config::block::Value>::schema(),
                        { let examples: &[&str] = &[$($example)?]; !examples.is_empty() },
                    ), )*
                ])
            }
        }
    };
}
pub(super) use block;

/// The key that a field stands for: raw identifiers lose their `r#`.
pub(super) const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}
