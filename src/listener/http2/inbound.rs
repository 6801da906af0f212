//! What comes in on a connection of HTTP/2, followed frame by frame before the protocol reads it: for floods, and for
//! what `h2` doesn't refuse, or calls by another name than RFC 9113 does.
//!
//! Nothing is decoded and nothing kept but where the next frame begins: what this costs is a few instructions a frame,
//! and some more a field.

use h2::Reason as Reset;

use super::block::{Blocks, Fault};
use super::flood::Meter;

const HEAD_BYTES: usize = 9;
const PREFACE_BYTES: u32 = 24;

const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const HAS_PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: u32 = 5;

/// Streams whose requests are malformed and were not taken back yet. Beyond that the connection ends.
const MOST_MALFORMED: usize = 16;

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// More has come than anyone has a use for.
    Flood,
    Wrong(Reset),
}

/// Follows the frames of a connection.
pub struct Inbound {
    head: [u8; HEAD_BYTES],
    /// So much of the head of the next frame has come.
    came: usize,
    /// What of the payload, or of the preface, is still to come and needs no look.
    skip: u32,
    /// What of a block of fields is still to come, and what stands behind it in its frame.
    block: u32,
    behind: u32,
    /// The next byte tells how much padding stands behind the block.
    is_padded: bool,
    /// The block that began goes on with CONTINUATION.
    goes_on: bool,
    has_settings: bool,
    /// The last stream that was opened.
    last: u32,
    /// The stream whose block is coming.
    stream: u32,
    blocks: Blocks,
    meter: Meter,
    malformed: Vec<u32>,
}

impl Inbound {
    /// Of a connection of which nothing has come, the preface neither.
    pub fn new() -> Self {
        Inbound {
            head: [0; HEAD_BYTES],
            came: 0,
            skip: PREFACE_BYTES,
            block: 0,
            behind: 0,
            is_padded: false,
            goes_on: false,
            has_settings: false,
            last: 0,
            stream: 0,
            blocks: Blocks::new(),
            meter: Meter::new(),
            malformed: Vec::new(),
        }
    }

    /// Looks at what was read. When the connection has to end: where, and why.
    pub fn see(&mut self, bytes: &[u8]) -> Result<(), (usize, End)> {
        let mut at = 0;
        while let Some(left) = bytes.get(at..).filter(|left| !left.is_empty()) {
            let (taken, seen) = self.step(left);
            if let Err(end) = seen {
                return Err((at, end));
            }
            at += taken;
        }
        Ok(())
    }

    /// Something was written.
    pub fn wrote(&mut self, bytes: usize) {
        self.meter.wrote(bytes);
    }

    /// So many frames of DATA were sent.
    pub fn sent(&mut self, frames: u32) {
        self.meter.sent(frames);
    }

    /// Streams whose requests are malformed in what the protocol says nothing about. Who resets one takes it from here.
    pub fn malformed(&mut self) -> &mut Vec<u32> {
        &mut self.malformed
    }

    /// The next piece of the same kind: how long it is, and what is to be said of it.
    fn step(&mut self, bytes: &[u8]) -> (usize, Result<(), End>) {
        let first = |length: u32| bytes.len().min(length as usize);
        if self.is_padded {
            self.is_padded = false;
            let padding = u32::from(bytes[0]);
            // Where it is more than there is, the protocol says so.
            self.behind = padding.min(self.block);
            self.block -= self.behind;
            return (1, if self.block == 0 { self.fields(&[]) } else { Ok(()) });
        }
        if self.skip > 0 {
            let length = first(self.skip);
            self.skip -= length as u32;
            return (length, Ok(()));
        }
        if self.block > 0 {
            let length = first(self.block);
            self.block -= length as u32;
            return (length, self.fields(&bytes[..length]));
        }
        let length = first((HEAD_BYTES - self.came) as u32);
        self.head[self.came..self.came + length].copy_from_slice(&bytes[..length]);
        self.came += length;
        if self.came < HEAD_BYTES {
            return (length, Ok(()));
        }
        self.came = 0;
        (length, self.begin())
    }

