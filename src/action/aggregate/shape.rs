//! What of an answer is passed on, and under which names. A piece that no rule speaks of is copied as it was
//! written; an answer without rules is not looked into at all.

use bytes::{Bytes, BytesMut};

use super::json::{Json, Key, Kind};
use super::part::PartError;
use super::select::Query;

#[derive(Default)]
pub struct Shape {
    pub select: Option<Query>,
    pub fields: Option<Fields>,
    /// `{"name":`, in front of the whole.
    pub wrap: Option<Bytes>,
    /// What the outcome has to be.
    pub kind: Option<Kind>,
}

impl Shape {
    /// `answer` is one JSON value; so is the outcome, which is no longer than that and the names it is given.
    /// Null, as which an answer without content counts, stays what it is.
    pub fn apply(&self, answer: Bytes) -> Result<Bytes, PartError> {
        if answer == b"null"[..] {
            return Ok(answer);
        }
        self.select(answer).and_then(|selected| self.dress(selected))
    }

    pub fn select(&self, answer: Bytes) -> Result<Bytes, PartError> {
        match &self.select {
            Some(query) => query.select(&answer),
            None => Ok(answer),
        }
    }

    /// All but the selection.
    pub fn dress(&self, selected: Bytes) -> Result<Bytes, PartError> {
        let mut value = selected;
        if let Some(fields) = &self.fields {
            value = fields.apply(&value);
        }
        if let Some(wrap) = &self.wrap {
            let mut wrapped = BytesMut::with_capacity(wrap.len() + value.len() + 1);
            wrapped.extend_from_slice(wrap);
            wrapped.extend_from_slice(&value);
            wrapped.extend_from_slice(b"}");
            value = wrapped.freeze();
        }
        match self.kind {
            Some(kind) if Json::of(&value).kind() != kind => Err(PartError::WrongShape),
            _ => Ok(value),
        }
    }
}

/// `allow`, `deny` and `rename` together.
pub struct Fields {
    rule: Rule,
    /// All that is not allowed is left out.
    has_allowed: bool,
}

/// The rules for one value and what is below it.
#[derive(Default)]
struct Rule {
    /// All of it is.
    allowed: bool,
    /// Something below it is.
    leads: bool,
    denied: bool,
    /// Its name, as it is written from now on.
    name: Option<(Box<str>, Bytes)>,
    members: Vec<(Box<str>, Rule)>,
    elements: Option<Box<Rule>>,
}

/// A step of a path through a value.
#[derive(Clone, Debug)]
pub enum Step {
    Member(Box<str>),
    /// Every element of an array.
    Each,
}

impl Fields {
    pub fn new(allow: &[Vec<Step>], deny: &[Vec<Step>], rename: &[(Vec<Step>, String)]) -> Self {
        let mut rule = Rule::default();
        for path in allow {
            rule.at(path, true).allowed = true;
        }
        for path in deny {
            rule.at(path, false).denied = true;
        }
        for (path, name) in rename {
            let written = serde_json::Value::from(name.as_str()).to_string();
            rule.at(path, false).name = Some((name.as_str().into(), written.into()));
        }
        Fields { rule, has_allowed: !allow.is_empty() }
    }

    fn apply(&self, value: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(value.len());
        self.rule.write(Json::of(value), !self.has_allowed, &mut out);
        out.freeze()
    }
}

impl Rule {
    fn at(&mut self, path: &[Step], leads: bool) -> &mut Rule {
        let Some((step, rest)) = path.split_first() else { return self };
        self.leads |= leads;
        let next = match step {
            Step::Each => &mut **self.elements.get_or_insert_default(),
            Step::Member(name) => {
                let known = self.members.iter().position(|(known, _)| known == name);
                let place = known.unwrap_or_else(|| {
                    self.members.push((name.clone(), Rule::default()));
                    self.members.len() - 1
                });
                &mut self.members[place].1
            }
        };
        next.at(rest, leads)
    }

    /// `open`: what has no rule is passed on. Goes as deep as the paths of the configuration.
    fn write(&self, json: Json<'_>, open: bool, out: &mut BytesMut) {
        match json.kind() {
            Kind::Object if !open || !self.members.is_empty() => self.write_object(json, open, out),
            Kind::Array if !open || self.elements.is_some() => self.write_array(json, open, out),
            _ if open => out.extend_from_slice(json.bytes()),
            _ => out.extend_from_slice(b"null"),
        }
    }

    fn write_object(&self, json: Json<'_>, open: bool, out: &mut BytesMut) {
        let mut before: &[u8] = b"{";
        let taken = self.taken(json);
        for (key, value) in json.members() {
            let rule = self.of_member(key);
            let kept = rule.map_or(open, |rule| rule.keeps(value, open));
            let is_renamed = rule.is_some_and(|rule| rule.name.is_some());
            // A member that is there gives way, so that the name is there once.
            if !kept || !is_renamed && taken.iter().any(|name| key.is(name)) {
                continue;
            }
            out.extend_from_slice(before);
            before = b",";
            let renamed = rule.and_then(|rule| rule.name.as_ref());
            out.extend_from_slice(renamed.map_or(key.bytes(), |(_, written)| written));
            out.extend_from_slice(b":");
            match rule {
                Some(rule) => rule.write(value, open || rule.allowed, out),
                None => out.extend_from_slice(value.bytes()),
            }
        }
        out.extend_from_slice(if before == b"{" { b"{}" } else { b"}" });
    }

