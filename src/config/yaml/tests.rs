//! YAML texts and the trees of nodes, or the problems, that come of them.

use super::*;

fn tree(text: &str) -> Node<'_> {
    let mut problems = Problems::default();
    let node = parse(text, &mut problems);
    let told: Vec<_> = problems.iter().map(|problem| &problem.message).collect();
    assert!(told.is_empty(), "{told:?}");
    node.unwrap()
}

/// The value of `a` at the top.
fn value(text: &str) -> Node<'_> {
    let Kind::Map(entries) = tree(text).kind else { panic!("not a map") };
    entries.iter().find(|entry| entry.key == "a").unwrap().value.clone()
}

fn scalar(text: &str) -> (String, bool) {
    match value(text).kind {
        Kind::Scalar(scalar) => (scalar.text.into_owned(), scalar.plain),
        other => panic!("{other:?}"),
    }
}

fn message(text: &str) -> String {
    let mut problems = Problems::default();
    assert!(parse(text, &mut problems).is_none());
    problems.iter().next().unwrap().message.clone()
}

#[test]
fn scalars_keep_their_text() {
    assert_eq!(scalar("a: 1.0"), ("1.0".to_owned(), true));
    assert_eq!(scalar("a: 0x1F  # c"), ("0x1F".to_owned(), true));
    assert_eq!(scalar("a: \"1\""), ("1".to_owned(), false));
    assert_eq!(scalar("a: 'it''s'"), ("it's".to_owned(), false));
    assert_eq!(scalar("a: \"x\\ty\""), ("x\ty".to_owned(), false));
    assert_eq!(scalar("a: yes"), ("yes".to_owned(), true));
    assert_eq!(scalar("a: !!str 1"), ("1".to_owned(), false));
    assert_eq!(scalar("a: x\n  y"), ("x y".to_owned(), true));
    assert_eq!(scalar("a: |\n  x\n  y\n"), ("x\ny\n".to_owned(), false));
    assert_eq!(scalar("{\"a\":\"b\"}"), ("b".to_owned(), false));
}

#[test]
fn nothing_is_null_and_quotes_make_text() {
    for text in ["a:", "a: ~", "a: null", "a: # c", "{a: }"] {
        assert!(matches!(value(text).kind, Kind::Null), "{text}");
    }
    assert_eq!(scalar("a: 'null'"), ("null".to_owned(), false));
    assert_eq!(scalar("a: ''"), (String::new(), false));
}

#[test]
fn places_are_those_that_a_reader_looks_at() {
    let span = |line, column, length| Span { line, column, length };
    assert_eq!(value("b: 1\na: xyz").span, span(2, 4, 3));
    assert_eq!(value("é: 1\r\na: \"xyz\"").span, span(2, 4, 5));
    assert_eq!(value("a: |\n  x\n").span.line, 2);
    assert_eq!(value("a:\n  b: 1").span, span(1, 1, 1));
    assert_eq!(value("a: { b: 1 }").span, span(1, 1, 1));
    assert_eq!(value("x: 1\na:").span, span(2, 1, 1));
    assert_eq!(value("\u{feff}a: b").span, span(1, 4, 1));
    let Kind::List(items) = value("a:\n  - bc: 1\n  - [x]\n").kind else { panic!() };
    assert_eq!(items[0].span, span(2, 5, 2));
    assert_eq!(items[1].span, span(3, 5, 1));
    // The problem is where the text is, not where it is repeated.
    let Kind::List(items) = value("x: &x long\na: [*x]").kind else { panic!() };
    assert_eq!(items[0].span, span(1, 7, 4));
}

