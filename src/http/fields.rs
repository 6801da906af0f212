//! The fields of a message, in the order in which they came. Most messages have a dozen, of which the gateway looks at
//! a few and passes on the rest as they are: so this is a list of places in the head that was read, which
//! is gone through, and not a map that is built.
//!
//! Invariant: names are in lower case, and names and values are what RFC 9110 §5 allows. Readers of heads check
//! that before a field gets in here; a [`HeaderName`] or [`HeaderValue`] can't be anything else.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

#[derive(Default)]
pub struct Fields(Option<Box<List>>);

#[derive(Clone, Default)]
struct List {
    /// The head that most of them came in.
    head: Bytes,
    fields: Vec<Field>,
    /// Those that did not. A field that is removed leaves its place here behind.
    own: Vec<(HeaderName, HeaderValue)>,
}

/// Two pieces of the head; or a place in `own`, which is then the beginning of the name, whose length is 0.
#[derive(Clone, Copy)]
struct Field {
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
}

static NONE: List = List { head: Bytes::new(), fields: Vec::new(), own: Vec::new() };

/// More than so many spare lists are given back to the allocator, and none that has grown longer than so.
const MAX_SPARE: usize = 64;
const MAX_SPARE_FIELDS: usize = 128;
/// Enough for most messages.
const USUAL_FIELDS: usize = 24;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes are what is used again")]
    static SPARE: RefCell<Vec<Box<List>>> = const { RefCell::new(Vec::new()) };
}

/// Fields whose head is still being read: the places of their names and values in it.
#[derive(Default)]
pub struct Places(Fields);

impl Places {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A field behind those that are there. The name is in lower case, or will be by the time of
    /// [`within`](Self::within), and not empty.
    pub fn push(&mut self, name: Range<usize>, value: Range<usize>) {
        debug_assert!(!name.is_empty());
        let field = Field {
            name: name.start as u32,
            name_length: name.len() as u32,
            value: value.start as u32,
            value_length: value.len() as u32,
        };
        self.0.list().fields.push(field);
    }

    /// The fields of `head`. `None` when that is longer than any head may be.
    pub fn within(mut self, head: Bytes) -> Option<Fields> {
        u32::try_from(head.len()).ok()?;
        if self.count() > 0 {
            self.0.list().head = head;
        }
        Some(self.0)
    }
}

impl Fields {
    pub fn new() -> Self {
        Fields(None)
    }

    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |list| list.fields.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + Clone {
        let list = self.seen();
        list.fields.iter().map(|field| (list.name(field), list.value(field)))
    }

    pub fn names(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let list = self.seen();
        list.fields.iter().map(|field| list.name(field))
    }

    /// The first value of the field.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        let list = self.0.as_ref()?;
        list.named(name).next().map(|field| list.value(field))
    }

    /// All values of the field, in their order.
    pub fn get_all<'f>(&'f self, name: &'f HeaderName) -> impl DoubleEndedIterator<Item = &'f [u8]> + Clone {
        let list = self.seen();
        list.named(name).map(|field| list.value(field))
    }

    /// The only value of the field; `None` when there are more.
    pub fn only(&self, name: &HeaderName) -> Option<&[u8]> {
        let list = self.0.as_ref()?;
        let mut named = list.named(name);
        let only = named.next().filter(|_| named.next().is_none())?;
        Some(list.value(only))
    }

    /// The value of the field if it has one, to keep. `None` when there are more.
    pub fn at_most_one(&self, name: &HeaderName) -> Option<Option<Bytes>> {
        let list = self.seen();
        let mut named = list.named(name);
        match (named.next(), named.next()) {
            (None, _) => Some(None),
            (Some(only), None) => Some(Some(list.owned_bytes(only))),
            _ => None,
        }
    }

    /// Whether a name may have this byte. Most don't, and are not looked at one by one.
    pub fn may_be_named_with(&self, byte: u8) -> bool {
        let list = self.seen();
        !list.own.is_empty() || memchr::memchr(byte, &list.head).is_some()
    }

    /// The first value of the field, to keep.
    pub fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        let list = self.0.as_ref()?;
        list.named(name).next().map(|field| list.owned_value(field))
    }

    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// The field has this value and no other.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        let list = self.list();
        let mut place = None;
        let mut at = 0;
        let is_named = name.as_str().as_bytes();
        while let Some(field) = list.fields.get(at) {
            if list.name(field) != is_named {
                at += 1;
            } else if place.is_none() {
                place = Some(at);
                at += 1;
            } else {
                list.fields.remove(at);
            }
        }
        let field = list.keep(name, value);
        match place {
            Some(place) => list.fields[place] = field,
            None => list.fields.push(field),
        }
    }

    /// Adds a value behind those that the field has.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        let list = self.list();
        let field = list.keep(name, value);
        list.fields.push(field);
    }

    pub fn remove(&mut self, name: &HeaderName) {
        let name = name.as_str().as_bytes();
        self.retain(|field, _| field != name);
    }

    /// Keeps the fields of whose name and value `wanted` says so.
    pub fn retain(&mut self, mut wanted: impl FnMut(&[u8], &[u8]) -> bool) {
        if let Some(list) = &mut self.0 {
            let List { head, fields, own } = &mut **list;
            fields.retain(|field| wanted(field.name(head, own), field.value(head, own)));
        }
    }

    /// The same fields as a map, for whoever knows only those.
    pub fn to_map(&self) -> HeaderMap {
        let Some(list) = &self.0 else { return HeaderMap::new() };
        // Whoever asks for a map adds a field or two, for which it should not have to grow.
        let mut map = HeaderMap::with_capacity(list.fields.len() + 2);
        for field in &list.fields {
            if let Some(name) = list.owned_name(field) {
                map.append(name, list.owned_value(field));
            }
        }
        map
    }

    fn seen(&self) -> &List {
        self.0.as_deref().unwrap_or(&NONE)
    }

    fn list(&mut self) -> &mut List {
        self.0.get_or_insert_with(|| {
            let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
            spare.unwrap_or_else(|| {
                let fields = Vec::with_capacity(USUAL_FIELDS);
                Box::new(List { fields, ..List::default() })
            })
        })
    }
}