    fn write_array(&self, json: Json<'_>, open: bool, out: &mut BytesMut) {
        let mut before: &[u8] = b"[";
        for value in json.elements() {
            let rule = self.elements.as_deref();
            if !rule.map_or(open, |rule| rule.keeps(value, open)) {
                continue;
            }
            out.extend_from_slice(before);
            before = b",";
            match rule {
                Some(rule) => rule.write(value, open || rule.allowed, out),
                None => out.extend_from_slice(value.bytes()),
            }
        }
        out.extend_from_slice(if before == b"[" { b"[]" } else { b"]" });
    }

    fn of_member(&self, key: Key<'_>) -> Option<&Rule> {
        self.members.iter().find(|(name, _)| key.is(name)).map(|(_, rule)| rule)
    }

    fn keeps(&self, value: Json<'_>, open: bool) -> bool {
        let is_inner = matches!(value.kind(), Kind::Object | Kind::Array);
        !self.denied && (open || self.allowed || self.leads && is_inner)
    }

    /// The names that members of the object get. They are looked for once, however many members there are.
    fn taken(&self, json: Json<'_>) -> Vec<&str> {
        let renames = self.members.iter().filter(|(_, rule)| !rule.denied);
        let mut renames: Vec<(&str, &str, bool)> = renames
            .filter_map(|(source, rule)| rule.name.as_ref().map(|(name, _)| (&**source, &**name, false)))
            .collect();
        if !renames.is_empty() {
            for (key, _) in json.members() {
                renames.iter_mut().for_each(|(source, _, is_there)| *is_there |= key.is(source));
            }
        }
        renames.into_iter().filter(|(.., is_there)| *is_there).map(|(_, name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<Step> {
        let steps = text.split('.').flat_map(|piece| {
            let name = piece.trim_end_matches("[*]");
            let each = std::iter::repeat_n(Step::Each, (piece.len() - name.len()) / 3);
            (!name.is_empty()).then(|| Step::Member(name.into())).into_iter().chain(each)
        });
        steps.collect()
    }

    fn apply(allow: &[&str], deny: &[&str], rename: &[(&str, &str)], value: &str) -> String {
        let paths = |list: &[&str]| list.iter().map(|text| path(text)).collect::<Vec<_>>();
        let rename: Vec<_> = rename.iter().map(|(text, name)| (path(text), name.to_string())).collect();
        let fields = Fields::new(&paths(allow), &paths(deny), &rename);
        let out = fields.apply(value.as_bytes());
        serde_json::from_slice::<&serde_json::value::RawValue>(&out).expect("the outcome is JSON");
        String::from_utf8(out.to_vec()).expect("it is text")
    }

    const ORDER: &str = r#"{"id": 1.0,"items":[{"price":1e400,"cost":1,"tax":{"rate": 7, "code":"x"}}, {"price": 2},null,5],"owner":{"name":"A","key":"s"},"note":null}"#;

    #[test]
    fn only_what_is_allowed_comes_through() {
        assert_eq!(apply(&["id", "note"], &[], &[], ORDER), r#"{"id":1.0,"note":null}"#);
        assert_eq!(
            apply(&["items[*].price", "owner.name"], &[], &[], ORDER),
            r#"{"items":[{"price":1e400},{"price":2}],"owner":{"name":"A"}}"#
        );
        assert_eq!(apply(&["owner.name.first", "id.x"], &[], &[], ORDER), r#"{"owner":{}}"#);
        assert_eq!(
            apply(&["items"], &["items[*].tax"], &[], ORDER),
            r#"{"items":[{"price":1e400,"cost":1},{"price":2},null,5]}"#
        );
        assert_eq!(apply(&["[*].a"], &[], &[], r#"[{"a":1,"b":2},{"b":3},4]"#), r#"[{"a":1},{}]"#);
        assert_eq!(apply(&["a"], &[], &[], "7"), "null");
    }

    #[test]
    fn what_is_denied_does_not_however_it_is_written() {
        assert_eq!(
            apply(&[], &["items[*].tax.code", "owner", "note", "id"], &[], ORDER),
            r#"{"items":[{"price":1e400,"cost":1,"tax":{"rate":7}},{"price":2},null,5]}"#
        );
        assert_eq!(apply(&[], &["key"], &[], r#"{"k\u0065y":1,"key":2,"KEY":3}"#), r#"{"KEY":3}"#);
        assert_eq!(apply(&[], &["[*]"], &[], "[1,2]"), "[]");
        assert_eq!(apply(&[], &["a.b"], &[], r#"{ "a" : [ 1 ] , "b" : { } }"#), r#"{"a":[ 1 ],"b":{ }}"#);
    }

    #[test]
    fn names_change_and_are_there_once() {
        assert_eq!(
            apply(
                &[],
                &[],
                &[("items[*].price", "amount"), ("owner", "by"), ("owner.name", "full \"name\"")],
                ORDER
            ),
            r#"{"id":1.0,"items":[{"amount":1e400,"cost":1,"tax":{"rate": 7, "code":"x"}},{"amount":2},null,5],"by":{"full \"name\"":"A","key":"s"},"note":null}"#
        );
        assert_eq!(apply(&[], &[], &[("a", "b")], r#"{"b":1,"a":2}"#), r#"{"b":2}"#);
        assert_eq!(apply(&[], &[], &[("a", "b")], r#"{"b":1}"#), r#"{"b":1}"#);
        assert_eq!(apply(&[], &[], &[("a", "b"), ("b", "a")], r#"{"a":1,"b":2}"#), r#"{"b":1,"a":2}"#);
    }
}
