//! Documents and examples: found from their index, linked to what exists, and true as far as a machine can tell.

use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use super::source::{files_below, none, read, root};

/// Documents for readers of the repository.
fn documents() -> Vec<PathBuf> {
    let top = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md"].map(|name| root().join(name));
    let directories = ["docs", "examples", "certs", "fuzz"];
    let below = directories.iter().flat_map(|directory| files_below(&root().join(directory), "md"));
    top.into_iter()
        .chain(below.filter(|path| !path.components().any(|c| c.as_os_str() == "target")))
        .collect()
}

#[test]
fn every_page_is_in_the_index() {
    let index = read(&root().join("docs/README.md"));
    let pages = files_below(&root().join("docs"), "md");
    let missing = pages.iter().filter_map(|page| {
        let name = page.file_name()?.to_str()?;
        (name != "README.md" && !index.contains(&format!("]({name})"))).then(|| format!("docs/{name}"))
    });
    none(&missing.collect::<Vec<_>>(), "Link it in docs/README.md.");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a good pattern");
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        for target in link.captures_iter(&text).map(|captures| captures[1].to_owned()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let directory = document.parent().expect("a file is in a directory");
            let path = if file.is_empty() { document.clone() } else { directory.join(file) };
            let found = path.exists() && (anchor.is_empty() || anchors(&path).contains(&anchor.to_owned()));
            if !found {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    none(&broken, "Point it at a file, or a heading, that exists.");
}

/// A promise is worth as much as the test that shows it.
#[test]
fn every_promise_names_tests_that_exist() {
    let text = read(&root().join("SECURITY.md"));
    let link = Regex::new(r"\[`(\w+)`\]\(([^)\s]+\.rs)\)").expect("a good pattern");
    let missing = link.captures_iter(&text).filter_map(|link| {
        let test = format!("fn {}(", &link[1]);
        (!read(&root().join(&link[2])).contains(&test)).then(|| format!("{}: no {test})", &link[2]))
    });
    none(&missing.collect::<Vec<_>>(), "Name the test that shows it, or write it.");
    let promises = text.split_once("| promise |").map_or("", |(_, table)| table);
    let rows = promises.lines().skip(2).take_while(|line| line.starts_with('|'));
    let (shown, bare): (Vec<&str>, Vec<&str>) = rows.partition(|row| link.is_match(row));
    assert!(bare.is_empty() && shown.len() > 10, "promises without a test: {bare:#?}");
}

/// The anchors that GitHub gives a document's headings.
fn anchors(document: &Path) -> Vec<String> {
    let text = read(document);
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings
        .map(|heading| {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Examples are the YAML files of the directory itself; what they refer to lies below it.
fn examples() -> Vec<PathBuf> {
    let all = files_below(&root().join("examples"), "yaml");
    all.into_iter().filter(|path| path.parent() == Some(&root().join("examples"))).collect()
}

#[test]
fn every_example_is_in_the_index() {
    let index = read(&root().join("examples/README.md"));
    let missing = examples().into_iter().filter_map(|example| {
        let name = example.file_name()?.to_str()?;
        (!index.contains(&format!("]({name})"))).then(|| format!("examples/{name}"))
    });
    none(&missing.collect::<Vec<_>>(), "Link it in examples/README.md.");
}

/// With the command that users have, and without a word of warning.
#[test]
fn every_example_is_a_good_configuration() {
    let mut all = examples();
    assert!(!all.is_empty());
    all.push(root().join("gateway.yaml"));
    all.push(root().join("deploy/compose/gateway.yaml"));
    let bad = all.iter().filter_map(|example| {
        let mut check = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        check.arg("check").arg("-c").arg(example);
        // What compose.yaml sets.
        check
            .env("JWT_SECRET", "x".repeat(32))
            .env("GATEHOUSE_ADMIN_TOKEN", "a-token-for-the-admin-interface");
        let check = check.output().expect("the program runs");
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        (!check.status.success() || said.contains("warning")).then_some(said)
    });
    none(&bad.collect::<Vec<_>>(), "`gatehouse check` must find nothing in it.");
}
