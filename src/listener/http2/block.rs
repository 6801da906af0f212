//! Blocks of fields (RFC 7541), followed without decoding them: what in them the protocol is silent about.
//!
//! `h2` drops pseudo-fields from trailers, and a fragment from `:path`. Both make a request malformed (RFC 9113 §8.1,
//! §8.3.1), and who drops them passes on something else than was sent. To notice them it takes to know where each field
//! begins, how its name does, and of the names in the table whether they are pseudo-fields'. Which entries have
//! been pushed out of the table need not be known: `h2` refuses numbers without an entry.

use super::huffman;

/// There are so many entries of the static table; the first of them are pseudo-fields.
const STATIC: u32 = 61;
const PSEUDO: std::ops::RangeInclusive<u32> = 1..=14;
const PATHS: std::ops::RangeInclusive<u32> = 4..=5;
/// The table that we have told of holds 4,096 bytes, and an entry is one of 32 at least.
const ENTRIES: u32 = 128;
/// Numbers have five bytes at most, as they do for `h2`.
const MOST_SHIFTED: u32 = 28;

const PATH: &[u8] = b":path";
const PATH_CODED: &[u8] = b"\xb9\x58\xd3\x3f";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of the message.
    Malformed,
    /// It can't be read at all.
    Unreadable,
}

/// What the next byte is part of.
#[derive(Clone, Copy)]
enum Part {
    /// The first of a field.
    Field,
    /// Its end, or the number of its name, or the length of a string, of which more is to come.
    Number(Number),
    NameLength,
    Name,
    ValueLength,
    Value,
}

#[derive(Clone, Copy)]
enum Number {
    /// Of a whole field.
    Field,
    /// Of the name of one.
    Name,
    NameLength,
    ValueLength,
    TableSize,
}

/// The blocks of a connection, one after the other.
pub struct Blocks {
    part: Part,
    /// The number that is being read.
    number: u32,
    shift: u32,
    /// What is left of a string, and whether it is in Huffman's code.
    left: u32,
    is_coded: bool,
    /// So much of the name is that of `:path`; `None` once it isn't.
    like_path: Option<usize>,
    field: Named,
    /// The field goes into the table.
    is_kept: bool,
    is_trailers: bool,
    path: huffman::Reader,
    table: Table,
}

/// What a field's name says.
#[derive(Clone, Copy, Default)]
struct Named {
    is_pseudo: bool,
    is_path: bool,
}

impl Blocks {
    pub fn new() -> Self {
        Blocks {
            part: Part::Field,
            number: 0,
            shift: 0,
            left: 0,
            is_coded: false,
            like_path: None,
            field: Named::default(),
            is_kept: false,
            is_trailers: false,
            path: huffman::Reader::default(),
            table: Table::default(),
        }
    }

    /// A block begins.
    pub fn begin(&mut self, is_trailers: bool) {
        self.is_trailers = is_trailers;
        self.part = Part::Field;
    }

    /// It has ended.
    pub fn end(&mut self) -> Result<(), Fault> {
        if matches!(self.part, Part::Field) { Ok(()) } else { Err(Fault::Unreadable) }
    }

    /// The next bytes of it. Once something is wrong with a message, the rest has to be read all the same.
    pub fn see(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        let mut seen = Ok(());
        while let [first, rest @ ..] = bytes {
            let step = match self.part {
                Part::Name | Part::Value => {
                    let length = bytes.len().min(self.left as usize);
                    let (piece, behind) = bytes.split_at(length);
                    bytes = behind;
                    self.text(piece)
                }
                _ => {
                    bytes = rest;
                    self.byte(*first)
                }
            };
            match step {
                Err(Fault::Unreadable) => return step,
                Err(Fault::Malformed) => seen = step,
                Ok(()) => {}
            }
        }
        seen
    }

