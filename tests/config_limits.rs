//! Texts that are made to hurt, large ones, and broken ones of every kind: all are answered soon, in
//! bounded memory, and without a panic.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

use std::fmt::Write;
use std::time::{Duration, Instant};

use gatehouse::config::{self, Loaded, Problems, Source};
use proptest::prelude::*;

fn source(text: String) -> Source {
    Source { path: "gateway.yaml".into(), text: text.into() }
}

fn load(text: impl Into<String>) -> Result<Loaded, Problems> {
    config::load(&source(text.into()), &|_| None)
}

fn refusal(text: impl Into<String>) -> String {
    let source = source(text.into());
    let problems = config::load(&source, &|_| None).unwrap_err();
    assert!(problems.has_errors());
    config::render(&problems, &source, false)
}

const HEAD: &str = "listeners: [{ name: http, bind: 127.0.0.1:0 }]\n";

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = format!("{HEAD}routes:\n  - name: a\n    match: {{}}\n    respond:\n      json:\n");
    text.push_str("        a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..40 {
        let below = level - 1;
        let aliases = vec![format!("*a{below}"); 10].join(", ");
        writeln!(text, "        a{level}: &a{level} [{aliases}]").unwrap();
    }
    let started = Instant::now();
    let told = refusal(text);
    assert!(told.contains("aliases repeat more than"), "{told}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_bomb_of_merges_is_refused() {
    let mut text = format!("{HEAD}defaults:\n  x0: &x0 {{ {} }}\n", keys(1000));
    for level in 1..2000 {
        writeln!(text, "  x{level}: &x{level} {{ <<: *x{}, extra{level}: 1 }}", level - 1).unwrap();
    }
    assert!(refusal(text).contains("aliases repeat more than"));
}

