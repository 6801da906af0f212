//! Looks for one character in a string of Huffman's code, without writing the string down (RFC 7541 §5.2, appendix B).

/// Codes are in the order of their lengths, and those of one length follow each other: so many there are of each.
const COUNTS: [(u8, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];

/// Codes of a length are below this, with their first bit as the highest.
const LIMITS: [(u8, u64); COUNTS.len()] = limits();

/// `#`, with its length.
const HASH: (u8, u32) = (12, 0xffa);

const fn limits() -> [(u8, u64); COUNTS.len()] {
    let mut limits = [(0, 0); COUNTS.len()];
    let (mut code, mut before, mut at) = (0u64, 0u8, 0);
    while at < COUNTS.len() {
        let (length, count) = COUNTS[at];
        code = (code << (length - before)) + count as u64;
        limits[at] = (length, code << (32 - length));
        before = length;
        at += 1;
    }
    limits
}

/// Reads a string as it comes.
#[derive(Default)]
pub struct Reader {
    /// The bits that are no whole code yet are its lowest.
    bits: u64,
    count: u8,
}

impl Reader {
    /// Whether there is a `#` in these bytes, or one ends there.
    pub fn finds_hash(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            self.bits = self.bits << 8 | u64::from(*byte);
            self.count += 8;
            while let Some(length) = self.whole() {
                self.count -= length;
                let code = self.bits >> self.count;
                self.bits &= (1 << self.count) - 1;
                if (length, code) == (HASH.0, u64::from(HASH.1)) {
                    return true;
                }
            }
        }
        false
    }

    /// The length of the first code, if all of it is there. Never more than 37 bits wait.
    fn whole(&self) -> Option<u8> {
        let first =
            if self.count <= 32 { self.bits << (32 - self.count) } else { self.bits >> (self.count - 32) };
        let (length, _) = LIMITS.iter().find(|(_, limit)| first < *limit).unwrap_or(&(30, 0));
        (*length <= self.count).then_some(*length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of RFC 7541 appendix C, and padded with ones.
    const WWW: &[u8] = b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";

    fn coded(codes: &[(u8, u32)]) -> Vec<u8> {
        let mut text: String =
            codes.iter().map(|(length, code)| format!("{code:0>0$b}", usize::from(*length))).collect();
        while !text.len().is_multiple_of(8) {
            text.push('1');
        }
        let byte =
            |bits: &[u8]| u8::from_str_radix(std::str::from_utf8(bits).expect("digits"), 2).expect("eight");
        text.as_bytes().chunks(8).map(byte).collect()
    }

    fn finds(bytes: &[u8], cut: usize) -> bool {
        let mut reader = Reader::default();
        bytes.chunks(cut).any(|piece| reader.finds_hash(piece))
    }

    #[test]
    fn the_code_is_complete() {
        assert_eq!(COUNTS.iter().map(|(_, count)| count).sum::<u32>(), 257);
        assert_eq!(LIMITS.last(), Some(&(30, 1 << 32)));
        // `a`, `X`, `?`, `#`, `\` and byte 249, which is the last but LF, CR, 22 and the end.
        for (length, code) in [(5, 3), (8, 0xfc), (10, 0x3fc), (12, 0xffa), (19, 0x7fff0), (28, 0xffffffe)] {
            let reader = Reader { bits: code, count: length };
            assert_eq!(reader.whole(), Some(length), "{code:x}");
            let reader = Reader { bits: code >> 1, count: length - 1 };
            assert_eq!(reader.whole(), None, "{code:x}");
        }
    }

    #[test]
    fn a_hash_is_found_wherever_it_stands() {
        const SLASH: (u8, u32) = (6, 0x18);
        const O: (u8, u32) = (5, 7);
        const PAREN: (u8, u32) = (10, 0x3fa);
        const LONG: (u8, u32) = (28, 0xffffffe);
        for cut in [1, 2, 100] {
            for front in 0..8 {
                let before: Vec<_> = std::iter::once(SLASH).chain(std::iter::repeat_n(O, front)).collect();
                for behind in [&[][..], &[O, SLASH], &[LONG]] {
                    assert!(finds(&coded(&[&before[..], &[HASH], behind].concat()), cut));
                    // Its bits, though not as a code of their own.
                    assert!(!finds(&coded(&[&before[..], &[PAREN], behind].concat()), cut));
                }
                assert!(finds(&coded(&[&before[..], &[LONG, LONG, HASH]].concat()), cut));
            }
            assert!(!finds(WWW, cut));
            assert!(!finds(&[0xff; 100], cut));
        }
    }
}
