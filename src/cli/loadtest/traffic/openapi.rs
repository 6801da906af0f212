//! What an OpenAPI description says of requests: paths, methods, and examples of parameters and bodies.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value};

use crate::config::{PathMatch, parse_document};

/// References that lead to references, and schemas within schemas, are followed so far.
const MAX_DEPTH: usize = 16;
const MAX_OPERATIONS: usize = 1000;
const MAX_BODY_BYTES: usize = 1024 * 1024;
const METHODS: [(&str, Method); 6] = [
    ("get", Method::GET),
    ("head", Method::HEAD),
    ("post", Method::POST),
    ("put", Method::PUT),
    ("patch", Method::PATCH),
    ("delete", Method::DELETE),
];

#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenApi {
    pub operations: Vec<Operation>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    pub method: Method,
    /// With the path of the first server in front.
    pub path: String,
    /// Examples of the parameters in the path.
    pub parameters: BTreeMap<String, String>,
    /// Examples of parameters that are required in the query.
    pub query: BTreeMap<String, String>,
    pub body: Option<Bytes>,
}

impl OpenApi {
    /// Reads a description of version 3, in YAML or JSON.
    ///
    /// # Errors
    ///
    /// When it isn't one.
    pub fn parse(text: &str) -> Result<OpenApi, String> {
        let document: Value = parse_document(text)?;
        let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
        if !version.starts_with("3.") {
            return Err("it is no OpenAPI description of version 3: \"openapi: 3.x\" is missing".into());
        }
        let base = base(&document);
        let mut operations = Vec::new();
        let paths = document.get("paths").and_then(Value::as_object);
        for (path, item) in paths.into_iter().flatten() {
            let item = resolved(&document, item);
            for (name, method) in METHODS {
                let Some(described) = item.get(name) else { continue };
                if operations.len() == MAX_OPERATIONS {
                    return Err(format!("it has more than {MAX_OPERATIONS} operations"));
                }
                let path = format!("{base}{path}");
                operations.push(operation(&document, method, path, item, described));
            }
        }
        Ok(OpenApi { operations })
    }
}

/// Whether a route with this path takes a request for `path`, whose parameters stand for anything.
pub fn takes(route: &PathMatch, path: &str) -> bool {
    let segments =
        |text: &str| text.trim_start_matches('/').split('/').map(str::to_owned).collect::<Vec<_>>();
    let is_parameter = |segment: &str| segment.starts_with('{');
    let same = |(of_route, of_path): (&String, &String)| is_parameter(of_route) || of_route == of_path;
    match route {
        PathMatch::Path(text) => {
            let (of_route, of_path) = (segments(&text.value), segments(path));
            of_route.len() == of_path.len() && of_route.iter().zip(&of_path).all(same)
        }
        PathMatch::Prefix(text) => {
            let prefix = text.value.trim_end_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        // What a pattern takes depends on the values of parameters.
        PathMatch::Regex(_) => false,
    }
}

/// The path of the first server's URL.
fn base(document: &Value) -> String {
    let url = document.pointer("/servers/0/url").and_then(Value::as_str).unwrap_or_default();
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => url,
    };
    let path = path.trim_end_matches('/');
    if path.starts_with('/') && !path.contains('{') { path.to_owned() } else { String::new() }
}

fn operation(document: &Value, method: Method, path: String, item: &Value, described: &Value) -> Operation {
    let mut parameters = BTreeMap::new();
    let mut query = BTreeMap::new();
    // Those of the operation come last, for they replace those of the path.
    for parameter in [item, described].iter().filter_map(|of| of.get("parameters")?.as_array()).flatten() {
        let parameter = resolved(document, parameter);
        let text = |key: &str| parameter.get(key).and_then(Value::as_str);
        let (Some(name), Some(place)) = (text("name"), text("in")) else { continue };
        let required = parameter.get("required").and_then(Value::as_bool).unwrap_or(false);
        let Some(value) = parameter_example(document, parameter) else { continue };
        match place {
            "path" => drop(parameters.insert(name.to_owned(), value)),
            "query" if required => drop(query.insert(name.to_owned(), value)),
            _ => {}
        }
    }
    let body = described.get("requestBody").and_then(|body| body_example(document, resolved(document, body)));
    Operation { method, path, parameters, query, body }
}

