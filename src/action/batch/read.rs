//! The body of a batch: a list of requests, as JSON that is looked into and never built, so that no nesting costs stack
//! and what is sent on is sent as it was written.
//!
//! What makes it no list of requests refuses the whole; what is wrong with a request is that one's own affair.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, Method, header};
use serde_json::value::RawValue;

use super::answer::is_json;
use super::plan;
use super::text::{Fault, References, Template, Text, is_id, string};
use crate::action::aggregate::json::{Json, Kind};
use crate::reason::Reason;

pub struct Requests {
    pub items: Vec<Item>,
    /// The list stood in an object, as that of the answers is to.
    pub is_wrapped: bool,
}

pub struct Item {
    pub id: Option<Box<str>>,
    pub request: Result<ItemRequest, Fault>,
    /// The places of those that must have been answered before, each once.
    pub needs: Vec<usize>,
}

pub struct ItemRequest {
    pub method: Method,
    pub path: Text,
    pub fields: Vec<(HeaderName, Text)>,
    pub body: ItemBody,
}

pub enum ItemBody {
    None,
    Json(Bytes),
    /// Text or anything else, which says itself what it is.
    Plain(Bytes),
    Template(Template),
}

/// Reads a batch of `most` items at most. `is_taken`: the fields that no item may have. The error is for the client.
pub fn read(body: &Bytes, most: usize, is_taken: &dyn Fn(&HeaderName) -> bool) -> Result<Requests, String> {
    let checked: &RawValue = serde_json::from_slice(body)
        .map_err(|error| format!("the body is not JSON: line {}, column {}", error.line(), error.column()))?;
    let (list, is_sequential, is_wrapped) = list_of(Json::of(checked.get().as_bytes()))?;
    let mut written = Vec::new();
    for (place, element) in list.elements().enumerate() {
        if place == most {
            return Err(format!("the batch has more than the {most} items that are allowed"));
        }
        written.push(Written::read(element).map_err(|error| format!("item {}: {error}", place + 1))?);
    }
    if written.is_empty() {
        return Err("the batch has no items".to_owned());
    }
    let mut ids: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for (place, item) in written.iter().enumerate() {
        if let Some(id) = &item.id
            && let Some(other) = ids.insert(id.clone(), place)
        {
            return Err(format!("items {} and {} both have the id {id}", other + 1, place + 1));
        }
    }
    let item = |(place, item): (usize, &Written<'_>)| {
        let mut references = References { ids: &ids, needs: Vec::new(), count: 0 };
        let before = if is_sequential { place.checked_sub(1) } else { None };
        let request = item.request(body, &mut references, is_taken);
        let mut needs = if request.is_ok() { references.needs } else { Vec::new() };
        needs.extend(before.filter(|_| request.is_ok()));
        needs.sort_unstable();
        needs.dedup();
        Item { id: item.id.as_deref().map(Into::into), request, needs }
    };
    let mut items: Vec<Item> = written.iter().enumerate().map(item).collect();
    plan::refuse_cycles(&mut items);
    Ok(Requests { items, is_wrapped })
}

/// A list, or an object around one; whether each item waits for the one before it.
fn list_of(json: Json<'_>) -> Result<(Json<'_>, bool, bool), String> {
    match json.kind() {
        Kind::Array => return Ok((json, false, false)),
        Kind::Object => {}
        _ => return Err("a batch is a list of requests, or an object with one in `requests`".to_owned()),
    }
    let (mut list, mut sequential) = (None, None);
    for (key, value) in json.members() {
        let is_new = match &*key.name() {
            "requests" if value.kind() != Kind::Array => return Err("`requests` is not a list".to_owned()),
            "requests" => list.replace(value).is_none(),
            "sequential" if value.kind() != Kind::Bool => {
                return Err("`sequential` is neither true nor false".to_owned());
            }
            "sequential" => sequential.replace(value.bytes() == b"true").is_none(),
            _ => return Err("a batch has `requests` and `sequential`, and nothing else".to_owned()),
        };
        if !is_new {
            return Err("`requests` or `sequential` is there twice".to_owned());
        }
    }
    let list = list.ok_or("the batch has no `requests`")?;
    Ok((list, sequential.unwrap_or(false), true))
}

/// Name and value.
type WrittenField<'b> = (Cow<'b, str>, Cow<'b, str>);

/// An item as it is written: of the right types, but nothing more.
#[derive(Default)]
struct Written<'b> {
    id: Option<Cow<'b, str>>,
    method: Option<Cow<'b, str>>,
    path: Cow<'b, str>,
    fields: Vec<WrittenField<'b>>,
    after: Vec<Cow<'b, str>>,
    body: Option<WrittenBody<'b>>,
}