impl List {
    fn named<'l>(&'l self, name: &'l HeaderName) -> impl DoubleEndedIterator<Item = &'l Field> + Clone {
        let name = name.as_str().as_bytes();
        self.fields.iter().filter(move |field| self.name(field) == name)
    }

    fn name(&self, field: &Field) -> &[u8] {
        field.name(&self.head, &self.own)
    }

    fn value(&self, field: &Field) -> &[u8] {
        field.value(&self.head, &self.own)
    }

    fn owned_value(&self, field: &Field) -> HeaderValue {
        match self.own.get(field.name as usize) {
            Some((_, value)) if field.is_own() => value.clone(),
            _ => HeaderValue::from_maybe_shared(self.head.slice(field.value_range()))
                .expect("only what may be a value is put into a list"),
        }
    }

    fn owned_bytes(&self, field: &Field) -> Bytes {
        match self.own.get(field.name as usize) {
            Some((_, value)) if field.is_own() => Bytes::copy_from_slice(value.as_bytes()),
            _ => self.head.slice(field.value_range()),
        }
    }

    fn owned_name(&self, field: &Field) -> Option<HeaderName> {
        match self.own.get(field.name as usize) {
            Some((name, _)) if field.is_own() => Some(name.clone()),
            _ => HeaderName::from_bytes(self.name(field)).ok(),
        }
    }

    fn keep(&mut self, name: HeaderName, value: HeaderValue) -> Field {
        self.own.push((name, value));
        Field { name: (self.own.len() - 1) as u32, name_length: 0, value: 0, value_length: 0 }
    }
}

impl Field {
    fn is_own(&self) -> bool {
        self.name_length == 0
    }

    fn name<'l>(&self, head: &'l Bytes, own: &'l [(HeaderName, HeaderValue)]) -> &'l [u8] {
        let at = self.name as usize;
        if self.is_own() { own[at].0.as_str().as_bytes() } else { &head[at..at + self.name_length as usize] }
    }

    fn value<'l>(&self, head: &'l Bytes, own: &'l [(HeaderName, HeaderValue)]) -> &'l [u8] {
        if self.is_own() { own[self.name as usize].1.as_bytes() } else { &head[self.value_range()] }
    }

