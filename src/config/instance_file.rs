//! The text of an instance file (`discovery: { file: … }`) → instances, or all that is wrong with it.
//!
//! A list of `http://host:port` or `{ url, weight, zone, priority }`, in YAML or JSON, bare or under
//! `instances:`. An empty text is an error, not an empty list: a file that is just being written is
//! empty too.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Budget, Location, Options, Spanned};

use super::model::At;
use super::source::{Problems, Span};

/// As for the instances that the configuration itself lists.
const MAX_WEIGHT: u64 = 1000;
const MAX_ZONE_BYTES: usize = 64;
const MAX_PRIORITY: u64 = 9;
/// A list, a map, a value: the file has no use for more.
const MAX_DEPTH: usize = 16;
const INSTANCE_KEYS: [&str; 4] = ["url", "weight", "zone", "priority"];

/// One instance of an instance file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileInstance {
    /// `host:port`; the host may be a name, an IPv4 or a bracketed IPv6 address.
    pub authority: At<String>,
    /// Its URL is an `https://` one.
    pub is_https: bool,
    /// 1 to 1000.
    pub weight: u32,
    pub zone: Option<String>,
    /// 0 to 9.
    pub priority: u8,
}

/// Reads the text of an instance file. The caller bounds its size.
pub fn parse_instance_file(text: &str) -> Result<Vec<FileInstance>, Problems> {
    let mut problems = Problems::default();
    let mut budget = Budget::default();
    budget.max_depth = MAX_DEPTH;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.with_snippet = false;
    let instances = match serde_yaml::from_str_with_options::<Spanned<Node>>(text, options) {
        Ok(document) => instances_of(&document, &mut problems),
        Err(error) => {
            let span = error.location().map(|place| span(&place)).unwrap_or(START);
            problems.error(span, words(&error), "correct the YAML or JSON at this place");
            Vec::new()
        }
    };
    if problems.has_errors() { Err(problems) } else { Ok(instances) }
}

const START: Span = Span { line: 1, column: 1, length: 1 };

