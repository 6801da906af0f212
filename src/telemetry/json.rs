//! JSON strings written straight into a byte buffer, for the log lines.
//!
//! Whatever the bytes are, the result is one valid JSON string on one line that shows no control
//! character to a terminal.

/// Writes `bytes` as a quoted JSON string (RFC 8259 §7). Invalid UTF-8 becomes U+FFFD.
pub(super) fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if all_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            write_escaped(chunk.valid(), out);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// Looks at the bytes of a chunk without a branch between them, so that the compiler compares them at once.
fn all_plain(bytes: &[u8]) -> bool {
    let plain = |chunk: &[u8]| chunk.iter().fold(true, |plain, &byte| plain & is_plain(byte));
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| plain(chunk)) && plain(rest)
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..0x7f) & (byte != b'"') & (byte != b'\\')
}

fn write_escaped(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            // The C1 controls are legal in JSON, but some terminals obey them.
            '\0'..='\x1f' | '\x7f'..='\u{9f}' => write_unicode_escape(character as u32, out),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// `code` is below 0x100.
fn write_unicode_escape(code: u32, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.push(HEX[(code >> 4 & 15) as usize]);
    out.push(HEX[(code & 15) as usize]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_string(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hostile_bytes() {
        assert_eq!(written(b"/plain/path"), r#""/plain/path""#);
        assert_eq!(written(b"a\"b\\c\n\x1b[2J"), r#""a\"b\\c\n\u001b[2J""#);
        assert_eq!(written("\u{9b}31m\x7f é".as_bytes()), "\"\\u009b31m\\u007f é\"");
        assert_eq!(written(b"a\xffb\xc3"), "\"a\u{fffd}b\u{fffd}\"");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_as_their_lossy_text(bytes: Vec<u8>) {
            let text = written(&bytes);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(
                serde_json::from_str::<String>(&text).unwrap(),
                String::from_utf8_lossy(&bytes).into_owned()
            );
        }
    }
}