    fn value_range(&self) -> Range<usize> {
        self.value as usize..self.value as usize + self.value_length as usize
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        let Some(mut list) = self.0.take() else { return };
        list.head = Bytes::new();
        list.fields.clear();
        list.own.clear();
        if list.fields.capacity().max(list.own.capacity()) <= MAX_SPARE_FIELDS {
            // At the end of a thread there is nobody left to keep it for.
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < MAX_SPARE {
                    spare.push(list);
                }
            });
        }
    }
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        let Some(from) = &self.0 else { return Fields(None) };
        let mut copy = Fields(None);
        let list = copy.list();
        list.head.clone_from(&from.head);
        list.fields.extend_from_slice(&from.fields);
        list.own.extend_from_slice(&from.own);
        copy
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        let mut fields = Fields::new();
        for (name, value) in map {
            // Only the first of several values comes with the name.
            let before = || fields.0.as_ref()?.own.last().map(|(name, _)| name.clone());
            if let Some(name) = name.or_else(before) {
                fields.append(name, value);
            }
        }
        fields
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(all: I) -> Self {
        let mut fields = Fields::new();
        all.into_iter().for_each(|(name, value)| fields.append(name, value));
        fields
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names().map(String::from_utf8_lossy)).finish()
    }
}

/// The characters of names (RFC 9110 §5.6.2), in lower case; 0 for any other byte.
pub const NAME_BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0u8;
    while byte < 128 {
        let is_mark = matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        if byte.is_ascii_alphanumeric() || is_mark {
            table[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Makes the characters of a name that stand at the front those of its lower case. How many there are, if something
/// else stands behind them.
pub fn lower_name(bytes: &mut [u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        // Most names are letters and hyphens, and eight of them take as long as one.
        while let Some(eight) = bytes[at..].first_chunk_mut() {
            let usual = lower_in_front(eight);
            at += usual;
            if usual < eight.len() {
                break;
            }
        }
        let byte = bytes.get_mut(at)?;
        match NAME_BYTES[usize::from(*byte)] {
            0 => return Some(at),
            lower => *byte = lower,
        }
        at += 1;
    }
}

/// How many bytes in front are letters or hyphens, which are in lower case then. Each byte's highest bit says so of it: sums and
/// differences of two that have less than eight bits don't reach the next.
fn lower_in_front(bytes: &mut [u8; 8]) -> usize {
    const fn each(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    const HIGH: u64 = each(0x80);
    const CASE: u64 = each(0x20);
    let word = u64::from_le_bytes(*bytes);
    let low = word & !HIGH;
    let from_a = (low | CASE | HIGH) - each(b'a');
    let to_z = each(b'z' | 0x80) - (low | CASE);
    let letters = from_a & to_z & !word & HIGH;
    let is_other_than_hyphen = (low ^ each(b'-')) + !HIGH;
    let others = (letters | !is_other_than_hyphen & !word & HIGH) ^ HIGH;
    // Below the first of the others.
    let in_front = others.wrapping_sub(1) & !others;
    *bytes = (word | (letters >> 2 & in_front)).to_le_bytes();
    (others.trailing_zeros() / 8) as usize
}

/// Whether a field may have this value (RFC 9110 §5.5).
pub fn is_value(bytes: &[u8]) -> bool {
    // Without a way out in the middle, so that many bytes are looked at in one go.
    !bytes.iter().fold(false, |bad, &byte| bad | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f))
}

/// A value that is visible ASCII, spaces and tabs, as text.
pub fn text(value: &[u8]) -> Option<&str> {
    value.is_ascii().then(|| std::str::from_utf8(value).ok())?
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    const HEAD: &str = "host: a\r\naccept: */*\r\nx-one: 1\r\nx-one: \r\ncookie: c=d\r\n";

    /// The fields of [`HEAD`].
    fn read() -> Fields {
        let mut places = Places::default();
        let mut at = 0;
        for line in HEAD.split_inclusive("\r\n") {
            let colon = line.find(':').expect("each line has one");
            places.push(at..at + colon, at + colon + 2..at + line.len() - 2);
            at += line.len();
        }
        places.within(Bytes::from_static(HEAD.as_bytes())).expect("it is short")
    }

    fn shown(fields: &Fields) -> Vec<String> {
        let line =
            |(name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        fields.iter().map(line).collect()
    }

    fn one() -> HeaderName {
        HeaderName::from_static("x-one")
    }

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn names_are_lowered_up_to_what_is_none() {
        let one_by_one = |bytes: &mut [u8]| {
            for (at, byte) in bytes.iter_mut().enumerate() {
                match NAME_BYTES[usize::from(*byte)] {
                    0 => return Some(at),
                    lower => *byte = lower,
                }
            }
            None
        };
        let likely = b"aznm--AZ09_:\r\n \x00\x7f\x80\xad\xe1`{@[.,";
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let any: [u8; 24] = std::array::from_fn(|_| match rng.u8(..8) {
                0 => rng.u8(..),
                1..=2 => likely[rng.usize(..likely.len())],
                _ => b"abcxyz-"[rng.usize(..7)],
            });
            let length = rng.usize(..=any.len());
            let (mut fast, mut slow) = (any, any);
            assert_eq!(lower_name(&mut fast[..length]), one_by_one(&mut slow[..length]), "{any:x?}");
            assert_eq!(fast, slow, "{any:x?}");
        }
    }

    #[test]
    fn what_was_read_is_found() {
        let fields = read();
        assert_eq!(shown(&fields), ["host=a", "accept=*/*", "x-one=1", "x-one=", "cookie=c=d"]);
        assert_eq!(fields.len(), 5);
        assert_eq!(fields.get(&header::ACCEPT), Some(&b"*/*"[..]));
        assert_eq!(fields.get_all(&one()).collect::<Vec<_>>(), [&b"1"[..], b""]);
        assert_eq!(fields.only(&one()), None);
        assert_eq!(fields.only(&header::HOST), Some(&b"a"[..]));
        assert_eq!(fields.value(&header::COOKIE), Some(value("c=d")));
        assert_eq!(fields.at_most_one(&header::COOKIE), Some(Some(Bytes::from_static(b"c=d"))));
        assert_eq!((fields.at_most_one(&header::TE), fields.at_most_one(&one())), (Some(None), None));
        assert!(fields.may_be_named_with(b'-') && !fields.may_be_named_with(b'_'));
        assert_eq!(fields.value(&header::ACCEPT_ENCODING), None);
        assert!(!fields.contains(&header::TE));
    }

    #[test]
    fn a_field_keeps_its_place_when_its_value_is_replaced() {
        let mut fields = read();
        fields.insert(one(), value("2"));
        fields.insert(header::TE, value("trailers"));
        fields.append(header::ACCEPT, value("b"));
        let expected = ["host=a", "accept=*/*", "x-one=2", "cookie=c=d", "te=trailers", "accept=b"];
        assert_eq!(shown(&fields), expected);
        fields.insert(one(), value("3"));
        assert_eq!(fields.value(&one()), Some(value("3")));
    }

    #[test]
    fn all_values_of_a_field_are_removed() {
        let mut fields = read();
        fields.append(one(), value("3"));
        fields.remove(&one());
        fields.remove(&header::TE);
        fields.remove(&header::ACCEPT);
        assert_eq!(shown(&fields), ["host=a", "cookie=c=d"]);
        fields.retain(|_, value| value == b"a");
        assert_eq!(shown(&fields), ["host=a"]);
    }

    #[test]
    fn a_map_has_the_same_fields() {
        let mut fields = read();
        fields.append(header::HOST, value("b"));
        let map = fields.to_map();
        assert_eq!(map.get_all(header::HOST).iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(map.len(), 6);
        let again = Fields::from(map);
        assert_eq!(again.len(), 6);
        assert_eq!(again.get_all(&header::HOST).collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(Fields::new().to_map().is_empty());
    }

    #[test]
    fn a_copy_is_one_of_its_own() {
        let mut fields = read();
        fields.append(header::TE, value("trailers"));
        let copy = fields.clone();
        fields.remove(&header::HOST);
        fields.insert(header::TE, value("x"));
        assert_eq!(copy.get(&header::HOST), Some(&b"a"[..]));
        assert_eq!(copy.get(&header::TE), Some(&b"trailers"[..]));
        assert!(Fields::new().clone().is_empty());
    }

    #[test]
    fn a_list_that_is_used_again_remembers_nothing() {
        for _ in 0..3 {
            drop(read());
            let mut fields = Fields::new();
            fields.append(header::TE, value("x"));
            assert_eq!(shown(&fields), ["te=x"]);
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", read()), r#"["host", "accept", "x-one", "x-one", "cookie"]"#);
    }

    #[test]
    fn names_and_values_are_what_the_library_takes_for_them() {
        for byte in 0..=255u8 {
            let name = HeaderName::from_bytes(&[byte]).ok();
            let expected = name.as_ref().map_or(0, |name| name.as_str().as_bytes()[0]);
            // RFC 9110 has no quotation mark in names; whether it is one there makes no difference to us.
            assert_eq!(NAME_BYTES[usize::from(byte)], expected, "{byte}");
            assert_eq!(is_value(&[b'a', byte]), HeaderValue::from_bytes(&[b'a', byte]).is_ok(), "{byte}");
        }
        assert_eq!(text(b"a b"), Some("a b"));
        assert_eq!(text("é".as_bytes()), None);
    }
}