/// Any YAML value, as far as an instance file can tell values apart.
enum Node {
    Null,
    Text(String),
    Whole(u64),
    /// A boolean, a fraction, a negative number: nothing that could be right here.
    Other,
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

fn instances_of(document: &Spanned<Node>, problems: &mut Problems) -> Vec<FileInstance> {
    const REMEDY: &str = "write a list of instances, or [] for none";
    let list = match &document.value {
        Node::Map(entries) => {
            for (key, _) in entries.iter().filter(|(key, _)| key.value != "instances") {
                unknown_key(key, &["instances"], problems);
            }
            match entries.iter().find(|(key, _)| key.value == "instances") {
                Some((_, value)) => value,
                None => {
                    problems.error(span(&document.referenced), "there is no \"instances\"", REMEDY);
                    return Vec::new();
                }
            }
        }
        Node::Null => {
            problems.error(START, "the file says nothing", REMEDY);
            return Vec::new();
        }
        _ => document,
    };
    let Node::List(items) = &list.value else {
        problems.error(span(&list.referenced), "this is not a list", REMEDY);
        return Vec::new();
    };
    items.iter().filter_map(|item| instance(item, problems)).collect()
}

fn instance(item: &Spanned<Node>, problems: &mut Problems) -> Option<FileInstance> {
    let here = span(&item.referenced);
    let entries = match &item.value {
        Node::Text(url) => {
            let (authority, is_https) = authority(url, here, problems)?;
            return Some(FileInstance { authority, is_https, weight: 1, zone: None, priority: 0 });
        }
        Node::Map(entries) => entries,
        _ => {
            problems.error(
                here,
                "this is not an instance",
                "write http://host:port or { url: http://host:port }",
            );
            return None;
        }
    };
    let (mut found, mut weight, mut zone, mut priority) = (None, 1, None, 0);
    for (key, value) in entries {
        let there = span(&value.referenced);
        match (key.value.as_str(), &value.value) {
            ("url", Node::Text(url)) => found = Some(authority(url, there, problems)?),
            ("url", _) => problems.error(there, "\"url\" is not text", "write http://host:port"),
            ("weight", Node::Whole(number @ 1..=MAX_WEIGHT)) => weight = *number as u32,
            ("weight", _) => {
                problems.error(
                    there,
                    "\"weight\" is not a whole number from 1 to 1000",
                    "write weight: 2, say",
                );
            }
            ("zone", Node::Text(text)) if !text.is_empty() && text.len() <= MAX_ZONE_BYTES => {
                zone = Some(text.clone());
            }
            ("zone", _) => problems.error(there, "\"zone\" is not text of 1 to 64 bytes", "put it in quotes"),
            ("priority", Node::Whole(number @ 0..=MAX_PRIORITY)) => priority = *number as u8,
            ("priority", _) => {
                let remedy = "write priority: 1, say, for those that stand by";
                problems.error(there, "\"priority\" is not a whole number from 0 to 9", remedy);
            }
            _ => unknown_key(key, &INSTANCE_KEYS, problems),
        }
    }
    if found.is_none() {
        problems.error(here, "the instance has no \"url\"", "add url: http://host:port");
    }
    let (authority, is_https) = found?;
    Some(FileInstance { authority, is_https, weight, zone, priority })
}

/// `host:port` of an `http://` or `https://` URL that has nothing else, and whether it is the latter.
fn authority(url: &str, here: Span, problems: &mut Problems) -> Option<(At<String>, bool)> {
    let mut refuse = |message: String| {
        problems.error(here, message, "write http://host:port");
        None
    };
    let Ok(uri) = url.parse::<http::Uri>() else {
        return refuse(format!("{url:?} is not a URL"));
    };
    let (is_https, usual_port) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        _ => return refuse(format!("{url:?} does not begin with http://")),
    };
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return refuse(format!("{url:?} has no host"));
    };
    if authority.as_str().contains('@') {
        return refuse("an instance's URL can't carry credentials".into());
    }
    if uri.path() != "/" || uri.query().is_some() {
        return refuse(format!("{url:?} has a path: an instance is only a host and a port"));
    }
    match authority.port() {
        Some(port) if port.as_u16() == 0 => refuse("port 0 can't be connected to".into()),
        None if authority.as_str() != authority.host() => refuse(format!("{url:?} has no valid port")),
        port => {
            let host = authority.host().to_ascii_lowercase();
            let port = port.map_or(usual_port, |port| port.as_u16());
            Some((At { value: format!("{host}:{port}"), span: here }, is_https))
        }
    }
}

fn unknown_key(key: &Spanned<String>, known: &[&str], problems: &mut Problems) {
    let near = known.iter().find(|name| strsim::damerau_levenshtein(name, &key.value) <= 2);
    let remedy = match near {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("known here: {}", known.join(", ")),
    };
    problems.error(span(&key.referenced), format!("unknown key {:?}", key.value), remedy);
}

fn span(place: &Location) -> Span {
    Span { line: place.line().max(1) as u32, column: place.column().max(1) as u32, length: 1 }
}

