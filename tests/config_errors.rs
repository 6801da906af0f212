//! Every mistake a configuration can hold, and what is said about it: `golden/config/NAME.yaml` and,
//! beside it, `NAME.txt`. `GOLDEN=write cargo test --test config_errors` writes the texts anew; read
//! what changed before committing it.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatehouse::config::{self, Source};

/// Values of variables; `SECRET_VALUE` must never show up.
fn environment(name: &str) -> Option<String> {
    match name {
        "EMPTY" => Some(String::new()),
        "SECRET_VALUE" => Some("hunter2".to_owned()),
        _ => None,
    }
}

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let entries = std::fs::read_dir(directory).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    cases
}

fn source(case: &Path) -> Source {
    let text = config::read_source(case).unwrap().text;
    Source { path: PathBuf::from("gateway.yaml"), text }
}

fn told(source: &Source, colour: bool) -> String {
    match config::load(source, &environment) {
        Ok(loaded) => config::render(&loaded.warnings, source, colour),
        Err(problems) => {
            assert!(problems.has_errors(), "a configuration was refused without a reason");
            config::render(&problems, source, colour)
        }
    }
}

#[test]
fn every_mistake_is_explained() {
    let write = std::env::var_os("GOLDEN").is_some_and(|value| value == "write");
    let cases = cases();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut differing = Vec::new();
    for case in cases {
        let told = told(&source(&case), false);
        let golden = case.with_extension("txt");
        if write {
            std::fs::write(&golden, told).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != told {
            differing.push(format!("{}:\n{told}", case.display()));
        }
    }
    assert!(differing.is_empty(), "these differ from their golden texts:\n{}", differing.join("\n"));
}

#[test]
fn no_secret_is_ever_told() {
    for case in cases() {
        let source = source(&case);
        let told = match config::load(&source, &environment) {
            Ok(loaded) => {
                assert!(!format!("{:?}", loaded.config).contains("hunter"), "{}", case.display());
                loaded.warnings
            }
            Err(problems) => problems,
        };
        for text in [
            config::render(&told, &source, false),
            config::render(&told, &source, true),
            config::render_json(&told, &source).to_string(),
            format!("{source:?} {told:?}"),
        ] {
            assert!(!text.contains("hunter"), "{}:\n{text}", case.display());
        }
    }
}

#[test]
fn colour_only_adds_escapes() {
    let text: Arc<str> = "listners: []\nadmin: { bind: 0.0.0.0:1 }\n".into();
    let source = Source { path: PathBuf::from("gateway.yaml"), text };
    let coloured = told(&source, true);
    assert!(coloured.contains("\u{1b}[1;31merror\u{1b}[0m"));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    plain.push_str(rest);
    assert_eq!(plain, told(&source, false));
}
