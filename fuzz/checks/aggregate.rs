//! Any bytes as the answer of a part: they are refused, or what is found in them, left of them and made of them is JSON, as it was
//! written. What was not checked before gives nonsense, but ends.

use std::cmp::Ordering;

use bytes::Bytes;
use gatehouse::action::aggregate::body;
use gatehouse::action::aggregate::join::{self, Join};
use gatehouse::action::aggregate::json::{Json, Kind};
use gatehouse::action::aggregate::order::Rank;
use gatehouse::action::aggregate::select::Query;
use gatehouse::action::aggregate::shape::{Fields, Shape, Step};
use serde_json::Value;
use serde_json::value::RawValue;

const QUERIES: [&str; 10] = [
    "$",
    "$.a",
    "$['b'][0]",
    "$[*]",
    "$.a[*].b",
    "$..a",
    "$[?@.a > 1]",
    "$[-1:]",
    "$..*",
    "$[?length(@.b) == 1]['a','b']",
];

pub fn aggregate(input: &[u8]) {
    unchecked(Json::of(input));
    let Ok(answer) = body::json(Bytes::copy_from_slice(input)) else {
        assert!(serde_json::from_slice::<&RawValue>(input).is_err(), "what is JSON is taken");
        return;
    };
    let value: Option<Value> = serde_json::from_slice(&answer).ok();
    if let Some(value) = &value {
        same(Json::of(&answer), value);
    }
    for text in QUERIES {
        select(text, &answer);
    }
    shape(&answer);
    order(Json::of(&answer));
    attach(&answer);
}

/// Nothing panics, and what comes out gets shorter.
fn unchecked(json: Json<'_>) {
    let mut open = vec![json];
    for _ in 0..200 {
        let Some(next) = open.pop() else { return };
        let (_, _) = (next.text(), next.member("a"));
        let inner = next.elements().chain(next.members().map(|(_, value)| value));
        open.extend(inner.take(20).inspect(|inner| assert!(inner.bytes().len() < next.bytes().len())));
    }
}

/// What a parser finds, where no name is there twice: that has the last one.
fn same(json: Json<'_>, value: &Value) {
    match value {
        Value::Object(members) => {
            assert_eq!(json.kind(), Kind::Object);
            for (name, value) in members {
                same(json.member(name).expect("a parser has found it"), value);
            }
            assert!(json.members().count() >= members.len());
        }
        Value::Array(elements) => {
            assert_eq!(json.elements().count(), elements.len());
            json.elements().zip(elements).for_each(|(json, value)| same(json, value));
        }
        Value::String(text) => assert_eq!(json.text().as_deref(), Some(text.as_str())),
        Value::Number(_) => assert_eq!(json.kind(), Kind::Number),
        Value::Bool(is) => assert_eq!(json.bytes(), if *is { &b"true"[..] } else { b"false" }),
        Value::Null => assert_eq!(json.bytes(), b"null"),
    }
}

fn select(text: &str, answer: &Bytes) {
    let query = Query::parse(text).expect("a good query");
    let within = answer.as_ptr_range();
    for node in query.nodes(Json::of(answer)).unwrap_or_default() {
        let node = node.bytes();
        is_json(node);
        assert!(within.contains(&node.as_ptr()), "it is a piece of the answer");
    }
    if let Ok(selected) = query.select(answer) {
        is_json(&selected);
        assert!(selected.len() <= 2 * answer.len() + 8192);
    }
}

fn member(name: &str) -> Vec<Step> {
    vec![Step::Member(name.into())]
}

fn shape(answer: &Bytes) {
    let each = |name: &str| vec![Step::Each, Step::Member(name.into())];
    let fields = [
        Fields::new(&[member("a"), vec![Step::Each]], &[], &[]),
        Fields::new(&[], &[member("a"), each("a")], &[]),
        Fields::new(
            &[],
            &[],
            &[(member("a"), "b".into()), (each("a"), "b\"".into()), (member("b"), "c".into())],
        ),
        Fields::new(&[member("b"), each("b")], &[vec![Step::Member("b".into()), Step::Each]], &[]),
    ];
    for (place, fields) in fields.into_iter().enumerate() {
        let shape = Shape { fields: Some(fields), ..Shape::default() };
        let shaped = shape.apply(answer.clone()).expect("nothing is asked of its kind");
        is_json(&shaped);
        let names: Vec<_> = Json::of(&shaped).members().map(|(key, _)| key.name().into_owned()).collect();
        match place {
            0 => assert!(names.iter().all(|name| name == "a")),
            1 => assert!(names.iter().all(|name| name != "a")),
            2 => assert!(names.iter().all(|name| name != "a")),
            _ => assert!(names.iter().all(|name| name == "b")),
        }
    }
}

/// The comparison is an order: sorting may rely on it.
fn order(json: Json<'_>) {
    let ranks: Vec<Rank<'_>> = json.elements().take(12).map(|element| Rank::of(Some(element))).collect();
    for descending in [false, true] {
        for one in &ranks {
            assert_eq!(one.compare(one, descending), Ordering::Equal);
            for other in &ranks {
                let order = one.compare(other, descending);
                assert_eq!(other.compare(one, descending), order.reverse());
                for third in ranks.iter().filter(|third| other.compare(third, descending) == order) {
                    assert_eq!(one.compare(third, descending), order);
                }
            }
        }
    }
}

/// An answer for each element stands in it, and all else stays as it was.
fn attach(answer: &Bytes) {
    for text in ["$[*]", "$.a[*]", "$..a"] {
        let query = Query::parse(text).expect("a good query");
        let join = Join {
            from: 0,
            query,
            into: Some(Bytes::from_static(b"\"b\"")),
            into_name: Some("b".into()),
            concurrency: 1,
            max_items: 1,
            batch: None,
            fallback: Bytes::from_static(b"null"),
        };
        let elements = join.elements(answer).unwrap_or_default();
        let answers = format!("[{}]", vec!["[ 1 ]"; elements.len()].join(","));
        let mut edits = Vec::new();
        join.edits(answer, answers.as_bytes(), &mut edits);
        let attached = join::attach(answer, edits);
        is_json(&attached);
        let first = join.elements(&attached).unwrap_or_default().into_iter().next();
        if let Some(first) = first.filter(|first| first.kind() == Kind::Object && text != "$..a") {
            assert_eq!(first.member("b").map(Json::bytes), Some(&b"[ 1 ]"[..]));
        }
    }
}

fn is_json(text: &[u8]) {
    assert!(serde_json::from_slice::<&RawValue>(text).is_ok(), "{} is no JSON", text.escape_ascii());
}
