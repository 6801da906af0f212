//! Checks that what passes is one JSON value (RFC 8259), piece by piece, however it was cut. Nothing of it is kept but
//! where it stands: a bit for each level of nesting, and the first bytes of a character that was cut.
//!
//! What it lets through is what serde_json takes for a raw value, as long as that nests no deeper than [`MAX_DEPTH`].

use std::ops::Range;

use memchr::memchr2;

/// Arrays and objects within each other.
pub const MAX_DEPTH: usize = 1024;

/// What has come is not the beginning of a JSON value, or is one and something else behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one JSON value")]
pub struct NotJson;

pub struct JsonCheck {
    at: At,
    /// What each level is: a bit is set for an object.
    levels: [u64; MAX_DEPTH / 64],
    depth: usize,
    /// Of a character that was cut.
    carry: [u8; 4],
    carried: usize,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Value,
    /// Behind `[`: a value, or the end of it.
    FirstElement,
    /// Behind `{`: a name, or the end of it.
    FirstName,
    /// Behind a comma in an object.
    Name,
    Colon,
    /// Behind a value inside of another.
    Next,
    Text {
        is_name: bool,
    },
    Escape {
        is_name: bool,
    },
    /// So many digits of `\u0000` are still to come.
    Hex {
        left: u8,
        is_name: bool,
    },
    /// What is left of `true`, `false` or `null`.
    Word(&'static [u8]),
    Number(Digits),
    End,
}

/// Where in a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    Minus,
    /// Nothing but a point or an exponent may follow a zero.
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Default for JsonCheck {
    fn default() -> Self {
        JsonCheck { at: At::Value, levels: [0; MAX_DEPTH / 64], depth: 0, carry: [0; 4], carried: 0 }
    }
}

impl JsonCheck {
    /// Takes the next piece. Returns what of it belongs to the value: not the space before and behind it.
    pub fn push(&mut self, piece: &[u8]) -> Result<Range<usize>, NotJson> {
        let mut at = 0;
        if self.at == At::Value && self.depth == 0 {
            at = spaces(piece);
        }
        let start = at;
        let mut end = if self.at == At::End { start } else { piece.len() };
        while at < piece.len() {
            if self.at == At::End {
                let rest = &piece[at..];
                return if spaces(rest) == rest.len() { Ok(start.min(end)..end) } else { Err(NotJson) };
            }
            at += self.take(&piece[at..])?;
            if self.at == At::End {
                end = at;
            }
        }
        Ok(start.min(end)..end)
    }

    /// Whether what has come is a whole value. A number is one as soon as nothing follows it.
    pub fn is_whole(&self) -> bool {
        let is_number =
            matches!(self.at, At::Number(Digits::Zero | Digits::Whole | Digits::Fraction | Digits::Exponent));
        self.at == At::End || is_number && self.depth == 0
    }

    /// Takes something of `rest`, which is not empty; how much. Nothing only where the number before it is over.
    fn take(&mut self, rest: &[u8]) -> Result<usize, NotJson> {
        match self.at {
            At::Text { is_name } => return self.text(rest, is_name),
            At::Number(digits) => return self.number(rest, digits),
            At::Word(word) => return self.word(rest, word),
            At::Escape { is_name } => {
                self.at = match rest[0] {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => At::Text { is_name },
                    b'u' => At::Hex { left: 4, is_name },
                    _ => return Err(NotJson),
                };
                return Ok(1);
            }
            At::Hex { left, is_name } => {
                if !rest[0].is_ascii_hexdigit() {
                    return Err(NotJson);
                }
                self.at = if left == 1 { At::Text { is_name } } else { At::Hex { left: left - 1, is_name } };
                return Ok(1);
            }
            _ => {}
        }
        let space = spaces(rest);
        if space > 0 {
            return Ok(space);
        }
        self.sign(rest[0]).map(|()| 1)
    }

    /// A byte outside of texts, numbers and words.
    fn sign(&mut self, byte: u8) -> Result<(), NotJson> {
        match (self.at, byte) {
            (At::FirstElement, b']') => self.close(),
            (At::FirstName, b'}') => self.close(),
            (At::Next, b']') if !self.is_in_object() => self.close(),
            (At::Next, b'}') if self.is_in_object() => self.close(),
            (At::Next, b',') => self.at = if self.is_in_object() { At::Name } else { At::Value },
            (At::Colon, b':') => self.at = At::Value,
            (At::FirstName | At::Name, b'"') => self.at = At::Text { is_name: true },
            (At::Value | At::FirstElement, byte) => return self.begin(byte),
            _ => return Err(NotJson),
        }
        Ok(())
    }

