//! The answer to a batch: those to its items, in their order.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::answer::{Answer, Body};
use super::board::Board;
use super::read::Requests;
use crate::http::fields::Fields;

pub fn document(requests: &Requests, board: &Board) -> Bytes {
    let answers = || (0..requests.items.len()).filter_map(|place| board.answer(place));
    let size: usize = answers().map(|answer| answer.body.bytes().len() + 256).sum();
    let mut out = Vec::with_capacity(size);
    if requests.is_wrapped {
        out.extend_from_slice(b"{\"responses\":");
    }
    out.push(b'[');
    for (place, answer) in answers().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(requests.items[place].id.as_deref(), answer, &mut out);
    }
    out.push(b']');
    if requests.is_wrapped {
        out.push(b'}');
    }
    out.into()
}

fn write(id: Option<&str>, answer: &Answer, out: &mut Vec<u8>) {
    let mut head = String::from("{");
    if let Some(id) = id {
        let _ = write!(head, "\"id\":{},", Value::from(id));
    }
    let _ = write!(head, "\"status\":{},\"headers\":", answer.status.as_u16());
    write_fields(&answer.fields, &mut head);
    out.extend_from_slice(head.as_bytes());
    match &answer.body {
        Body::None => {}
        Body::Json(json) => {
            out.extend_from_slice(b",\"body\":");
            out.extend_from_slice(json);
        }
        Body::Text(text) => {
            out.extend_from_slice(b",\"body\":");
            out.extend_from_slice(Value::from(String::from_utf8_lossy(text)).to_string().as_bytes());
        }
        Body::Binary(bytes) => {
            out.extend_from_slice(b",\"body_base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
    out.push(b'}');
}

/// A field that came several times has a list.
fn write_fields(fields: &Fields, out: &mut String) {
    let mut told: Vec<(&[u8], Vec<Value>)> = Vec::new();
    for (name, value) in fields.iter() {
        let value = Value::from(text(value));
        match told.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => told.push((name, vec![value])),
        }
    }
    out.push('{');
    for (place, (name, mut values)) in told.into_iter().enumerate() {
        let value = if values.len() == 1 { values.swap_remove(0) } else { Value::Array(values) };
        let separator = if place > 0 { "," } else { "" };
        let _ = write!(out, "{separator}{}:{value}", Value::from(text(name)));
    }
    out.push('}');
}

/// UTF-8, else each byte a character (RFC 9110 §5.5).
fn text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().map(|byte| char::from(*byte)).collect(),
    }
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Body::None => &[],
            Body::Json(bytes) | Body::Text(bytes) | Body::Binary(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn an_answer_is_told_as_it_came() {
        let field = |name: &'static str, value: &'static [u8]| {
            let value = HeaderValue::from_bytes(value).expect("a test's own value");
            (HeaderName::from_static(name), value)
        };
        let fields = [field("vary", b"a"), field("x-a", b"\xe9\""), field("vary", "é".as_bytes())];
        let told = |id: Option<&str>, body| {
            let answer =
                Answer { status: StatusCode::OK, fields: fields.clone().into_iter().collect(), body };
            let mut out = Vec::new();
            write(id, &answer, &mut out);
            String::from_utf8(out).expect("JSON is text")
        };
        let head = "\"status\":200,\"headers\":{\"vary\":[\"a\",\"é\"],\"x-a\":\"é\\\"\"}";
        assert_eq!(told(Some("i"), Body::None), format!("{{\"id\":\"i\",{head}}}"));
        let json = Body::Json(Bytes::from_static(b"{\"a\": 1e400}"));
        assert_eq!(told(None, json), format!("{{{head},\"body\":{{\"a\": 1e400}}}}"));
        assert_eq!(told(None, Body::Text("a\"\n".into())), format!("{{{head},\"body\":\"a\\\"\\n\"}}"));
        let binary = Body::Binary(Bytes::from_static(b"\xff\0"));
        assert_eq!(told(None, binary), format!("{{{head},\"body_base64\":\"/wA=\"}}"));
    }
}