enum WrittenBody<'b> {
    Value(Json<'b>),
    Template(Json<'b>),
    Base64(Cow<'b, str>),
}

const KEYS: [&str; 8] = ["id", "method", "path", "headers", "body", "body_template", "body_base64", "after"];

impl<'b> Written<'b> {
    fn read(json: Json<'b>) -> Result<Self, String> {
        if json.kind() != Kind::Object {
            return Err("it is not an object".to_owned());
        }
        let mut item = Written::default();
        let mut seen = [false; KEYS.len()];
        for (key, value) in json.members() {
            let name = key.name();
            let place = KEYS.iter().position(|known| *known == name);
            let place = place.ok_or_else(|| format!("it has a key that is none of {}", KEYS.join(", ")))?;
            if std::mem::replace(&mut seen[place], true) {
                return Err(format!("`{name}` is there twice"));
            }
            if value.kind() != Kind::Null {
                item.take(KEYS[place], value)?;
            }
        }
        if item.path.is_empty() {
            return Err("it has no `path`".to_owned());
        }
        Ok(item)
    }

    fn take(&mut self, key: &'static str, value: Json<'b>) -> Result<(), String> {
        let text = || string(value).ok_or_else(|| format!("`{key}` is not a text"));
        match key {
            "id" => {
                let wrong = "`id` has 1 to 64 letters, digits, - and _";
                self.id = Some(text()?).filter(|id| is_id(id));
                self.id.as_ref().ok_or(wrong)?;
            }
            "method" => self.method = Some(text()?),
            "path" => self.path = text()?,
            "headers" => self.fields = fields(value)?,
            "after" => {
                self.after = texts(value).ok_or("`after` is neither an id nor a list of them")?;
            }
            _ => {
                let body = match key {
                    "body" => WrittenBody::Value(value),
                    "body_template" => WrittenBody::Template(value),
                    _ => WrittenBody::Base64(text()?),
                };
                if self.body.replace(body).is_some() {
                    return Err(
                        "it has more than one of `body`, `body_template` and `body_base64`".to_owned()
                    );
                }
            }
        }
        Ok(())
    }
}

fn fields(value: Json<'_>) -> Result<Vec<WrittenField<'_>>, String> {
    if value.kind() != Kind::Object {
        return Err("`headers` is not an object".to_owned());
    }
    let mut fields = Vec::new();
    for (key, value) in value.members() {
        let values = texts(value).ok_or("a value in `headers` is neither a text nor a list of them")?;
        fields.extend(values.into_iter().map(|value| (key.name(), value)));
    }
    Ok(fields)
}

/// One text or a list of them.
fn texts(value: Json<'_>) -> Option<Vec<Cow<'_, str>>> {
    match value.kind() {
        Kind::String => Some(vec![string(value)?]),
        Kind::Array => value.elements().map(string).collect(),
        _ => None,
    }
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> Fault {
    Fault::new(Reason::BatchItemInvalid, detail)
}

impl Written<'_> {
    fn request(
        &self,
        whole: &Bytes,
        references: &mut References<'_>,
        is_taken: &dyn Fn(&HeaderName) -> bool,
    ) -> Result<ItemRequest, Fault> {
        for id in &self.after {
            references.place(id)?;
        }
        let method = match &self.method {
            None => Method::GET,
            Some(method) => {
                Method::from_bytes(method.as_bytes()).map_err(|_| invalid("`method` is not one"))?
            }
        };
        if !self.path.starts_with('/') {
            return Err(invalid("`path` does not begin with a slash"));
        }
        let path = references.text(&self.path)?;
        let mut fields = Vec::new();
        for (name, value) in &self.fields {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| invalid("a name in `headers` is not that of a header field"))?;
            if is_taken(&name) {
                return Err(invalid(format!("an item can't say anything in the field {name}")));
            }
            fields.push((name, references.text(value)?));
        }
        let types = fields.iter().filter(|(name, _)| *name == header::CONTENT_TYPE);
        if types.clone().nth(1).is_some() {
            return Err(invalid("there is more than one Content-Type"));
        }
        let is_plain = types.clone().next().is_some_and(|(_, text)| !text.as_literal().is_some_and(is_json));
        let body = self.body(whole, references, is_plain)?;
        Ok(ItemRequest { method, path, fields, body })
    }

    /// `is_plain`: it says that it is something else than JSON.
    fn body(
        &self,
        whole: &Bytes,
        references: &mut References<'_>,
        is_plain: bool,
    ) -> Result<ItemBody, Fault> {
        Ok(match &self.body {
            None => ItemBody::None,
            Some(WrittenBody::Value(value)) if is_plain => {
                let text = string(*value)
                    .ok_or_else(|| invalid("a `body` that is no JSON by its Content-Type is a text"))?;
                ItemBody::Plain(text.into_owned().into())
            }
            Some(WrittenBody::Value(value)) => ItemBody::Json(whole.slice_ref(value.bytes())),
            Some(WrittenBody::Template(_)) if is_plain => {
                return Err(invalid("a `body_template` is JSON, and the Content-Type says otherwise"));
            }
            Some(WrittenBody::Template(value)) => ItemBody::Template(references.template(whole, *value)?),
            Some(WrittenBody::Base64(text)) => {
                let bytes =
                    STANDARD.decode(text.as_bytes()).map_err(|_| invalid("`body_base64` is no base64"))?;
                ItemBody::Plain(bytes.into())
            }
        })
    }
}

#[cfg(test)]
impl Item {
    pub fn waiting_for(needs: Vec<usize>) -> Self {
        let path = References { ids: &HashMap::new(), needs: Vec::new(), count: 0 }.text("/");
        let path = path.expect("it is a plain text");
        let request = ItemRequest { method: Method::GET, path, fields: Vec::new(), body: ItemBody::None };
        Item { id: None, request: Ok(request), needs }
    }
}