    fn begin(&mut self, byte: u8) -> Result<(), NotJson> {
        self.at = match byte {
            b'{' => return self.open(true),
            b'[' => return self.open(false),
            b'"' => At::Text { is_name: false },
            b't' => At::Word(b"rue"),
            b'f' => At::Word(b"alse"),
            b'n' => At::Word(b"ull"),
            b'-' => At::Number(Digits::Minus),
            b'0' => At::Number(Digits::Zero),
            b'1'..=b'9' => At::Number(Digits::Whole),
            _ => return Err(NotJson),
        };
        Ok(())
    }

    fn open(&mut self, is_object: bool) -> Result<(), NotJson> {
        let level = self.levels.get_mut(self.depth / 64).ok_or(NotJson)?;
        let bit = 1 << (self.depth % 64);
        *level = if is_object { *level | bit } else { *level & !bit };
        self.depth += 1;
        self.at = if is_object { At::FirstName } else { At::FirstElement };
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.value_ended();
    }

    fn value_ended(&mut self) {
        self.at = if self.depth == 0 { At::End } else { At::Next };
    }

    fn is_in_object(&self) -> bool {
        let last = self.depth.wrapping_sub(1);
        self.levels.get(last / 64).is_some_and(|level| level & (1 << (last % 64)) != 0)
    }

    fn word(&mut self, rest: &[u8], word: &'static [u8]) -> Result<usize, NotJson> {
        let shared = word.len().min(rest.len());
        if word[..shared] != rest[..shared] {
            return Err(NotJson);
        }
        match &word[shared..] {
            [] => self.value_ended(),
            left => self.at = At::Word(left),
        }
        Ok(shared)
    }

    fn number(&mut self, rest: &[u8], digits: Digits) -> Result<usize, NotJson> {
        let mut digits = digits;
        for (place, byte) in rest.iter().enumerate() {
            digits = match (digits, byte) {
                (Digits::Minus, b'0') => Digits::Zero,
                (Digits::Minus, b'1'..=b'9') | (Digits::Whole, b'0'..=b'9') => Digits::Whole,
                (Digits::Zero | Digits::Whole, b'.') => Digits::Point,
                (Digits::Point | Digits::Fraction, b'0'..=b'9') => Digits::Fraction,
                (Digits::Zero | Digits::Whole | Digits::Fraction, b'e' | b'E') => Digits::E,
                (Digits::E, b'+' | b'-') => Digits::Sign,
                (Digits::E | Digits::Sign | Digits::Exponent, b'0'..=b'9') => Digits::Exponent,
                (Digits::Zero | Digits::Whole | Digits::Fraction | Digits::Exponent, byte)
                    if !byte.is_ascii_digit() =>
                {
                    self.value_ended();
                    return Ok(place);
                }
                _ => return Err(NotJson),
            };
        }
        self.at = At::Number(digits);
        Ok(rest.len())
    }

    /// Up to the end of the text, or the next escape.
    fn text(&mut self, rest: &[u8], is_name: bool) -> Result<usize, NotJson> {
        let mut begin = 0;
        // The rest of a character that was cut; its bytes are never quotes.
        while self.carried > 0 {
            let Some(byte) = rest.get(begin) else { return Ok(begin) };
            begin += 1;
            let slot = self.carry.get_mut(self.carried).ok_or(NotJson)?;
            *slot = *byte;
            self.carried += 1;
            match std::str::from_utf8(&self.carry[..self.carried]) {
                Ok(_) => self.carried = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(NotJson),
            }
        }
        let plain = &rest[begin..];
        let stop = memchr2(b'"', b'\\', plain);
        self.plain(&plain[..stop.unwrap_or(plain.len())], stop.is_some())?;
        let Some(stop) = stop else { return Ok(rest.len()) };
        match plain[stop] {
            b'\\' => self.at = At::Escape { is_name },
            _ if is_name => self.at = At::Colon,
            _ => self.value_ended(),
        }
        Ok(begin + stop + 1)
    }

