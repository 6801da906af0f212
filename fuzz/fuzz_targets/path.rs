//! Any path is refused or comes to its one form, and that form holds nothing that a server behind the
//! gateway could read otherwise.

#![no_main]

use gatehouse::http::path::normalise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|raw: &str| {
    let Ok(normalised) = normalise(raw) else { return };
    let path = &*normalised.path;
    let again = normalise(path).expect("what was normalised is valid");
    assert_eq!(again.path, path, "the form is its own fixed point");
    assert!(path.starts_with('/'));
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'?' | b'#')));
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "no dot segment is left");
    assert!(!path.contains("//"), "no empty segment is left");
    assert!(path.matches('/').count() <= raw.matches('/').count(), "decoding separates nothing");
    assert_eq!(normalised.has_encoded_slash, raw.to_ascii_lowercase().contains("%2f"));
});
