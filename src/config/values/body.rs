//! JSON written as YAML: the body of `respond`, `fallback` and the fallbacks of parts.

use serde_json::{Value as Json, json};

use crate::config::block::Value;
use crate::config::reader::Reader;
use crate::config::text::quoted;
use crate::config::yaml::{Kind, Node};

/// Compact JSON with its keys in the order of the file.
pub(in crate::config) struct JsonText(pub String);

impl Value for JsonText {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let mut text = String::new();
        write(node, &mut text, reader).then_some(JsonText(text))
    }

    fn schema() -> Json {
        json!({})
    }
}

impl From<JsonText> for String {
    fn from(json: JsonText) -> String {
        json.0
    }
}

/// Whether all of the node could be written; problems are told for what could not.
fn write(node: &Node<'_>, text: &mut String, reader: &mut Reader<'_>) -> bool {
    match &node.kind {
        Kind::Null => text.push_str("null"),
        Kind::List(items) => {
            let mut whole = true;
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                whole &= write(item, text, reader);
            }
            text.push(']');
            return whole;
        }
        Kind::Map(entries) => {
            let mut whole = true;
            text.push('{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push_string(&entry.key, text);
                text.push(':');
                whole &= write(&entry.value, text, reader);
            }
            text.push('}');
            return whole;
        }
        Kind::Scalar(scalar) => {
            let value = match reader.replace_variables(&scalar.text) {
                Ok(value) => value,
                Err(fault) => {
                    reader.error(node.span, fault.message, fault.remedy);
                    return false;
                }
            };
            match plain(&value).filter(|_| scalar.plain) {
                Some(Ok(literal)) => text.push_str(&literal),
                Some(Err(())) => {
                    let message = format!("{} has no form in JSON", quoted(&scalar.text));
                    reader.error(node.span, message, "write a finite number, or put it in quotes");
                    return false;
                }
                None => push_string(&value, text),
            }
        }
    }
    true
}

fn push_string(value: &str, text: &mut String) {
    // A string always has a JSON form.
    text.push_str(&Json::from(value).to_string());
}

/// The JSON form of a scalar that YAML's core schema (YAML 1.2 §10.3.2) takes for something other than text.
fn plain(text: &str) -> Option<Result<String, ()>> {
    match text {
        "true" | "True" | "TRUE" => return Some(Ok("true".to_owned())),
        "false" | "False" | "FALSE" => return Some(Ok("false".to_owned())),
        "" | "~" | "null" | "Null" | "NULL" => return Some(Ok("null".to_owned())),
        ".nan" | ".NaN" | ".NAN" => return Some(Err(())),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(Err(()));
    }
    let radix =
        [("0x", 16), ("0o", 8)].iter().find_map(|(prefix, radix)| Some((text.strip_prefix(prefix)?, *radix)));
    if let Some((digits, radix)) = radix {
        return u128::from_str_radix(digits, radix).ok().map(|number| Ok(number.to_string()));
    }
    let number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.contains(|c: char| c.is_ascii_digit())
        && unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !number {
        return None;
    }
    // JSON's own numbers keep their digits; others (`+1`, `.5`, `010`) get a form that JSON has.
    if serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok() {
        return Some(Ok(text.to_owned()));
    }
    if let Ok(integer) = text.parse::<i128>() {
        return Some(Ok(integer.to_string()));
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Some(Ok(Json::from(float).to_string())),
        Ok(_) => Some(Err(())),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_keep_what_they_say() {
        let ok = |text: &str| plain(text).map(|r| r.unwrap());
        assert_eq!(ok("1"), Some("1".to_owned()));
        assert_eq!(ok("1.0"), Some("1.0".to_owned()));
        assert_eq!(ok("-12e3"), Some("-12e3".to_owned()));
        assert_eq!(ok("+1"), Some("1".to_owned()));
        assert_eq!(ok(".5"), Some("0.5".to_owned()));
        assert_eq!(ok("010"), Some("10".to_owned()));
        assert_eq!(ok("0x1F"), Some("31".to_owned()));
        assert_eq!(ok("12345678901234567890123"), Some("12345678901234567890123".to_owned()));
        for text in ["1.2.3", "2024-01-01", "abc", "-", ".", "1e", "yes", "10s"] {
            assert_eq!(plain(text), None, "{text}");
        }
        assert_eq!(plain(".inf"), Some(Err(())));
        assert_eq!(plain("1e999"), Some(Ok("1e999".to_owned())));
    }
}
