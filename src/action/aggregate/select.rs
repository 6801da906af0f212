//! JSONPath (RFC 9535): what of an answer is meant. Ways of names, places and `*` are gone without building anything;
//! for filters, slices and all else a copy is built to ask, and what is found is taken from the answer itself, so that
//! digits and spaces are as they were written.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Number, Value};
use serde_json_path::{JsonPath, PathElement};

use super::json::{Json, Kind};
use super::part::PartError;

pub struct Query(Form);

enum Form {
    Plain(Box<[PlainStep]>),
    Full {
        path: Box<JsonPath>,
        /// How often it goes through all that is below: `..`.
        descents: usize,
    },
}

enum PlainStep {
    Member(Box<str>),
    Element(usize),
    Each,
}

/// Deeper answers are not asked with filters.
const MOST_LEVELS: usize = 64;
/// `..` makes a way to each value that it finds: so many steps of all ways together for a byte of the answer.
const STEPS_A_BYTE: usize = 4;
/// Short answers may be asked in any case.
const FREE: usize = 4096;

impl Query {
    pub fn parse(text: &str) -> Result<Self, String> {
        let full = JsonPath::parse(text).map_err(|error| error.to_string())?;
        let descents = text.matches("..").count();
        Ok(Query(match plain(text) {
            Some(steps) => Form::Plain(steps.into()),
            None => Form::Full { path: Box::new(full), descents },
        }))
    }

    /// Of a query that can mean one value only, that value; otherwise a list of all that it means. The former may not be there, and
    /// the latter is about as long as the answer at most: values within each other could make more of it.
    pub fn select(&self, answer: &Bytes) -> Result<Bytes, PartError> {
        let nodes = self.nodes(Json::of(answer)).ok_or(PartError::WrongShape)?;
        if self.is_single() {
            let first = nodes.first().map(|node| answer.slice_ref(node.bytes()));
            return first.ok_or(PartError::WrongShape);
        }
        let size: usize = nodes.iter().map(|node| node.bytes().len() + 1).sum();
        if size > 2 * answer.len() + FREE {
            return Err(PartError::TooLarge);
        }
        let mut list = BytesMut::with_capacity(size + 2);
        for node in nodes {
            list.extend_from_slice(if list.is_empty() { b"[" } else { b"," });
            list.extend_from_slice(node.bytes());
        }
        list.extend_from_slice(if list.is_empty() { b"[]" } else { b"]" });
        Ok(list.freeze())
    }

    /// All that it means, in order. `None` where the answer is too deep to be asked.
    pub fn nodes<'b>(&self, json: Json<'b>) -> Option<Vec<Json<'b>>> {
        match &self.0 {
            Form::Plain(steps) => Some(steps.iter().fold(vec![json], |nodes, step| step.of_all(&nodes))),
            Form::Full { path, descents } => full(path, *descents, json),
        }
    }

    fn is_single(&self) -> bool {
        match &self.0 {
            Form::Plain(steps) => !steps.iter().any(|step| matches!(step, PlainStep::Each)),
            Form::Full { .. } => false,
        }
    }
}

impl PlainStep {
    fn of_all<'b>(&self, nodes: &[Json<'b>]) -> Vec<Json<'b>> {
        match self {
            PlainStep::Member(name) => nodes.iter().filter_map(|node| node.member(name)).collect(),
            PlainStep::Element(index) => nodes.iter().filter_map(|node| node.element(*index)).collect(),
            PlainStep::Each => nodes.iter().flat_map(children).collect(),
        }
    }
}

fn children<'b>(node: &Json<'b>) -> Vec<Json<'b>> {
    match node.kind() {
        Kind::Object => node.members().map(|(_, value)| value).collect(),
        _ => node.elements().collect(),
    }
}

/// The steps of a query that has names, places and `*` only, none of them with an escape.
fn plain(text: &str) -> Option<Vec<PlainStep>> {
    let mut rest = text.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (inner, after) = match inner.chars().next()? {
                quote @ ('\'' | '"') => {
                    let (name, after) = inner[1..].split_once(quote)?;
                    if name.contains('\\') {
                        return None;
                    }
                    steps.push(PlainStep::Member(name.into()));
                    ("", after.strip_prefix(']')?)
                }
                _ => inner.split_once(']')?,
            };
            match inner {
                "" => {}
                "*" => steps.push(PlainStep::Each),
                index => steps.push(PlainStep::Element(index.parse().ok()?)),
            }
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('.')?;
        let end = inner.find(['.', '[']).unwrap_or(inner.len());
        let (name, after) = inner.split_at(end);
        match name {
            "*" => steps.push(PlainStep::Each),
            "" => return None,
            name if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                steps.push(PlainStep::Member(name.into()));
            }
            _ => return None,
        }
        rest = after;
    }
    Some(steps)
}

fn full<'b>(path: &JsonPath, descents: usize, json: Json<'b>) -> Option<Vec<Json<'b>>> {
    let mut steps = match descents {
        0 => usize::MAX,
        // Each further one may come to a value by as many ways as there are levels.
        more => ((json.bytes().len() * STEPS_A_BYTE) >> (6 * (more - 1)).min(32)).max(FREE),
    };
    let (value, tree) = copy(json, 0, &mut steps)?;
    let found = path.query_located(&value);
    let nodes = found.locations().map(|location| {
        location.iter().try_fold((json, &tree), |(_, tree), step| match (step, tree) {
            (PathElement::Name(name), Tree::Members(members)) => {
                members.get(*name).map(|(json, tree)| (*json, tree))
            }
            (PathElement::Index(index), Tree::Elements(elements)) => {
                elements.get(*index).map(|(json, tree)| (*json, tree))
            }
            _ => None,
        })
    });
    nodes.map(|node| node.map(|(json, _)| json)).collect()
}

