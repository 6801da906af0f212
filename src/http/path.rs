//! One form for every path: what a request is matched by is what is sent on.
//!
//! A client may write the same path in many ways (`/a/./b`, `/a/%62`, `//a/b`), and servers disagree
//! about some of them. [`normalise`] runs once, before matching, so that no way of writing leads
//! around a route. Its result is its own fixed point: it begins with `/`, has no empty segment except
//! after a trailing slash, no dot segment, and no escape that could be written without one.

use std::borrow::Cow;

/// A path in its one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// Borrowed when the path was in this form already.
    pub path: Cow<'a, str>,
    /// The path as it was sent held a `%2F`. The route decides whether that is refused; where it is
    /// kept it stays `%2F` and never separates segments.
    pub has_encoded_slash: bool,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("a percent sign is not followed by two hexadecimal digits")]
    BrokenEscape,
    #[error("the path has a backslash, as it is or encoded")]
    Backslash,
    #[error("the path has an encoded NUL")]
    Nul,
    /// `%C0%AE` is no UTF-8, and a dot to who doesn't check (RFC 3629 §10).
    #[error("the path has an ASCII character in an overlong form of UTF-8")]
    Overlong,
    /// A control byte, a space, `?`, `#`, or a byte outside ASCII (RFC 3986 §3.3).
    #[error("the path has the byte {0:#04x}, which must be percent-encoded")]
    ForbiddenByte(u8),
    /// `..;x` or `..%2Fx`: a name by RFC 3986, but some servers drop what follows `;`, or decode the
    /// slash, and would climb.
    #[error("a dot segment is hidden behind a semicolon or an encoded slash")]
    HiddenDotSegment,
}

/// Brings the path of a request target into its one form (RFC 3986 §6.2.2): escapes are checked,
/// those of unreserved characters decoded, once, and the others written in upper case; then
/// duplicate slashes are merged, then dot segments resolved (§5.2.4; `..` at the root stays there).
///
/// `raw` is a path only: no query. The asterisk of `OPTIONS *` is the caller's to tell apart.
pub fn normalise(raw: &str) -> Result<Normalised<'_>, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_plainly_normal(raw.as_bytes()) {
        return Ok(Normalised { path: Cow::Borrowed(raw), has_encoded_slash: false });
    }
    rebuild(raw)
}

/// `true` only for paths that [`rebuild`] would return unchanged; in doubt `false`.
fn is_plainly_normal(path: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += match CLASSES[usize::from(byte)] {
            Class::Plain => 1,
            Class::Slash if !may_be_dot_or_empty(&path[at + 1..]) => 1,
            Class::Percent if is_settled_escape(&path[at + 1..]) => 3,
            _ => return false,
        };
    }
    true
}

/// Whether what follows a slash needs a closer look. A name like `.well-known` does not.
fn may_be_dot_or_empty(rest: &[u8]) -> bool {
    match rest {
        [b'/', ..] => true,
        [b'.'] => true,
        [b'.', next, ..] => matches!(next, b'.' | b'/' | b';' | b'%'),
        _ => false,
    }
}

/// Whether an escape stays as it is and means nothing to us.
fn is_settled_escape(digits: &[u8]) -> bool {
    let [high, low, ..] = *digits else { return false };
    let is_upper = |digit: u8| matches!(digit, b'0'..=b'9' | b'A'..=b'F');
    let Some(value) = hex_pair(high, low) else { return false };
    is_upper(high)
        && is_upper(low)
        && !is_unreserved(value)
        && !matches!(value, 0 | b'/' | b'\\')
        && !is_overlong(value, &digits[2..])
}

/// Whether a first byte and the escapes behind it spell a character below 0x80 in more than one byte.
fn is_overlong(first: u8, behind: &[u8]) -> bool {
    let escape = |at: usize| match behind.get(3 * at..3 * at + 3) {
        Some([b'%', high, low]) => hex_pair(*high, *low),
        _ => None,
    };
    let continues = |at| matches!(escape(at), Some(0x80..=0xbf));
    match first {
        0xc0 | 0xc1 => continues(0),
        0xe0 => matches!(escape(0), Some(0x80 | 0x81)) && continues(1),
        0xf0 => escape(0) == Some(0x80) && matches!(escape(1), Some(0x80 | 0x81)) && continues(2),
        _ => false,
    }
}

fn rebuild(raw: &str) -> Result<Normalised<'_>, PathError> {
    let mut path = String::with_capacity(raw.len() + 8);
    path.push('/');
    let mut has_encoded_slash = false;
    let mut segments = raw[1..].split('/').peekable();
    // Before each turn `path` ends with a slash.
    while let Some(segment) = segments.next() {
        let start = path.len();
        push_segment(&mut path, segment, &mut has_encoded_slash)?;
        match kind_of(&path[start..])? {
            Kind::Empty => {}
            Kind::Dot => path.truncate(start),
            Kind::DotDot => {
                path.truncate(start);
                let parent_end = path[..start - 1].rfind('/').unwrap_or(0);
                path.truncate(parent_end + 1);
            }
            Kind::Name if segments.peek().is_some() => path.push('/'),
            Kind::Name => {}
        }
    }
    let path = if path == raw { Cow::Borrowed(raw) } else { Cow::Owned(path) };
    Ok(Normalised { path, has_encoded_slash })
}