    fn byte(&mut self, byte: u8) -> Result<(), Fault> {
        match self.part {
            Part::Field => {
                self.is_kept = byte & 0xc0 == 0x40;
                match byte {
                    0x80.. => self.number(byte, 0x7f, Number::Field),
                    0x40.. => self.number(byte, 0x3f, Number::Name),
                    0x20.. => self.number(byte, 0x1f, Number::TableSize),
                    _ => self.number(byte, 0x0f, Number::Name),
                }
            }
            Part::NameLength | Part::ValueLength => {
                self.is_coded = byte & 0x80 != 0;
                let is_name = matches!(self.part, Part::NameLength);
                self.number(byte, 0x7f, if is_name { Number::NameLength } else { Number::ValueLength })
            }
            Part::Number(of) => {
                if self.shift > MOST_SHIFTED - 7 {
                    return Err(Fault::Unreadable);
                }
                self.number = self.number.saturating_add(u32::from(byte & 0x7f) << self.shift);
                self.shift += 7;
                if byte & 0x80 == 0 { self.whole(of, self.number) } else { Ok(()) }
            }
            Part::Name | Part::Value => Ok(()),
        }
    }

    fn number(&mut self, byte: u8, mask: u8, of: Number) -> Result<(), Fault> {
        let value = byte & mask;
        if value < mask {
            return self.whole(of, u32::from(value));
        }
        (self.number, self.shift, self.part) = (u32::from(mask), 0, Part::Number(of));
        Ok(())
    }

    fn whole(&mut self, of: Number, value: u32) -> Result<(), Fault> {
        match of {
            Number::Field => {
                let field = self.table.named(value)?;
                self.part = Part::Field;
                self.judge(field)
            }
            Number::Name if value > 0 => {
                self.field = self.table.named(value)?;
                self.part = Part::ValueLength;
                self.judge(self.field)
            }
            Number::Name => {
                (self.field, self.like_path) = (Named::default(), Some(0));
                self.part = Part::NameLength;
                Ok(())
            }
            Number::NameLength => {
                self.left = value;
                self.part = if value > 0 { Part::Name } else { Part::ValueLength };
                Ok(())
            }
            Number::ValueLength => {
                self.left = value;
                self.path = huffman::Reader::default();
                self.part = Part::Value;
                if value == 0 {
                    self.field_ends();
                }
                Ok(())
            }
            Number::TableSize => {
                self.part = Part::Field;
                Ok(())
            }
        }
    }

    /// In trailers there are none.
    fn judge(&self, field: Named) -> Result<(), Fault> {
        if self.is_trailers && field.is_pseudo { Err(Fault::Malformed) } else { Ok(()) }
    }

    fn text(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.left -= piece.len() as u32;
        if matches!(self.part, Part::Name) {
            return self.name(piece);
        }
        let has_fragment = self.field.is_path
            && if self.is_coded { self.path.finds_hash(piece) } else { piece.contains(&b'#') };
        if self.left == 0 {
            self.field_ends();
        }
        if has_fragment { Err(Fault::Malformed) } else { Ok(()) }
    }

    fn name(&mut self, piece: &[u8]) -> Result<(), Fault> {
        let path = if self.is_coded { PATH_CODED } else { PATH };
        if self.like_path == Some(0) {
            // What a colon begins with in Huffman's code has seven bits.
            self.field.is_pseudo = piece.first().is_some_and(|first| match self.is_coded {
                true => first >> 1 == 0x5c,
                false => *first == b':',
            });
        }
        self.like_path =
            self.like_path.filter(|at| path[*at..].starts_with(piece)).map(|at| at + piece.len());
        if self.left > 0 {
            return Ok(());
        }
        self.field.is_path = self.like_path == Some(path.len());
        self.part = Part::ValueLength;
        self.judge(self.field)
    }

    fn field_ends(&mut self) {
        self.part = Part::Field;
        if self.is_kept {
            self.table.put(self.field);
        }
    }
}

/// What the names in the table say, the newest in the lowest bit.
#[derive(Default)]
struct Table {
    pseudo: u128,
    paths: u128,
}

impl Table {
    fn put(&mut self, field: Named) {
        self.pseudo = self.pseudo << 1 | u128::from(field.is_pseudo);
        self.paths = self.paths << 1 | u128::from(field.is_path);
    }