/// The parser's own words, without the place, which the problem carries already.
fn words(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.split_once(" at line ").map_or(line, |(words, _)| words).to_owned()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of instances")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(u64::try_from(number).map_or(Node::Other, Node::Whole))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `authority*weight@zone#priority` of each instance, or `line:column message; remedy` of each problem.
    fn read(text: &str) -> Vec<String> {
        match parse_instance_file(text) {
            Ok(instances) => instances
                .into_iter()
                .map(|i| {
                    let zone = i.zone.unwrap_or_default();
                    let class = if i.priority > 0 { format!("#{}", i.priority) } else { String::new() };
                    format!("{}*{}@{zone}{class}", i.authority.value, i.weight)
                })
                .collect(),
            Err(problems) => problems
                .iter()
                .map(|p| format!("{}:{} {}; {}", p.span.line, p.span.column, p.message, p.remedy))
                .collect(),
        }
    }

    #[test]
    fn yaml_and_json_bare_and_named_lists_are_read() {
        let yaml = "- http://127.0.0.1:8001\n- { url: http://users.internal:8011, weight: 2, zone: a }\n";
        let both = ["127.0.0.1:8001*1@", "users.internal:8011*2@a"];
        assert_eq!(read(yaml), both);
        assert_eq!(read(&format!("instances:\n{yaml}")), both);
        let json = r#"{"instances": ["http://127.0.0.1:8001", {"url": "http://users.internal:8011", "weight": 2, "zone": "a"}]}"#;
        assert_eq!(read(json), both);
        assert_eq!(read("['http://[::1]:8001', http://Plain/]"), ["[::1]:8001*1@", "plain:80*1@"]);
        assert_eq!(read("[{ url: 'http://b:1', priority: 9 }]"), ["b:1*1@#9"]);
        assert_eq!(read("['https://A/', { url: 'https://[::1]:8443' }]"), ["a:443*1@", "[::1]:8443*1@"]);
        assert_eq!(read("[]"), [""; 0]);
        assert_eq!(read("instances: []"), [""; 0]);
    }

    #[test]
    fn the_example_is_read() {
        let example = include_str!("../../examples/instances/orders.yaml");
        assert_eq!(read(example), ["127.0.0.1:8002*1@", "127.0.0.1:8012*2@"]);
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let text = "- http://127.0.0.1:8001/api\n- { url: ftp://a:1 }\n- { ur: http://a:1 }\n- 7\n\
                    - { url: http://a:1, weight: 0 }\n- { url: http://a:1, zone: 5, priority: 10 }\n- http://a:99999\n- http://u@a:1\n";
        assert_eq!(
            read(text),
            [
                "1:3 \"http://127.0.0.1:8001/api\" has a path: an instance is only a host and a port; write http://host:port",
                "2:10 \"ftp://a:1\" does not begin with http://; write http://host:port",
                "3:5 unknown key \"ur\"; did you mean \"url\"?",
                "3:3 the instance has no \"url\"; add url: http://host:port",
                "4:3 this is not an instance; write http://host:port or { url: http://host:port }",
                "5:30 \"weight\" is not a whole number from 1 to 1000; write weight: 2, say",
                "6:28 \"zone\" is not text of 1 to 64 bytes; put it in quotes",
                "6:41 \"priority\" is not a whole number from 0 to 9; write priority: 1, say, for those that stand by",
                "7:3 \"http://a:99999\" has no valid port; write http://host:port",
                "8:3 an instance's URL can't carry credentials; write http://host:port",
            ]
        );
    }

    #[test]
    fn nothing_is_not_an_empty_list() {
        let nothing = "1:1 the file says nothing; write a list of instances, or [] for none";
        for text in ["", " \n", "# only a comment\n", "null", "---\n"] {
            assert_eq!(read(text), [nothing], "{text:?}");
        }
        assert_eq!(read("{}")[0], "1:1 there is no \"instances\"; write a list of instances, or [] for none");
        assert_eq!(
            read("instances:")[0].split_once(' ').map(|p| p.1),
            Some("this is not a list; write a list of instances, or [] for none")
        );
    }

    #[test]
    fn broken_text_is_told_with_its_line() {
        assert_eq!(
            read("- http://127.0.0.1:8001\n- {\n"),
            ["2:3 unclosed bracket '{'; correct the YAML or JSON at this place"]
        );
        assert!(read("instances: []\ninstances: []\n")[0].starts_with("2:1 "));
        let deep = "[".repeat(100_000);
        assert_eq!(read(&deep).len(), 1);
        let bomb = format!(
            "a: &a [x,x,x,x,x,x,x,x]\n{}",
            (0..9).map(|n| format!("k{n}: &b{n} [*a,*a,*a,*a,*a,*a]\n")).collect::<String>()
        );
        assert!(!read(&bomb).is_empty());
    }
}