/// Appends one segment with its escapes in their one form.
fn push_segment(path: &mut String, segment: &str, has_encoded_slash: &mut bool) -> Result<(), PathError> {
    let mut bytes = segment.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        match CLASSES[usize::from(byte)] {
            Class::Plain => path.push(char::from(byte)),
            Class::Encode => push_escape(path, byte),
            Class::Percent => {
                let (Some(&high), Some(&low)) = (bytes.next(), bytes.next()) else {
                    return Err(PathError::BrokenEscape);
                };
                match hex_pair(high, low).ok_or(PathError::BrokenEscape)? {
                    0 => return Err(PathError::Nul),
                    b'\\' => return Err(PathError::Backslash),
                    value if is_unreserved(value) => path.push(char::from(value)),
                    value if is_overlong(value, bytes.as_slice()) => return Err(PathError::Overlong),
                    value => {
                        *has_encoded_slash |= value == b'/';
                        push_escape(path, value);
                    }
                }
            }
            Class::Slash | Class::Forbidden if byte == b'\\' => return Err(PathError::Backslash),
            Class::Slash | Class::Forbidden => return Err(PathError::ForbiddenByte(byte)),
        }
    }
    Ok(())
}

enum Kind {
    Empty,
    Dot,
    DotDot,
    Name,
}

fn kind_of(segment: &str) -> Result<Kind, PathError> {
    match segment {
        "" => return Ok(Kind::Empty),
        "." => return Ok(Kind::Dot),
        ".." => return Ok(Kind::DotDot),
        _ => {}
    }
    if segment.split("%2F").any(is_hidden_dot_segment) {
        Err(PathError::HiddenDotSegment)
    } else {
        Ok(Kind::Name)
    }
}

/// Asked of the pieces between encoded slashes of a segment that is not itself a dot segment.
fn is_hidden_dot_segment(piece: &str) -> bool {
    let dots = piece.bytes().take_while(|&byte| byte == b'.').count();
    let rest = &piece[dots..];
    matches!(dots, 1 | 2) && (rest.is_empty() || rest.starts_with(';') || rest.starts_with("%3B"))
}

/// Appends `byte` percent-encoded, with the upper-case digits of RFC 3986 §2.1.
pub(super) fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// The value of two hexadecimal digits.
pub(super) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// RFC 3986 §2.3.
pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether `byte` may stand in a segment as it is (`pchar` of RFC 3986 §3.3, escapes aside).
pub(super) const fn is_segment_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
        || matches!(byte, b':' | b'@')
}

#[derive(Clone, Copy)]
enum Class {
    Plain,
    Slash,
    Percent,
    /// No path byte by RFC 3986, but browsers send some of these bare; they get their one form.
    Encode,
    Forbidden,
}