fn keys(count: usize) -> String {
    (0..count).map(|n| format!("k{n}: 1")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_long_text_that_aliases_repeat_is_refused() {
    let long = "x".repeat(1 << 20);
    let aliases = vec!["*long"; 10_000].join(", ");
    let text = format!(
        "{HEAD}routes:\n  - {{ name: &long \"{long}\", match: {{ hosts: [{aliases}] }}, respond: {{}} }}\n"
    );
    assert!(refusal(text).contains("aliases repeat more than"));
}

#[test]
fn a_chain_of_anchors_is_no_way_around_the_depth() {
    let mut text = format!("{HEAD}trusted_proxies:\n  - &a0 [x]\n");
    for level in 1..5000 {
        writeln!(text, "  - &a{level} [*a{}]", level - 1).unwrap();
    }
    assert!(refusal(text).contains("nested more than 64 levels deep"));
}

#[test]
fn deep_nesting_is_refused() {
    let brackets = |open: &str, close: &str| {
        format!("{HEAD}routes: {}{}\n", open.repeat(100_000), close.repeat(100_000))
    };
    assert!(refusal(brackets("[", "]")).contains("levels deep"));
    assert!(refusal(brackets("{a: ", "}")).contains("levels deep"));
    assert!(refusal(format!("{HEAD}routes: {}\n", "- ".repeat(100_000))).contains("error"));
    let mut block = String::new();
    for level in 0..2000 {
        writeln!(block, "{}a:", " ".repeat(level)).unwrap();
    }
    assert!(refusal(block).contains("levels deep"));
}

#[test]
fn depth_that_is_allowed_does_not_exhaust_a_small_stack() {
    let json = format!("{}1{}", "[".repeat(55), "]".repeat(55));
    let text = format!("{HEAD}routes: [{{ name: a, match: {{}}, respond: {{ json: {json} }} }}]\n");
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || load(text).is_ok());
    assert!(thread.unwrap().join().unwrap());
}

#[test]
fn a_hundred_thousand_routes_load() {
    let mut text = format!("{HEAD}services: {{ s: {{ instances: [http://127.0.0.1:1] }} }}\nroutes:\n");
    for n in 0..100_000 {
        writeln!(
            text,
            "  - name: route-{n}\n    match: {{ path: \"/a/{n}/{{id}}\", methods: [GET, POST], hosts: [h{n}.example] }}\n    \
             forward: {{ service: s, rewrite: \"/b/{{id}}\" }}"
        )
        .unwrap();
    }
    let started = Instant::now();
    let loaded = load(text).unwrap_or_else(|_| panic!("refused"));
    assert_eq!(loaded.config.routes.len(), 100_000);
    // A few seconds without optimisation on a slow machine, and far from quadratic.
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
}

#[test]
fn thousands_of_mistakes_are_told_soon() {
    let mut text = format!("{HEAD}services:\n");
    for n in 0..2_000 {
        writeln!(text, "  service-{n}: {{ instances: [http://127.0.0.1:1] }}").unwrap();
    }
    text.push_str("routes:\n");
    for n in 0..10_000 {
        writeln!(text, "  - {{ name: r{n}, match: {{ path: /{n} }}, forward: {{ service: servise-{n}x }} }}")
            .unwrap();
    }
    let source = source(text);
    let started = Instant::now();
    let problems = config::load(&source, &|_| None).unwrap_err();
    assert_eq!(problems.iter().count(), 10_000);
    let told = config::render(&problems, &source, false);
    assert!(told.contains("… and 9800 more") && told.ends_with("10000 errors\n"));
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
}

#[test]
fn one_endless_line_is_told_in_a_hundred_columns() {
    let text = format!("{HEAD}trusted_proxies: [{}]\n", "10.0.0.1/8, ".repeat(50_000));
    let told = refusal(text);
    assert!(told.lines().all(|line| line.chars().count() < 140));
}

#[test]
fn variables_cannot_add_without_bound() {
    let aliases = vec!["\"${BIG}\""; 100].join(", ");
    let text = format!("{HEAD}routes: [{{ name: a, match: {{}}, respond: {{ json: [{aliases}] }} }}]\n");
    let big = "x".repeat(1 << 20);
    let problems = config::load(&source(text), &|_| Some(big.clone())).unwrap_err();
    assert!(problems.iter().any(|problem| problem.message.contains("variables add more than")));
}

/// Whatever the text: no panic, a reason for every refusal, and something to show for it.
fn survives(text: String) {
    let source = source(text);
    let problems = match config::load(&source, &|name| (name.len() % 2 == 0).then(|| "value".to_owned())) {
        Ok(loaded) => {
            assert!(!loaded.warnings.has_errors());
            loaded.warnings
        }
        Err(problems) => {
            assert!(problems.has_errors(), "refused without a reason:\n{}", source.text);
            problems
        }
    };
    let told = config::render(&problems, &source, true);
    assert!(problems.iter().all(|problem| problem.span.line > 0 && problem.span.column > 0));
    assert!(told.lines().count() > 0);
    config::render_json(&problems, &source);
}

/// Bits of YAML and of the contract, to put into a good text where they don't belong.
fn splinter() -> impl Strategy<Value = String> {
    let bits = [
        "",
        " ",
        "\t",
        "\n",
        "\r",
        "\r\n  ",
        "'",
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        ": ",
        "- ",
        "#",
        "&a ",
        "*a",
        "<<: ",
        "!",
        "!!str ",
        "|",
        "> ",
        "%",
        "@",
        "---\n",
        "...\n",
        "${",
        "${A}",
        "$${",
        "~",
        "0",
        "-1",
        "é",
        "語",
        "\u{feff}",
        "\0",
        "? ",
        "a: b",
        "null",
        "secret: ",
        "service: x\n",
        "/..//",
        "9999999999999999999999",
        "\u{2028}",
        "\u{85}",
    ];
    prop_oneof![proptest::sample::select(bits.to_vec()).prop_map(str::to_owned), ".{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_configurations_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, splinter()), 1..6)
    ) {
        let mut text: Vec<char> = include_str!("data/complete.yaml").chars().collect();
        for (at, drop, splinter) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + drop).min(text.len());
            text.splice(at..end, splinter.chars());
        }
        survives(text.into_iter().collect());
    }

    #[test]
    fn any_text_is_survived(bits in prop::collection::vec(splinter(), 0..40)) {
        survives(bits.concat());
    }
}
