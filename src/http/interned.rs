//! Header names and values that live as long as the process.
//!
//! A `HeaderValue` made at run time counts its references, and cloning one that several workers share
//! makes them pass the counter's cache line around. One made from a `'static` string counts nothing.
//! So names and values that come from the configuration are stored here once, each distinct text a
//! single time however often the configuration is reloaded. What is stored is never freed, hence
//! the two bounds; past them the value is returned as it is, which costs speed only.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

const MAX_TEXTS: usize = 8192;
const MAX_BYTES: usize = 1024;

static TEXTS: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);

/// The same value, without a reference count where that is possible. For compiling, not for requests.
pub fn value(value: &HeaderValue) -> HeaderValue {
    // A value that must not be remembered by compressors or logs should not outlive its use either.
    if value.is_sensitive() {
        return value.clone();
    }
    // `to_str` allows just the visible ASCII that `from_static` accepts.
    match value.to_str().ok().and_then(intern) {
        Some(text) => HeaderValue::from_static(text),
        None => value.clone(),
    }
}

/// The bytes of a value, likewise.
pub fn bytes(value: &HeaderValue) -> Bytes {
    match value.to_str().ok().and_then(intern) {
        Some(text) => Bytes::from_static(text.as_bytes()),
        None => Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// The same name, likewise.
pub fn name(name: &HeaderName) -> HeaderName {
    match intern(name.as_str()) {
        Some(text) => HeaderName::from_static(text),
        None => name.clone(),
    }
}

fn intern(text: &str) -> Option<&'static str> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = texts.get(text) {
        return Some(known);
    }
    if texts.len() >= MAX_TEXTS {
        return None;
    }
    let stored: &'static str = Box::leak(text.into());
    texts.insert(stored);
    Some(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_equal() {
        for text in ["nosniff", "", "a\tb", "GET, POST"] {
            let original = HeaderValue::from_str(text).unwrap();
            assert_eq!(value(&original), original);
        }
        let opaque = HeaderValue::from_bytes(b"caf\xc3\xa9").unwrap();
        assert_eq!(value(&opaque), opaque);
        let custom = HeaderName::from_bytes(b"X-Custom").unwrap();
        assert_eq!(name(&custom), custom);
        assert_eq!(name(&http::header::VARY), http::header::VARY);
    }

    #[test]
    fn equal_texts_are_stored_once_and_long_ones_not_at_all() {
        let first = intern("x-stored-once").unwrap();
        let second = intern(&String::from("x-stored-once")).unwrap();
        assert!(std::ptr::eq(first, second));
        assert_eq!(intern(&"a".repeat(MAX_BYTES + 1)), None);
    }

    #[test]
    fn sensitive_values_stay_sensitive_and_are_not_stored() {
        let mut secret = HeaderValue::from_static("interned-secret");
        secret.set_sensitive(true);
        assert!(value(&secret).is_sensitive());
        assert!(!TEXTS.lock().unwrap().contains("interned-secret"));
    }
}