fn parameter_example(document: &Value, parameter: &Value) -> Option<String> {
    let schema = parameter.get("schema").map(|schema| of_schema(document, schema, 0));
    let value = given(document, parameter).or_else(|| schema.flatten())?;
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn body_example(document: &Value, body: &Value) -> Option<Bytes> {
    let content = body.get("content")?.as_object()?;
    let media =
        content.iter().find(|(kind, _)| kind.starts_with("application/json") || kind.ends_with("+json"))?.1;
    let schema = || media.get("schema").and_then(|schema| of_schema(document, schema, 0));
    let value = given(document, media).or_else(schema)?;
    Some(Bytes::from(value.to_string())).filter(|body| body.len() <= MAX_BODY_BYTES)
}

/// `example`, or the first of `examples`.
fn given(document: &Value, of: &Value) -> Option<Value> {
    let first = || {
        let example = of.get("examples")?.as_object()?.values().next()?;
        resolved(document, example).get("value").cloned()
    };
    of.get("example").cloned().or_else(first)
}

/// A value of the schema: its example where it has one, else one put together.
fn of_schema(document: &Value, schema: &Value, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    let schema = resolved(document, schema);
    let first = |key: &str| schema.get(key).and_then(|values| values.get(0)).cloned();
    let said =
        schema.get("example").or_else(|| schema.get("default")).or_else(|| schema.get("const")).cloned();
    if let Some(value) = said.or_else(|| first("examples")).or_else(|| first("enum")) {
        return Some(value);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        let Some(parts) = schema.get(key).and_then(Value::as_array) else { continue };
        let mut values = parts.iter().filter_map(|part| of_schema(document, part, depth + 1));
        return match key {
            "allOf" => Some(values.fold(Value::Null, joined)),
            _ => values.next(),
        };
    }
    let kind = schema.get("type").map(|kind| kind.get(0).unwrap_or(kind)).and_then(Value::as_str);
    match kind {
        Some("string") => Some(Value::from(text(schema))),
        Some("integer" | "number") => Some(schema.get("minimum").cloned().unwrap_or_else(|| Value::from(1))),
        Some("boolean") => Some(Value::from(true)),
        Some("array") => {
            let item = schema.get("items").and_then(|items| of_schema(document, items, depth + 1));
            Some(Value::Array(item.into_iter().collect()))
        }
        Some("object") | None => {
            let properties = schema.get("properties")?.as_object()?;
            let value = |(name, schema): (&String, &Value)| {
                Some((name.clone(), of_schema(document, schema, depth + 1)?))
            };
            Some(Value::Object(properties.iter().filter_map(value).collect::<Map<_, _>>()))
        }
        Some(_) => None,
    }
}

fn text(schema: &Value) -> &'static str {
    match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2026-01-01",
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("uuid") => "00000000-0000-4000-8000-000000000001",
        Some("email") => "ada@example.com",
        Some("uri" | "url") => "https://example.com/",
        _ => "text",
    }
}

/// The members of both objects; what is no object is replaced.
fn joined(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Object(mut first), Value::Object(second)) => {
            first.extend(second);
            Value::Object(first)
        }
        (_, second) => second,
    }
}

/// What a reference within the document leads to; others are as if they weren't there.
fn resolved<'v>(document: &'v Value, value: &'v Value) -> &'v Value {
    let mut value = value;
    for _ in 0..MAX_DEPTH {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
        let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        let Some(target) = target else { return &Value::Null };
        value = target;
    }
    &Value::Null
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{At, Span};

    const SHOP: &str = r##"
openapi: 3.1.0
servers: [{ url: https://api.example.com/v1 }]
paths:
  /users/{id}:
    parameters: [{ name: id, in: path, required: true, schema: { type: integer, example: 42 } }]
    get:
      parameters:
        - { name: lang, in: query, required: true, example: de }
        - { name: page, in: query, example: 3 }
    put: { requestBody: { $ref: "#/components/requestBodies/User" } }
  /users:
    post:
      requestBody: { content: { application/json: { examples: { ada: { value: { name: Ada } } } } } }
components:
  requestBodies: { User: { content: { application/json: { schema: { $ref: "#/components/schemas/User" } } } } }
  schemas:
    User:
      type: object
      properties:
        name: { type: string, example: Grace }
        born: { type: string, format: date }
        roles: { type: array, items: { enum: [admin, author] } }
        boss: { $ref: "#/components/schemas/User" }
"##;

    #[test]
    fn examples_are_found_wherever_they_are() {
        let shop = OpenApi::parse(SHOP).expect("a description");
        let find = |method: Method| shop.operations.iter().find(|o| o.method == method).expect("it is there");
        let get = find(Method::GET);
        assert_eq!(get.path, "/v1/users/{id}");
        assert_eq!(get.parameters, BTreeMap::from([("id".to_owned(), "42".to_owned())]));
        assert_eq!(get.query, BTreeMap::from([("lang".to_owned(), "de".to_owned())]));
        assert_eq!(find(Method::POST).body.as_deref(), Some(&b"{\"name\":\"Ada\"}"[..]));
        let put: Value =
            serde_json::from_slice(find(Method::PUT).body.as_deref().expect("a body")).expect("JSON");
        assert_eq!(
            (&put["name"], &put["born"], &put["roles"]),
            (&"Grace".into(), &"2026-01-01".into(), &serde_json::json!(["admin"]))
        );
        // The schema within itself ends somewhere.
        assert_eq!(put["boss"]["boss"]["name"], "Grace");
    }

    #[test]
    fn routes_take_what_they_would_take() {
        let at = |text: &str| At { value: text.to_owned(), span: Span::default() };
        assert!(takes(&PathMatch::Path(at("/users/{user}")), "/users/{id}"));
        assert!(!takes(&PathMatch::Path(at("/users/me")), "/users/{id}"));
        assert!(!takes(&PathMatch::Path(at("/users/{user}")), "/users"));
        assert!(takes(&PathMatch::Prefix(at("/users")), "/users/{id}/orders"));
        assert!(takes(&PathMatch::Prefix(at("/")), "/users"));
        assert!(!takes(&PathMatch::Prefix(at("/user")), "/users"));
    }

    #[test]
    fn what_is_no_description_is_refused() {
        for text in ["", "[]", "swagger: '2.0'", "openapi: 2", "{", "openapi: 3.0.0\npaths: ["] {
            assert!(OpenApi::parse(text).is_err(), "{text:?}");
        }
        let loops = "openapi: 3.0.0\npaths: { /a: { $ref: '#/paths/~1a' }, /b: 5, /c: { get: 7 } }";
        assert_eq!(OpenApi::parse(loops).expect("odd, but one").operations.len(), 1);
    }
}
