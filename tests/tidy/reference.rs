//! `docs/configuration.md` names exactly the keys that the parser knows, and its examples, taken together,
//! are a configuration in which every one of them is used.

use std::collections::BTreeSet;

use gatehouse::config::{self, Source};
use serde_json::Value as Json;

use super::source::{none, read, root};

const PAGE: &str = "docs/configuration.md";

#[test]
fn exactly_the_keys_of_the_schema_are_documented() {
    let known: BTreeSet<String> = keys(&config::schema()).into_iter().collect();
    let documented = documented();
    let missing = known.difference(&documented).map(|key| format!("{PAGE} says nothing of {key}"));
    let invented = documented.difference(&known).map(|key| format!("{PAGE} has {key}, which does not exist"));
    none(
        &missing.chain(invented).collect::<Vec<_>>(),
        "Add a row to the table of its block, or take it out.",
    );
}

/// The defaults that the schema tells editors are those that the page tells readers.
#[test]
fn defaults_are_the_same_in_the_schema() {
    let default = regex::Regex::new(r"Default:? ([a-zA-Z0-9_./%-]+[a-zA-Z0-9%])").expect("a good pattern");
    let rows = rows();
    let mut broken = Vec::new();
    for (key, description) in descriptions(&config::schema(), "") {
        let Some(told) = default.captures(&description).map(|captures| captures[1].to_owned()) else {
            continue;
        };
        // One word or value; where a sentence is needed, tables and schema may say it each in its own way.
        let Some((_, row)) = rows.iter().find(|(documented, _)| *documented == key) else { continue };
        if told.starts_with(|c: char| c.is_ascii_digit()) && !row.contains(&format!("`{told}`")) {
            broken.push(format!("{key}: the schema has {told}, {PAGE} has {row}"));
        }
    }
    none(&broken, "Both must tell the default that is in force.");
}

#[test]
fn the_examples_are_a_configuration_with_every_key() {
    let text = examples();
    let source =
        Source { path: root().join(PAGE).with_file_name("../gateway.yaml"), text: text.as_str().into() };
    let environment = |name: &str| (name == "JWT_SECRET").then(|| "x".repeat(32));
    let loaded = match config::load(&source, &environment) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{}", config::render(&problems, &source, false)),
    };
    assert!(loaded.warnings.is_empty(), "{}", config::render(&loaded.warnings, &source, false));
    let problems = gatehouse::gateway::check(&loaded.config);
    assert!(!problems.has_errors(), "{}", config::render(&problems, &source, false));
    let value: Json = serde_yaml::from_str(&text).expect("YAML, as was seen");
    let mut used = BTreeSet::new();
    uses(&config::schema(), &value, "", &mut used);
    let missing = keys(&config::schema()).into_iter().filter(|key| !used.contains(key));
    none(&missing.collect::<Vec<_>>(), "Use the key in the example of its section.");
}

/// The paths of all keys: `services.NAME.retries.budget`, `routes[].name`.
fn keys(schema: &Json) -> Vec<String> {
    descriptions(schema, "").into_iter().map(|(key, _)| key).collect()
}

fn descriptions(schema: &Json, path: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = join(path, key);
        found.push((path.clone(), below["description"].as_str().unwrap_or_default().to_owned()));
        found.extend(descriptions(below, &path));
    }
    found.extend(descriptions_below(&schema["additionalProperties"], &format!("{path}.NAME")));
    found.extend(descriptions_below(&schema["items"], &format!("{path}[]")));
    for below in schema["anyOf"].as_array().into_iter().flatten() {
        found.extend(descriptions(below, path));
    }
    found
}

fn descriptions_below(schema: &Json, path: &str) -> Vec<(String, String)> {
    if schema.is_object() { descriptions(schema, path) } else { Vec::new() }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Notes which keys of the schema `value` uses.
fn uses(schema: &Json, value: &Json, path: &str, used: &mut BTreeSet<String>) {
    for below in schema["anyOf"].as_array().into_iter().flatten() {
        uses(below, value, path, used);
    }
    if let Some(list) = value.as_array() {
        list.iter().for_each(|value| uses(&schema["items"], value, &format!("{path}[]"), used));
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        if let Some(below) = schema["properties"].get(key) {
            let path = join(path, key);
            uses(below, value, &path, used);
            used.insert(path);
        } else if schema["additionalProperties"].is_object() {
            uses(&schema["additionalProperties"], value, &format!("{path}.NAME"), used);
        }
    }
}

/// Keys of the page: the first cell of a table's row, below the block that the heading before it names.
fn documented() -> BTreeSet<String> {
    let rows = rows();
    let all: BTreeSet<String> = rows.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(all.len(), rows.len(), "a key is documented twice");
    all
}

/// The key and the whole line of every row. A heading can name several blocks that have the same keys.
fn rows() -> Vec<(String, String)> {
    let page = read(&root().join(PAGE));
    let mut blocks: Vec<String> = vec![String::new()];
    let mut found = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("##") {
            let quoted = heading.split('`').skip(1).step_by(2).map(str::to_owned);
            blocks = quoted.collect();
        } else if let Some(cell) = line.strip_prefix("| `") {
            let key = cell.split('`').next().unwrap_or_default();
            assert!(!blocks.is_empty(), "a row of keys below a heading that names no block: {line}");
            found.extend(blocks.iter().map(|block| {
                let key = if block == "top level" { key.to_owned() } else { join(block, key) };
                (key, line.to_owned())
            }));
        }
    }
    found
}

/// The blocks of YAML on the page, one after the other.
fn examples() -> String {
    let page = read(&root().join(PAGE));
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.collect()
}