    /// The head of a frame is there.
    fn begin(&mut self) -> Result<(), End> {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        if !self.has_settings {
            // §3.4: they are the end of the client's preface.
            if kind != SETTINGS || flags & ACK != 0 {
                return Err(End::Wrong(Reset::PROTOCOL_ERROR));
            }
            self.has_settings = true;
        }
        let fits = match kind {
            PRIORITY => length == PRIORITY_BYTES,
            RST_STREAM | WINDOW_UPDATE => length == 4,
            SETTINGS => length.is_multiple_of(6) && (flags & ACK == 0 || length == 0),
            PING => length == 8,
            GOAWAY => length >= 8,
            _ => true,
        };
        if !fits {
            return Err(End::Wrong(Reset::FRAME_SIZE_ERROR));
        }
        if !self.meter.count(kind, flags, length) {
            return Err(End::Flood);
        }
        match kind {
            HEADERS => self.begin_headers(stream, flags, length),
            // Without a block that it belongs to, it is what the protocol refuses.
            CONTINUATION if self.goes_on => {
                self.block = length;
                self.goes_on = flags & END_HEADERS == 0;
            }
            _ => {
                (self.skip, self.goes_on) = (length, false);
                return Ok(());
            }
        }
        if self.block == 0 && !self.is_padded { self.fields(&[]) } else { Ok(()) }
    }

    fn begin_headers(&mut self, stream: u32, flags: u8, length: u32) {
        self.blocks.begin(stream <= self.last);
        self.stream = stream;
        self.last = self.last.max(stream);
        self.goes_on = flags & END_HEADERS == 0;
        self.is_padded = flags & PADDED != 0 && length > 0;
        // Of a frame too short for what it claims to have, the protocol says so.
        let length = length - u32::from(self.is_padded);
        self.skip = if flags & HAS_PRIORITY != 0 { length.min(PRIORITY_BYTES) } else { 0 };
        self.block = length - self.skip;
    }

