//! Reading and writing query strings as the pairs that forms make of them.
//!
//! Pairs are separated by `&` only. `+` and `%20` both are a space, as in
//! `application/x-www-form-urlencoded`; an escape that is broken stands for itself. Of a repeated key
//! the first pair counts, as the Kubernetes Gateway API recommends.

use std::borrow::Cow;

use super::path::{hex_pair, is_unreserved, push_escape};

/// The value of the first pair whose decoded key is `key`, still encoded. A key without `=` has the
/// empty value.
pub fn first<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    pairs(query).find(|(name, _)| equals(name, key.as_bytes())).map(|(_, value)| value)
}

/// The pairs in their order, both halves still encoded. Empty pairs (`a&&b`) are left out.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Whether `encoded` stands for exactly `plain`. Allocates nothing.
pub fn equals(encoded: &str, plain: &[u8]) -> bool {
    // Decoding never makes a text longer, nor shorter than a third of it.
    encoded.len() >= plain.len() && decoded(encoded).eq(plain.iter().copied())
}

/// What `encoded` stands for; borrowed when it is written as it is.
pub fn decode(encoded: &str) -> Cow<'_, [u8]> {
    if encoded.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        Cow::Owned(decoded(encoded).collect())
    } else {
        Cow::Borrowed(encoded.as_bytes())
    }
}

fn decoded(encoded: &str) -> impl Iterator<Item = u8> {
    let mut rest = encoded.as_bytes();
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        match (byte, after) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, after @ ..]) => {
                let Some(value) = hex_pair(*high, *low) else { return Some(byte) };
                rest = after;
                Some(value)
            }
            _ => Some(byte),
        }
    })
}

/// Appends text as (part of) a segment or a query value: all but unreserved characters (RFC 3986 §2.3) is encoded.
pub fn push_text(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            push_escape(out, byte);
        }
    }
}

/// Appends a segment of a normalised path as (part of) a query value. Its escapes stay, and all else
/// but unreserved characters is encoded: it can end neither the value nor the query, nor become a space.
pub fn push_segment_as_value(out: &mut String, segment: &str) {
    for byte in segment.bytes() {
        if is_unreserved(byte) || byte == b'%' {
            out.push(char::from(byte));
        } else {
            push_escape(out, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_pair_of_a_key_counts() {
        let table = [
            ("a=1", "a", Some("1")),
            ("a=1&a=2", "a", Some("1")),
            ("b=2&a=1", "a", Some("1")),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("&&a=1", "a", Some("1")),
            ("%61=1", "a", Some("1")),
            ("a+b=1", "a b", Some("1")),
            ("A=1", "a", None),
            ("ab=1", "a", None),
            ("b=a", "a", None),
            ("a;b=1", "b", None),
            ("=1", "", Some("1")),
            ("", "a", None),
        ];
        for (query, key, expected) in table {
            assert_eq!(first(query, key), expected, "{query} {key}");
        }
    }

    #[test]
    fn compares_what_the_text_stands_for() {
        assert!(equals("a%20b+c", b"a b c"));
        assert!(equals("%C3%A9", "é".as_bytes()));
        assert!(equals("100%", b"100%"));
        assert!(equals("%zz%4", b"%zz%4"));
        assert!(!equals("a%2", b"a"));
        assert!(!equals("a", b"ab"));
        assert!(!equals("ab", b"a"));
        assert!(!equals("%2561", b"a"));
    }

    proptest! {
        #[test]
        fn equality_and_decoding_agree(encoded in "[ab%+2 é]{0,8}", plain in "[ab%+2 é]{0,8}") {
            prop_assert!(equals(&encoded, &decode(&encoded)));
            prop_assert_eq!(equals(&encoded, plain.as_bytes()), decode(&encoded).as_ref() == plain.as_bytes());
        }

        #[test]
        fn no_segment_leaves_its_value(segment in "[a-c!$&'()*+,;=:@~-]{0,8}") {
            let mut query = String::from("before=1&key=");
            push_segment_as_value(&mut query, &segment);
            query.push_str("&after=2");
            prop_assert_eq!(pairs(&query).count(), 3);
            prop_assert!(equals(first(&query, "key").unwrap_or("absent"), segment.as_bytes()));
            prop_assert!(query.bytes().all(|byte| !matches!(byte, b'+' | b'#' | b';')));
        }
    }
}