    fn named(&self, number: u32) -> Result<Named, Fault> {
        match number {
            0 => Err(Fault::Unreadable),
            1..=STATIC => Ok(Named { is_pseudo: PSEUDO.contains(&number), is_path: PATHS.contains(&number) }),
            _ if number - STATIC <= ENTRIES => {
                let bit = number - STATIC - 1;
                Ok(Named { is_pseudo: self.pseudo >> bit & 1 != 0, is_path: self.paths >> bit & 1 != 0 })
            }
            _ => Err(Fault::Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of these blocks, each of them trailers or not, when their bytes come in pieces of `cut`.
    fn said(blocks: &[(bool, &[u8])], cut: usize) -> Vec<Result<(), Fault>> {
        let mut all = Blocks::new();
        let said = blocks.iter().map(|(is_trailers, bytes)| {
            all.begin(*is_trailers);
            let pieces = bytes.chunks(cut).map(|piece| all.see(piece)).collect::<Vec<_>>();
            pieces.into_iter().find(Result::is_err).unwrap_or(Ok(())).and(all.end())
        });
        said.collect()
    }

    fn is(blocks: &[(bool, &[u8])], expected: &[Result<(), Fault>]) {
        for cut in [1, 2, 3, 7, 1000] {
            assert_eq!(said(blocks, cut), expected, "in pieces of {cut}: {blocks:x?}");
        }
    }

    const BAD: Result<(), Fault> = Err(Fault::Malformed);
    const NO: Result<(), Fault> = Err(Fault::Unreadable);

    #[test]
    fn pseudo_fields_of_trailers_are_found_however_they_are_written() {
        for (bytes, expected) in [
            (&b"\x82"[..], BAD),
            (b"\x8e", BAD),
            (b"\x8f", Ok(())),
            (b"\x04\x02/b", BAD),
            (b"\x44\x02/b", BAD),
            (b"\x14\x02/b", BAD),
            (b"\x0f\x00\x01x", Ok(())),
            (b"\x00\x05:path\x01/", BAD),
            (b"\x40\x01:\x00", BAD),
            (b"\x00\x84\xb9\x58\xd3\x3f\x01/", BAD),
            (b"\x00\x01x\x05:path", Ok(())),
            (b"\x00\x00\x05:path", Ok(())),
            (b"\x00\x01x\x01y\x20\x82", BAD),
            (b"\x3f\xe1\x1f\x00\x01x\x01y", Ok(())),
        ] {
            is(&[(true, bytes)], &[expected]);
            is(&[(false, bytes)], &[Ok(())]);
        }
    }

    #[test]
    fn the_table_says_whose_names_are_pseudo() {
        let blocks = [
            (false, &b"\x40\x01x\x01y\x44\x02/z\x40\x01w\x00"[..]),
            // The newest first: w, :path, x.
            (true, b"\xbe"),
            (true, b"\xbf"),
            (true, b"\xc0"),
            // By its name, and pushed back by one.
            (true, b"\x7f\x00\x01/"),
            (true, b"\xbf"),
            (true, b"\xc0\xc1\xbf"),
        ];
        is(&blocks, &[Ok(()), Ok(()), BAD, Ok(()), BAD, Ok(()), BAD]);
        // No table has so many.
        is(&[(false, b"\xff\x3e")], &[Ok(())]);
        is(&[(false, b"\xff\x3f")], &[NO]);
    }

    #[test]
    fn fragments_are_found_in_paths_and_nowhere_else() {
        // `/#` in Huffman's code.
        const CODED: &[u8] = b"\x83\x63\xfe\xbf";
        for (name, is_path) in [
            (&b"\x04"[..], true),
            (b"\x45", true),
            (b"\x01", false),
            (b"\x00\x05:path", true),
            (b"\x00\x84\xb9\x58\xd3\x3f", true),
            (b"\x00\x05:pats", false),
            (b"\x00\x06:paths", false),
            (b"\x00\x04:pat", false),
            (b"\x40\x01x", false),
        ] {
            for value in [&b"\x04/a#b"[..], CODED] {
                let expected = if is_path { BAD } else { Ok(()) };
                is(&[(false, &[name, value].concat())], &[expected]);
            }
            is(&[(false, &[name, b"\x05/a?%2"].concat())], &[Ok(())]);
        }
        // One whose name is in the table.
        is(&[(false, b"\x40\x05:path\x01/"), (false, b"\x7e\x02/#")], &[Ok(()), BAD]);
    }

    #[test]
    fn what_has_no_meaning_is_said_to_have_none() {
        for bytes in [
            &b"\x80"[..],
            b"\xff\xff\xff\xff\xff\x01",
            b"\x00",
            b"\x00\x05:path",
            b"\x00\x01x\x05abcd",
            b"\x7f\xff",
        ] {
            is(&[(false, bytes)], &[NO]);
        }
    }
}