    /// Characters without quotes and escapes. The last may go on in the next piece, unless something follows it here.
    fn plain(&mut self, run: &[u8], is_followed: bool) -> Result<(), NotJson> {
        if run.iter().any(|byte| *byte < 0x20) {
            return Err(NotJson);
        }
        let Err(error) = std::str::from_utf8(run) else { return Ok(()) };
        let cut = &run[error.valid_up_to()..];
        if error.error_len().is_some() || is_followed {
            return Err(NotJson);
        }
        self.carry[..cut.len()].copy_from_slice(cut);
        self.carried = cut.len();
        Ok(())
    }
}

/// How much of it is space.
fn spaces(text: &[u8]) -> usize {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// The value, put together of what is let through of the pieces.
    fn checked(pieces: &[&[u8]]) -> Result<Vec<u8>, NotJson> {
        let (mut check, mut value) = (JsonCheck::default(), Vec::new());
        for piece in pieces {
            value.extend_from_slice(&piece[check.push(piece)?]);
        }
        if check.is_whole() { Ok(value) } else { Err(NotJson) }
    }

    fn by_serde(text: &[u8]) -> Result<Vec<u8>, NotJson> {
        let value: &RawValue = serde_json::from_slice(text).map_err(|_| NotJson)?;
        Ok(value.get().as_bytes().to_vec())
    }

    /// Whole, in single bytes, and cut once at every place.
    fn agrees(text: &[u8]) {
        let wanted = by_serde(text);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(checked(&[text]), wanted, "{}", text.escape_ascii());
        assert_eq!(checked(&bytes), wanted, "byte by byte: {}", text.escape_ascii());
        for at in 0..=text.len() {
            let (one, other) = text.split_at(at);
            assert_eq!(checked(&[one, b"", other]), wanted, "cut at {at}: {}", text.escape_ascii());
        }
    }

    #[test]
    fn takes_what_is_json_and_nothing_else() {
        for text in [
            &b" {\"a\" : [1, -0.5e+10 ,true,false,null, {} , []], \"\\u00e9\\\\\\\"\":\"\xc3\xa9\xf0\x9f\x98\x80\"}\r\n\t"[..],
            b"0", b"-0", b"12 ", b" 1.5", b"1e400", b"\"\"", b"\"\\ud800\"", b"null", b"[[[]]]", b"{\"a\":{\"a\":1}}",
            b"", b" ", b"01", b"-", b"1.", b".5", b"1e", b"1e+", b"+1", b"--1", b"1 2", b"nul", b"nulll", b"True",
            b"[", b"]", b"[,]", b"[1,]", b"[1 2]", b"[1}", b"{", b"{]", b"{\"a\"}", b"{\"a\":}", b"{\"a\":1,}", b"{a:1}",
            b"{\"a\" 1}", b"{1:1}", b"{} {}", b"[]]", b"\"", b"\"\\x\"", b"\"\\u12g4\"", b"\"\\\"", b"\"\n\"", b"\"\x00\"",
            b"\"\x7f\"", b"\"\xff\"", b"\"\xc3\"", b"\"\xc3\xa9", b"\"\xed\xa0\x80\"", b"\"\xc0\xaf\"", b"\"\xf5\x80\x80\x80\"",
            b"\xef\xbb\xbf{}", b"<html>", b"NaN", b"'a'", b"[1]\x00", b"1\x0b", b"{\"a\":1}x",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn nests_so_deep_and_no_deeper() {
        let nested = |depth: usize| ["{\"a\":["; 2000][..depth / 2].concat() + &"]}".repeat(depth / 2);
        assert!(checked(&[nested(MAX_DEPTH).as_bytes()]).is_ok());
        assert_eq!(checked(&[nested(MAX_DEPTH + 2).as_bytes()]), Err(NotJson));
        assert_eq!(checked(&["[".repeat(1 << 20).as_bytes()]), Err(NotJson));
    }

    fn document() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>()
                .prop_filter("no infinity", |number| number.is_finite())
                .prop_map(|number| format!("{number:e}")),
            any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
        ];
        let space = "[ \t\r\n]{0,2}";
        leaf.prop_recursive(6, 64, 6, move |inner| {
            let element = (space, inner.clone()).prop_map(|(space, value)| space + &value);
            let member = (any::<String>(), space, inner)
                .prop_map(|(name, space, value)| format!("{}{space}:{value}", serde_json::Value::from(name)));
            prop_oneof![
                prop::collection::vec(element, 0..6).prop_map(|all| format!("[{}]", all.join(","))),
                prop::collection::vec(member, 0..6).prop_map(|all| format!("{{{} }}", all.join(" ,"))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn is_of_one_mind_with_serde_however_it_is_cut(
            text in document(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            broken in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut text = text.into_bytes();
            if let Some((place, byte)) = broken {
                let place = place.index(text.len());
                text[place] = byte;
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut pieces, mut done) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&text[done..cut]);
                done = cut;
            }
            pieces.push(&text[done..]);
            prop_assert_eq!(checked(&pieces), by_serde(&text), "{}", text.escape_ascii());
        }
    }
}
