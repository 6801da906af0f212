//! Looking into JSON without building it: pieces of a text that has been checked, each as it was written.
//!
//! Nothing here recurses, so that no nesting costs stack. What has not been checked gives nonsense, but never panics.

use std::borrow::Cow;

use memchr::memchr2;

/// One value of a text that is known to be JSON, without the space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'b>(&'b [u8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

impl<'b> Json<'b> {
    /// `checked` is one JSON value.
    pub fn of(checked: &'b [u8]) -> Self {
        Json(checked.trim_ascii())
    }

    /// As it was written.
    pub fn bytes(self) -> &'b [u8] {
        self.0
    }

    pub fn kind(self) -> Kind {
        match self.0.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// The members of an object in the order of the text, the name of each as it was written. Of anything else: none.
    pub fn members(self) -> Members<'b> {
        Members(Inside::of(self, Kind::Object))
    }

    /// The elements of an array. Of anything else: none.
    pub fn elements(self) -> Elements<'b> {
        Elements(Inside::of(self, Kind::Array))
    }

    /// The member of that name; of several the last, as nearly every parser has it (RFC 8259 §4).
    pub fn member(self, name: &str) -> Option<Json<'b>> {
        self.members().filter(|(key, _)| key.is(name)).last().map(|(_, value)| value)
    }

    pub fn element(self, index: usize) -> Option<Json<'b>> {
        self.elements().nth(index)
    }

    /// What a single value is as text: of a string its characters, of a number its digits as they were written.
    /// Objects, arrays and null have none, nor have strings that are no text (half a surrogate pair).
    pub fn text(self) -> Option<Cow<'b, str>> {
        match self.kind() {
            Kind::String => decoded(self.0),
            Kind::Number | Kind::Bool => std::str::from_utf8(self.0).ok().map(Cow::Borrowed),
            Kind::Object | Kind::Array | Kind::Null => None,
        }
    }
}

/// The name of a member as it was written, with its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'b>(&'b [u8]);

impl<'b> Key<'b> {
    pub fn bytes(self) -> &'b [u8] {
        self.0
    }

    /// Whether it is that name, however it was written: `"\u0061"` is `a`.
    pub fn is(self, name: &str) -> bool {
        let inner = self.0.get(1..self.0.len().saturating_sub(1)).unwrap_or_default();
        if inner.contains(&b'\\') {
            return decoded(self.0).is_some_and(|text| text == name);
        }
        inner == name.as_bytes()
    }

    /// The name itself; of one that is no text, as it was written.
    pub fn name(self) -> Cow<'b, str> {
        decoded(self.0).unwrap_or_else(|| String::from_utf8_lossy(self.0))
    }
}

fn decoded(string: &[u8]) -> Option<Cow<'_, str>> {
    let inner = string.get(1..string.len().checked_sub(1)?)?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice::<String>(string).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

pub struct Members<'b>(Inside<'b>);

impl<'b> Iterator for Members<'b> {
    type Item = (Key<'b>, Json<'b>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.value()?;
        self.0.take(b':')?;
        let value = self.0.value()?;
        self.0.take(b',');
        Some((Key(key), Json(value)))
    }
}

pub struct Elements<'b>(Inside<'b>);

impl<'b> Iterator for Elements<'b> {
    type Item = Json<'b>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.0.value()?;
        self.0.take(b',');
        Some(Json(value))
    }
}

/// What is left of the inside of an object or array.
struct Inside<'b>(&'b [u8]);

impl<'b> Inside<'b> {
    fn of(json: Json<'b>, kind: Kind) -> Self {
        let is_it = json.kind() == kind;
        let inside = json.0.get(1..json.0.len().saturating_sub(1)).filter(|_| is_it);
        Inside(inside.unwrap_or_default())
    }

    fn value(&mut self) -> Option<&'b [u8]> {
        self.0 = self.0.trim_ascii_start();
        let end = length(self.0);
        let (value, rest) = self.0.split_at_checked(end).filter(|_| end > 0)?;
        self.0 = rest;
        Some(value)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.trim_ascii_start();
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }
}

/// How long the value at the start is.
fn length(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"') => string_length(text),
        Some(b'{' | b'[') => {
            let (mut depth, mut at) = (0usize, 0);
            while let Some(byte) = text.get(at) {
                match byte {
                    b'"' => {
                        at += string_length(&text[at..]);
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => return at + 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
            text.len()
        }
        _ => text
            .iter()
            .position(|byte| matches!(byte, b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\n' | b'\r'))
            .unwrap_or(text.len()),
    }
}

fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Json<'_> {
        Json::of(text.as_bytes())
    }

    #[test]
    fn pieces_are_as_they_were_written() {
        let json = of(
            " { \"a\" : 1e400 ,\"b\":[ 1.0 , \"x,]\\\"}\" , {} ,[]],\"\\u0061\":12345678901234567890, \"n\":null } ",
        );
        let members: Vec<_> = json.members().map(|(key, value)| (key.name(), value.bytes())).collect();
        assert_eq!(members.len(), 4);
        assert_eq!(members[0], ("a".into(), &b"1e400"[..]));
        assert_eq!(members[1].1, b"[ 1.0 , \"x,]\\\"}\" , {} ,[]]");
        assert_eq!(json.member("a").and_then(Json::text).as_deref(), Some("12345678901234567890"));
        let list = json.member("b").unwrap();
        assert_eq!(list.elements().count(), 4);
        assert_eq!(list.element(0).and_then(Json::text).as_deref(), Some("1.0"));
        assert_eq!(list.element(1).and_then(Json::text).as_deref(), Some("x,]\"}"));
        assert_eq!(list.element(4), None);
        assert_eq!((json.member("n").unwrap().text(), json.member("z")), (None, None));
        assert_eq!(of("\"\\ud800\"").text(), None);
        assert_eq!(
            (of("[]").elements().count(), of("{ }").members().count(), of("1").members().count()),
            (0, 0, 0)
        );
    }

    #[test]
    fn deep_nesting_costs_no_stack() {
        let deep = format!("[{},1]", "[".repeat(500_000) + &"]".repeat(500_000));
        assert_eq!(of(&deep).element(1).and_then(Json::text).as_deref(), Some("1"));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[\\PC\"\\\\{}\\[\\],:]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[a-c\"\\\\]{0,3}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_parser_finds(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let json = of(&text);
            if let Some(object) = value.as_object() {
                prop_assert_eq!(json.members().count(), object.len());
                for (name, value) in object {
                    let found: serde_json::Value = serde_json::from_slice(json.member(name).unwrap().bytes()).unwrap();
                    prop_assert_eq!(&found, value);
                }
            }
            if let Some(list) = value.as_array() {
                let found: Vec<serde_json::Value> =
                    json.elements().map(|one| serde_json::from_slice(one.bytes()).unwrap()).collect();
                prop_assert_eq!(&found, list);
            }
        }

        #[test]
        fn nothing_panics(text in "[\\[\\]{}\":,\\\\a1 ]{0,24}") {
            let json = of(&text);
            let _ = (json.members().count(), json.elements().count(), json.text(), json.member("a"));
        }
    }
}