    /// What comes next of a block, and all of what its frame has of it once nothing is left.
    fn fields(&mut self, bytes: &[u8]) -> Result<(), End> {
        let mut seen = self.blocks.see(bytes);
        if self.block == 0 {
            self.skip += std::mem::take(&mut self.behind);
            if !self.goes_on {
                seen = seen.and(self.blocks.end());
            }
        }
        match seen {
            Ok(()) => Ok(()),
            Err(Fault::Unreadable) => Err(End::Wrong(Reset::COMPRESSION_ERROR)),
            Err(Fault::Malformed) if self.malformed.contains(&self.stream) => Ok(()),
            Err(Fault::Malformed) if self.malformed.len() == MOST_MALFORMED => {
                Err(End::Wrong(Reset::PROTOCOL_ERROR))
            }
            Err(Fault::Malformed) => {
                self.malformed.push(self.stream);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    const DATA: u8 = 0;
    const LAST: u8 = 5;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        [&[0, length[0], length[1], kind, flags, 0, 0, 0, stream][..], payload].concat()
    }

    /// What comes of these frames behind the preface, in pieces of `cut`: why the connection ends and where, and which
    /// streams are malformed.
    fn seen(frames: &[Vec<u8>], cut: usize) -> (Option<(usize, End)>, Vec<u32>) {
        let mut inbound = Inbound::new();
        inbound.see(PREFACE).expect("it is one");
        let mut before = 0;
        for piece in frames.concat().chunks(cut) {
            if let Err((at, end)) = inbound.see(piece) {
                return (Some((before + at, end)), inbound.malformed);
            }
            before += piece.len();
        }
        (None, inbound.malformed)
    }

    fn is_fine(frames: &[Vec<u8>], malformed: &[u32]) {
        for cut in [1, 3, 9, 1000] {
            assert_eq!(seen(frames, cut), (None, malformed.to_vec()), "in pieces of {cut}: {frames:x?}");
        }
    }

    fn is_wrong(frames: &[Vec<u8>], code: Reset) {
        for cut in [1, 3, 9, 1000] {
            let (end, _) = seen(frames, cut);
            assert_eq!(end.map(|(_, end)| end), Some(End::Wrong(code)), "in pieces of {cut}: {frames:x?}");
        }
    }

    #[test]
    fn frames_of_the_wrong_length_are_wrong() {
        for (kind, flags, right, wrong) in [
            (PRIORITY, 0, 5, [0, 4, 6]),
            (RST_STREAM, 0, 4, [0, 3, 5]),
            (SETTINGS, 0, 12, [1, 5, 13]),
            (SETTINGS, ACK, 0, [1, 6, 12]),
            (PING, 0, 8, [0, 7, 9]),
            (GOAWAY, 0, 8, [0, 4, 7]),
            (WINDOW_UPDATE, 0, 4, [0, 3, 5]),
        ] {
            is_fine(&[frame(kind, flags, 0, &vec![0; right])], &[]);
            for length in wrong {
                is_wrong(&[frame(kind, flags, 0, &vec![0; length])], Reset::FRAME_SIZE_ERROR);
            }
        }
        // What stands before it is the protocol's to read.
        let ping = frame(PING, 0, 0, &[7; 8]);
        let (end, _) = seen(&[ping.clone(), frame(PING, 0, 0, &[7; 9])], 1000);
        assert_eq!(end, Some((ping.len(), End::Wrong(Reset::FRAME_SIZE_ERROR))));
    }

    #[test]
    fn settings_come_first() {
        for other in
            [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, &[]), frame(HEADERS, LAST, 1, &[0x82])]
        {
            let mut inbound = Inbound::new();
            let preface = &PREFACE[..24];
            let told = inbound.see(&[preface, &other].concat());
            assert_eq!(told, Err((24, End::Wrong(Reset::PROTOCOL_ERROR))));
        }
    }

    #[test]
    fn blocks_are_found_between_what_is_around_them() {
        let head = frame(HEADERS, 4, 1, &[0x82]);
        let body = frame(DATA, 0, 1, &[0x82; 20]);
        is_fine(&[head.clone(), body.clone(), frame(HEADERS, LAST, 1, b"\0\x01x\x01y")], &[]);
        for trailers in [
            frame(HEADERS, LAST, 1, &[0x82]),
            frame(HEADERS, LAST | PADDED, 1, &[3, 0x82, 0x0f, 0x0f, 0x0f]),
            frame(HEADERS, LAST | HAS_PRIORITY, 1, &[0, 0, 0, 0, 7, 0x82]),
            frame(HEADERS, LAST | PADDED | HAS_PRIORITY, 1, &[1, 0, 0, 0, 0, 7, 0x82, 0]),
            [frame(HEADERS, 1, 1, &[]), frame(CONTINUATION, 4, 1, &[0x82])].concat(),
            [
                frame(HEADERS, 1, 1, &[0]),
                frame(CONTINUATION, 0, 1, &[5]),
                frame(CONTINUATION, 4, 1, b":path\0"),
            ]
            .concat(),
            [frame(HEADERS, 1 | PADDED, 1, &[2, 0, 0]), frame(CONTINUATION, 4, 1, &[0x82])].concat(),
        ] {
            is_fine(&[head.clone(), body.clone(), trailers.clone()], &[1]);
            // The next frame is found behind it.
            is_wrong(&[head.clone(), trailers, frame(PING, 0, 0, &[])], Reset::FRAME_SIZE_ERROR);
        }
        // Padding and priorities are no fields, and what has no block goes on nowhere.
        is_fine(&[head.clone(), frame(HEADERS, LAST | PADDED, 1, &[2, 0x82, 0x82])], &[]);
        is_fine(&[head.clone(), frame(HEADERS, LAST | HAS_PRIORITY, 1, &[0x82; 5])], &[]);
        is_fine(&[head, frame(CONTINUATION, 4, 1, &[0x82])], &[]);
    }

    #[test]
    fn blocks_that_end_too_soon_are_unreadable() {
        let cut = b"\0\x01x\x05y";
        is_wrong(&[frame(HEADERS, LAST, 1, cut)], Reset::COMPRESSION_ERROR);
        is_wrong(&[frame(HEADERS, 1, 1, cut), frame(CONTINUATION, 4, 1, b"")], Reset::COMPRESSION_ERROR);
        is_fine(&[frame(HEADERS, 1, 1, cut), frame(CONTINUATION, 4, 1, b"abcd")], &[]);
        // Too short for what it claims to have.
        for (flags, payload) in [(PADDED, &b""[..]), (PADDED, b"\x09\x82"), (HAS_PRIORITY, b"\x82\x82")] {
            is_fine(&[frame(HEADERS, LAST | flags, 1, payload), frame(PING, 0, 0, &[0; 8])], &[]);
        }
    }

    #[test]
    fn only_so_many_streams_are_malformed() {
        let bad = |stream| [frame(HEADERS, LAST, stream, &[0x04, 2, b'/', b'#'])].concat();
        let most: Vec<_> = (0..MOST_MALFORMED as u8).map(|number| bad(2 * number + 1)).collect();
        let told: Vec<u32> = (0..MOST_MALFORMED as u32).map(|number| 2 * number + 1).collect();
        is_fine(&most, &told);
        is_wrong(&[&most[..], &[bad(201)]].concat(), Reset::PROTOCOL_ERROR);
    }
}
