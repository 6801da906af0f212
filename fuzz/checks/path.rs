//! Any path is refused or comes to its one form, and that form holds nothing that a server behind the
//! gateway could read otherwise.

use gatehouse::http::path::normalise;

pub fn path(input: &[u8]) {
    let Some(raw) = super::text(input) else { return };
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
    assert!(!path.contains("%C0%A") && !path.contains("%00") && !path.contains("%5C"));
}
