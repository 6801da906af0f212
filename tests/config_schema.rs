//! The JSON Schema and the parser agree about what a configuration is.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

use std::collections::BTreeSet;
use std::path::Path;

use gatehouse::config::*;
use serde_json::{Value as Json, json};

fn environment(name: &str) -> Option<String> {
    (name == "REGISTRY_TOKEN").then(|| "a-registry-token".to_owned())
}

fn source(text: &str) -> Source {
    Source { path: "/etc/gatehouse/gateway.yaml".into(), text: text.into() }
}

fn as_json(text: &str) -> Json {
    serde_yaml::from_str(text).unwrap()
}

#[test]
fn the_schema_is_valid_and_takes_what_the_parser_takes() {
    let schema = schema();
    jsonschema::meta::validate(&schema).unwrap_or_else(|error| panic!("{error}"));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let complete = as_json(include_str!("data/complete.yaml"));
    let errors: Vec<String> =
        validator.iter_errors(&complete).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// Every golden configuration that loads must fit the schema, and every key that is unknown to the
/// parser must be unknown to the schema.
#[test]
fn the_schema_agrees_with_the_parser_about_mistakes() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let mut compared = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = read_source(&path).unwrap().text;
        let Ok(value) = serde_yaml::from_str::<Json>(&text) else { continue };
        compared += 1;
        match load(&source(&text), &environment) {
            Ok(_) => assert!(validator.is_valid(&value), "{} loads, but not by the schema", path.display()),
            Err(problems) => {
                let unknown = problems.iter().any(|p| {
                    p.message.starts_with("unknown key") || p.message.contains("needs the key \"name\"")
                });
                assert!(!unknown || !validator.is_valid(&value), "{} fits the schema", path.display());
            }
        }
    }
    assert!(compared > 50, "{compared}");
}

/// The complete configuration holds every key of the schema, so every key of the schema is one that
/// the parser takes.
#[test]
fn every_key_of_the_schema_is_in_the_complete_configuration() {
    let (mut all, mut used) = (BTreeSet::new(), BTreeSet::new());
    walk(&schema(), None, "", &mut all);
    walk(&schema(), Some(&as_json(include_str!("data/complete.yaml"))), "", &mut used);
    let missing: Vec<_> = all.difference(&used).collect();
    assert!(missing.is_empty(), "not in complete.yaml: {missing:?}");
    assert!(all.len() > 100, "{}", all.len());
}

/// The paths of the schema's keys; with a value, only of those that the value holds.
fn walk(schema: &Json, value: Option<&Json>, path: &str, found: &mut BTreeSet<String>) {
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        let inner = value.map(|value| &value[key]);
        if inner.is_some_and(Json::is_null) {
            continue;
        }
        let path = format!("{path}.{key}");
        walk(below, inner, &path, found);
        found.insert(path);
    }
    let named = &schema["additionalProperties"];
    if named.is_object() {
        match value {
            None => walk(named, None, &format!("{path}.*"), found),
            Some(value) => value
                .as_object()
                .into_iter()
                .flatten()
                .for_each(|(_, inner)| walk(named, Some(inner), &format!("{path}.*"), found)),
        }
    }
    match value {
        None => {
            if !schema["items"].is_null() {
                walk(&schema["items"], None, &format!("{path}[]"), found);
            }
        }
        Some(value) => value
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|inner| walk(&schema["items"], Some(inner), &format!("{path}[]"), found)),
    }
    for below in schema["anyOf"].as_array().into_iter().flatten() {
        walk(below, value, path, found);
    }
}

#[test]
fn keys_are_described() {
    let schema = schema();
    assert_eq!(schema["required"], json!(["listeners"]));
    let bind = &schema["properties"]["listeners"]["items"]["properties"]["bind"];
    assert_eq!(bind["description"], "IP address and port. Port 0 lets the system choose one.");
}