#[test]
fn duplicates_are_told_and_the_first_counts() {
    let mut problems = Problems::default();
    let Some(Node { kind: Kind::Map(entries), .. }) =
        parse("a: 1\nb: 2\na: 3\nA: 4\n\"a\": 5", &mut problems)
    else {
        panic!()
    };
    let keys: Vec<_> = entries.iter().map(|entry| &*entry.key).collect();
    assert_eq!(keys, ["a", "b", "A"]);
    let told: Vec<_> = problems.iter().map(|problem| (problem.span.line, problem.remedy.as_str())).collect();
    let remedy = "keep one of them; the first is at line 1";
    assert_eq!(told, [(3, remedy), (5, remedy)]);
    // Beyond the size where keys are compared one by one.
    let many: String = (0..100).map(|n| format!("k{n}: 1\n")).collect();
    let mut problems = Problems::default();
    parse(&format!("{many}k50: 2\n"), &mut problems);
    assert_eq!(problems.iter().count(), 1);
}

#[test]
fn nodes_are_bounded() {
    let mut problems = Problems::default();
    let text = format!("a: [{}]", "1, ".repeat(100));
    assert!(builder::Builder::new(&text, 103, &mut problems).run().is_some());
    assert!(builder::Builder::new(&text, 102, &mut problems).run().is_none());
    assert_eq!(problems.iter().next().unwrap().message, "the configuration has more than 102 values");
    // A long text counts for more than one.
    let text = format!("a: \"{}\"", "x".repeat(64_000));
    assert!(builder::Builder::new(&text, 1000, &mut problems).run().is_none());
}

#[test]
fn merges_add_what_is_missing() {
    let text = "x: &x { b: 1, c: 2 }\ny: &y { c: 3, d: 4 }\na: { c: 5, <<: [*x, *y] }";
    let Kind::Map(entries) = value(text).kind else { panic!() };
    let pairs: Vec<_> = entries
        .iter()
        .map(|entry| match &entry.value.kind {
            Kind::Scalar(scalar) => format!("{}={}", entry.key, scalar.text),
            _ => panic!(),
        })
        .collect();
    assert_eq!(pairs, ["c=5", "b=1", "d=4"]);
    assert_eq!(message("a: { <<: 1 }"), "`<<` takes a block of keys");
}

/// Line, column, message and remedy of what is wrong with a text.
fn told(text: &str) -> (u32, u32, String, String) {
    let mut problems = Problems::default();
    assert!(parse(text, &mut problems).is_none());
    let problem = problems.iter().next().unwrap();
    (problem.span.line, problem.span.column, problem.message.clone(), problem.remedy.clone())
}

#[test]
fn a_slip_is_told_where_it_was_made() {
    let (line, column, message, _) = told("a: { b: \"x }\nc: 1\nd: { e: \"y\" }\n");
    assert_eq!((line, column), (1, 9), "{message}");
    assert_eq!(message, "the text that this quote begins ends only in line 3");
    let (line, column, message, _) = told("a: \"x\" y\n");
    assert_eq!((line, column, &*message), (1, 8, "text follows the closing quote"));

    let (line, column, message, remedy) = told("a:\n  times { b: 1s, c: 2s }\n");
    assert_eq!((line, column, &*message), (2, 8, "a colon is missing behind this key"));
    assert_eq!(remedy, "write `times: {`");
    assert_eq!(told("a: b: c\n").2, "a colon isn't expected here");

    let (line, column, message, _) = told("a:\n  b: 1\n\tc: 2\n");
    assert_eq!((line, column, &*message), (3, 1, "a tab can't indent YAML"));
}

#[test]
fn what_is_no_tree_is_refused() {
    assert_eq!(message(""), "the configuration is empty");
    assert_eq!(message("a: 1\n---\nb: 2"), "a second document begins here");
    assert_eq!(message("? [a]\n: b"), "a key must be plain text");
    assert_eq!(message("~: b"), "a key must be plain text");
    assert_eq!(message("a: !x b"), "tags have no meaning in a configuration");
    assert_eq!(message("a: &a { b: *a }"), "this alias stands for a block that it is itself part of");
    assert_eq!(message("a: [1\nb: 2"), "this `[` is never closed");
    assert_eq!(message("a: [\"x]\nb: 2\n"), "this quote is never closed");
    assert_eq!(message("a:\n  b: \"x\nc: 2\n"), "this `\"` is never closed");
}
