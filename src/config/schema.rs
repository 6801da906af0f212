//! The JSON Schema of a configuration, made of the declarations that the parser reads with.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value as Json, json};

use super::block::Value;
use super::model::Config;

/// JSON Schema 2020-12, for editors and other checks of the shape. What must hold between values
/// (names that exist, one action per route …) only [`super::load`] can tell.
pub fn schema() -> Json {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Gatehouse",
    });
    if let (Json::Object(schema), Json::Object(config)) = (&mut schema, Config::schema()) {
        schema.extend(config);
    }
    schema
}

/// Where a key can be written, if anywhere: `services.NAME` for `retries`. Of several places those that are
/// the least deep.
pub(super) fn place_of(key: &str) -> Option<&'static str> {
    static PLACES: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    let places = PLACES.get_or_init(|| {
        let mut places = BTreeMap::new();
        collect(&schema(), "", &mut places);
        places.into_iter().map(|(key, (_, places))| (key, alternatives(&places))).collect()
    });
    places.get(key).map(String::as_str)
}

fn alternatives(places: &[String]) -> String {
    match places {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        one => one.concat(),
    }
}

/// The least deep places for every key, with their depth.
fn collect(schema: &Json, path: &str, places: &mut BTreeMap<String, (usize, Vec<String>)>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (key, below) in properties {
            let (depth, place) = match path {
                "" => (0, "the top level".to_owned()),
                _ => (path.split('.').count(), format!("`{path}`")),
            };
            let known = places.entry(key.clone()).or_insert((depth, Vec::new()));
            if depth < known.0 {
                *known = (depth, Vec::new());
            }
            if depth == known.0 && !known.1.contains(&place) {
                known.1.push(place);
            }
            collect(below, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, places);
        }
    }
    for (below, step) in [(&schema["additionalProperties"], ".NAME"), (&schema["items"], "[]")] {
        if below.is_object() {
            collect(below, &format!("{path}{step}"), places);
        }
    }
    for below in schema["anyOf"].as_array().into_iter().flatten() {
        collect(below, path, places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_places() {
        assert_eq!(place_of("retries"), Some("`routes[].forward` or `services.NAME`"));
        assert_eq!(place_of("min_version"), Some("`listeners[].tls`"));
        assert_eq!(place_of("routes"), Some("the top level"));
        assert_eq!(place_of("methods"), Some("`routes[].authenticate`, `routes[].cors` or `routes[].match`"));
        assert_eq!(place_of("nonsense"), None);
    }
}
