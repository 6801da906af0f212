//! JSON that is checked as it passes: any bytes are taken or refused as serde_json does it with all of them at once, but
//! for what nests too deep, and where they were cut makes no difference.

use gatehouse::http::json_check::{JsonCheck, MAX_DEPTH};
use serde_json::value::RawValue;

pub fn json(input: &[u8]) {
    let Some((first, second, bytes)) = super::cuts(input) else { return };
    let whole = checked(&[bytes]);
    let cut = checked(&[&bytes[..first], &bytes[first..second], &bytes[second..]]);
    assert_eq!(whole, cut, "the cut makes a difference");
    let known = serde_json::from_slice::<&RawValue>(bytes).ok().map(|value| value.get().as_bytes().to_vec());
    let openings = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if whole.is_some() || openings <= MAX_DEPTH {
        assert_eq!(whole, known);
    }
}

/// What was let through, if it came to a value.
fn checked(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let (mut check, mut value) = (JsonCheck::default(), Vec::new());
    for piece in pieces {
        value.extend_from_slice(&piece[check.push(piece).ok()?]);
    }
    check.is_whole().then_some(value)
}
