//! Other documents than a configuration, in YAML or JSON: what commands read beside one.

use serde::de::DeserializeOwned;
use serde_yaml::{Budget, Options};

/// Deep enough for a document that describes an interface.
const MAX_DEPTH: usize = 64;

/// Reads a text of bounded size. An error is in words, with its line and column.
///
/// # Errors
///
/// When it is not YAML or JSON, or not of this form.
pub fn parse_document<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut budget = Budget::default();
    budget.max_depth = MAX_DEPTH;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.with_snippet = false;
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|place| format!("{}:{}: ", place.line(), place.column()));
        let said = error.to_string();
        let line = said.lines().next().unwrap_or_default();
        let words = line.split_once(" at line ").map_or(line, |(words, _)| words);
        format!("{}{words}", place.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn yaml_and_json_are_read_and_places_told() {
        let expected = json!({ "a": [1, "b", null, 2.5, true] });
        assert_eq!(parse_document::<Value>("a: [1, b, null, 2.5, true]"), Ok(expected.clone()));
        assert_eq!(parse_document::<Value>("{\"a\": [1, \"b\", null, 2.5, true]}"), Ok(expected));
        let error = parse_document::<Value>("a: b\nc: [").expect_err("it has no end");
        assert!(error.contains(':'), "{error}");
        let deep = "[".repeat(2000) + &"]".repeat(2000);
        assert!(parse_document::<Value>(&deep).is_err());
    }
}