static CLASSES: [Class; 256] = {
    let mut classes = [Class::Forbidden; 256];
    let mut byte = 0u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Encode,
            _ if is_segment_byte(byte) => Class::Plain,
            _ => Class::Forbidden,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> String {
        normalise(raw).unwrap_or_else(|error| panic!("{raw}: {error}")).path.into_owned()
    }

    #[test]
    fn every_way_of_writing_comes_to_one_form() {
        let table = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/b/../../c", "/c"),
            ("/a//../b", "/b"),
            ("/..", "/"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/../../../b", "/b"),
            ("/...", "/..."),
            ("/..a/.b", "/..a/.b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E./b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/%7euser/%41%2d%5F", "/~user/A-_"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            // Latin-1, Thai, an emoji, a wide slash: other characters, however they are read.
            ("/caf%e9", "/caf%E9"),
            ("/%C0", "/%C0"),
            ("/%C0-%AE", "/%C0-%AE"),
            ("/%e0%b8%81", "/%E0%B8%81"),
            ("/%F0%9F%98%80", "/%F0%9F%98%80"),
            ("/%EF%BC%8F", "/%EF%BC%8F"),
            ("/a%20b", "/a%20b"),
            // Decoded once only: what would be a dot after a second time stays an escape.
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/%252f", "/%252f"),
            ("/%25", "/%25"),
            ("/a|b/[1]/^", "/a%7Cb/%5B1%5D/%5E"),
            ("/{id}", "/%7Bid%7D"),
            ("/a;x=1,2/b:c@d", "/a;x=1,2/b:c@d"),
            ("/a;..", "/a;.."),
            ("/...;x", "/...;x"),
        ];
        for (raw, expected) in table {
            assert_eq!(normal(raw), expected, "{raw}");
        }
    }

    #[test]
    fn refuses_what_servers_disagree_about() {
        use PathError::*;
        let table = [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("a/b", NotAbsolute),
            ("/%", BrokenEscape),
            ("/%4", BrokenEscape),
            ("/%4/a", BrokenEscape),
            ("/%zz", BrokenEscape),
            ("/%+1", BrokenEscape),
            ("/a%2", BrokenEscape),
            ("/a\\b", Backslash),
            ("/..\\..\\a", Backslash),
            ("/a%5Cb", Backslash),
            ("/a%5c..", Backslash),
            ("/a%00", Nul),
            ("/%c0%ae%c0%ae/a", Overlong),
            ("/a%C0%AFb", Overlong),
            ("/%c1%9c", Overlong),
            ("/%e0%80%af", Overlong),
            ("/%e0%81%9c", Overlong),
            ("/%F0%80%80%AE", Overlong),
            ("/%00/../a", Nul),
            ("/a b", ForbiddenByte(b' ')),
            ("/a\tb", ForbiddenByte(b'\t')),
            ("/a\0b", ForbiddenByte(0)),
            ("/a\r\nb", ForbiddenByte(b'\r')),
            ("/a\x7f", ForbiddenByte(0x7f)),
            ("/a?b", ForbiddenByte(b'?')),
            ("/a#b", ForbiddenByte(b'#')),
            ("/caf\u{e9}", ForbiddenByte(0xc3)),
            ("/a/..;/b", HiddenDotSegment),
            ("/a/.;x/b", HiddenDotSegment),
            ("/a/..%3b/b", HiddenDotSegment),
            ("/a/%2e%2e;x", HiddenDotSegment),
            ("/a/..%2Fb", HiddenDotSegment),
            ("/a/%2e%2e%2fb", HiddenDotSegment),
            ("/a/b%2f..", HiddenDotSegment),
            ("/a/b%2f%2e%2fc", HiddenDotSegment),
            ("/a/b%2f..;x%2fc", HiddenDotSegment),
        ];
        for (raw, expected) in table {
            assert_eq!(normalise(raw), Err(expected), "{raw:?}");
        }
    }

    #[test]
    fn an_encoded_slash_stays_and_is_reported() {
        for (raw, expected) in [("/a%2fb", "/a%2Fb"), ("/a%2Fb", "/a%2Fb"), ("/%2F%2F/x", "/%2F%2F/x")] {
            let normalised = normalise(raw).expect("a valid path");
            assert_eq!((normalised.path.as_ref(), normalised.has_encoded_slash), (expected, true), "{raw}");
        }
        assert!(!normalise("/a%252Fb").expect("a valid path").has_encoded_slash);
        // Reported even when a dot segment takes it away: another server may have resolved it otherwise.
        assert!(normalise("/a%2Fb/../c").expect("a valid path").has_encoded_slash);
    }

    #[test]
    fn a_path_in_its_form_is_borrowed() {
        for raw in ["/", "/gateway/api/users/1", "/.well-known/x", "/caf%C3%A9/", "/a%2Fb", "/..."] {
            assert!(matches!(normalise(raw).expect("a valid path").path, Cow::Borrowed(_)), "{raw}");
        }
    }

    /// Mostly the characters that matter, so that they meet each other often.
    fn raw_paths() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            6 => prop::sample::select(vec!["/", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "%00", "%25", "%3b"]),
            3 => prop::sample::select(vec![";", "a", "b", "%61", "%", "%4", "\\", "|", "é", " ", "?", "~", "%c3%A9"]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    /// What RFC 3986 §3.3 allows after a method: `1*( "/" *pchar )`.
    fn is_origin_form(path: &str) -> bool {
        let bytes = path.as_bytes();
        let escapes_are_whole = bytes.iter().enumerate().all(|(at, &byte)| {
            byte != b'%' || matches!(bytes.get(at + 1..at + 3), Some([h, l]) if hex_pair(*h, *l).is_some())
        });
        let allowed = |&byte: &u8| byte == b'/' || byte == b'%' || is_segment_byte(byte);
        bytes.first() == Some(&b'/') && escapes_are_whole && bytes.iter().all(allowed)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn the_result_is_a_fixed_point(raw in raw_paths()) {
            let Ok(once) = normalise(&raw) else { return Ok(()) };
            let twice = normalise(&once.path).expect("what was normalised is valid");
            prop_assert_eq!(&twice.path, &once.path);
            prop_assert!(matches!(twice.path, Cow::Borrowed(_)));
        }

        #[test]
        fn the_result_has_nothing_left_to_resolve(raw in raw_paths()) {
            let Ok(Normalised { path, .. }) = normalise(&raw) else { return Ok(()) };
            prop_assert!(is_origin_form(&path), "{}", path);
            prop_assert!(!path.contains("//"), "{}", path);
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{}", path);
        }

        #[test]
        fn decoding_separates_nothing(raw in raw_paths()) {
            let Ok(Normalised { path, has_encoded_slash }) = normalise(&raw) else { return Ok(()) };
            prop_assert!(path.matches('/').count() <= raw.matches('/').count());
            prop_assert_eq!(has_encoded_slash, raw.to_ascii_lowercase().contains("%2f"));
        }

        #[test]
        fn any_text_is_answered(raw in any::<String>()) {
            if let Ok(normalised) = normalise(&raw) {
                prop_assert!(is_origin_form(&normalised.path));
            }
        }
    }
}