/// Where the values of a copy are written.
enum Tree<'b> {
    Leaf,
    Members(HashMap<String, (Json<'b>, Tree<'b>)>),
    Elements(Vec<(Json<'b>, Tree<'b>)>),
}

fn copy<'b>(json: Json<'b>, level: usize, steps: &mut usize) -> Option<(Value, Tree<'b>)> {
    if level > MOST_LEVELS {
        return None;
    }
    *steps = steps.checked_sub(level)?;
    Some(match json.kind() {
        Kind::Object => {
            let (mut map, mut members) = (Map::new(), HashMap::new());
            for (key, value) in json.members() {
                let (copied, tree) = copy(value, level + 1, steps)?;
                let name = key.name().into_owned();
                map.insert(name.clone(), copied);
                members.insert(name, (value, tree));
            }
            (Value::Object(map), Tree::Members(members))
        }
        Kind::Array => {
            let (mut list, mut elements) = (Vec::new(), Vec::new());
            for value in json.elements() {
                let (copied, tree) = copy(value, level + 1, steps)?;
                list.push(copied);
                elements.push((value, tree));
            }
            (Value::Array(list), Tree::Elements(elements))
        }
        Kind::Number => (Value::Number(number(&json.text()?)), Tree::Leaf),
        Kind::String => (Value::String(json.text().unwrap_or_default().into_owned()), Tree::Leaf),
        Kind::Bool => (Value::Bool(json.bytes() == b"true"), Tree::Leaf),
        Kind::Null => (Value::Null, Tree::Leaf),
    })
}

/// As near as a number can be compared with; one beyond all others is the largest.
fn number(text: &str) -> Number {
    text.parse().unwrap_or_else(|_| {
        let near: f64 = text.parse().unwrap_or_default();
        Number::from_f64(near.clamp(f64::MIN, f64::MAX)).unwrap_or_else(|| 0.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r#"{"data":{"items":[{"id":1.0,"p":1e400,"t":["x"]},{"id": 2 ,"p":3},{"id":12345678901234567890}]},"a b":null}"#;

    fn select(query: &str) -> Option<String> {
        let query = Query::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        query.select(&Bytes::from(SHOP)).ok().map(|found| String::from_utf8(found.to_vec()).unwrap())
    }

    #[test]
    fn what_is_found_is_as_it_was_written() {
        for (query, found) in [
            ("$", Some(SHOP)),
            ("$.data.items[1]", Some("{\"id\": 2 ,\"p\":3}")),
            ("$['data'][\"items\"][0].id", Some("1.0")),
            ("$['a b']", Some("null")),
            ("$.data.none", None),
            ("$.data.items[9]", None),
            ("$.data.items[*].id", Some("[1.0,2,12345678901234567890]")),
            ("$.data.items.*.p", Some("[1e400,3]")),
            ("$.none[*]", Some("[]")),
            ("$..t", Some("[[\"x\"]]")),
            ("$.data.items[?@.p > 3].p", Some("[1e400]")),
            ("$.data.items[?@.p <= 3].id", Some("[2]")),
            ("$.data.items[-1:].id", Some("[12345678901234567890]")),
            ("$.data.items[::-1].id", Some("[12345678901234567890,2,1.0]")),
            ("$.data.items[?length(@.t) == 1].id", Some("[1.0]")),
            ("$.data.items[2]['id','p']", Some("[12345678901234567890]")),
        ] {
            assert_eq!(select(query).as_deref(), found, "{query}");
        }
        for wrong in ["", "data", "$.", "$[", "$[?]", "$ .a.", "$.a b"] {
            assert!(Query::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_so_deep_an_answer_is_copied() {
        let deep = Bytes::from("[".repeat(500_000) + &"]".repeat(500_000));
        assert!(matches!(Query::parse("$..a").unwrap().select(&deep), Err(PartError::WrongShape)));
        assert!(Query::parse("$[0]").unwrap().select(&deep).is_ok());
    }

    #[test]
    fn what_is_within_itself_is_not_multiplied() {
        let select =
            |query: &str, answer: &str| Query::parse(query).unwrap().select(&Bytes::from(answer.to_owned()));
        // Long at the bottom, and meant on every level.
        let long = "[".repeat(50) + "\"" + &"x".repeat(100_000) + "\"" + &"]".repeat(50);
        assert!(matches!(select("$..*", &long), Err(PartError::TooLarge)));
        assert_eq!(select("$..[0].a", &long).unwrap(), "[]");
        // Wide at the bottom: the way to each is long.
        let wide = "[".repeat(50) + "1" + &",1".repeat(100_000) + &"]".repeat(50);
        assert!(matches!(select("$..*", &wide), Err(PartError::WrongShape)));
        assert!(matches!(select("$..*..*", &wide), Err(PartError::WrongShape)));
        // As answers are.
        let usual = format!("[{}{{}}]", r#"{"id":1,"a":{"b":[1,2,{"c":3}]}},"#.repeat(5_000));
        assert_eq!(select("$..c", &usual).unwrap().len(), 2 * 5_000 + 1);
        assert!(matches!(select("$..*..c", &usual), Err(PartError::WrongShape)));
        assert_eq!(select("$..*..c", r#"{"a":{"b":{"c":3}}}"#).unwrap(), "[3,3]");
    }
}
