//! Frames of HTTP/2 that cost us work and a client next to nothing (RFC 9113 §10.5), counted as they come in.
//!
//! What carries a request or a body, or goes with an answer, earns the right to some of them, and so does time. Nobody
//! who uses a connection comes near the end of that. Beside this, `h2` itself bounds CONTINUATION frames, small DATA
//! frames and streams that were reset before they were accepted.

use crate::clock::{self, Millis};

/// So many may come at once.
const MOST: u32 = 2_000;
/// So many are earned in a second.
const A_SECOND: u32 = 100;
/// What we write earns one for so many bytes: more than it takes to answer a PING.
const BYTES_WRITTEN: usize = 64;
/// Beyond so many requests taken back before they were answered, they must not be the most.
const TAKEN_BACK: u32 = 500;

const HEAD_BYTES: usize = 9;
const PREFACE_BYTES: u32 = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// Follows the frames of a connection.
pub struct Meter {
    head: [u8; HEAD_BYTES],
    /// So much of the head of the next frame has come.
    came: usize,
    /// What is still to come of a payload, or of the preface.
    skip: u32,
    left: u32,
    /// Since when time has earned nothing.
    since: Millis,
}

impl Meter {
    /// Of a connection of which nothing has come, the preface neither.
    pub fn new() -> Self {
        Meter { head: [0; HEAD_BYTES], came: 0, skip: PREFACE_BYTES, left: MOST, since: clock::now() }
    }

    /// Looks at what was read. `false` once there were too many.
    pub fn see(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let length = bytes.len().min(self.skip as usize);
                self.skip -= length as u32;
                bytes = &bytes[length..];
                continue;
            }
            let length = bytes.len().min(HEAD_BYTES - self.came);
            self.head[self.came..self.came + length].copy_from_slice(&bytes[..length]);
            self.came += length;
            bytes = &bytes[length..];
            if self.came == HEAD_BYTES {
                self.came = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                if !self.count(kind, flags) {
                    return false;
                }
            }
        }
        true
    }

    /// Something was written.
    pub fn wrote(&mut self, bytes: usize) {
        self.earn(u32::try_from(bytes / BYTES_WRITTEN).unwrap_or(MOST));
    }

    fn count(&mut self, kind: u8, flags: u8) -> bool {
        match kind {
            HEADERS => self.earn(2),
            DATA if self.skip > 0 => self.earn(1),
            // The last of a body, often.
            DATA if flags & END_STREAM != 0 => {}
            // Who takes in a long answer sends many, and they run out by themselves (§6.9.1); the other is part of a head.
            WINDOW_UPDATE | CONTINUATION => {}
            _ => return self.spend(),
        }
        true
    }

    fn earn(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(MOST);
    }

    fn spend(&mut self) -> bool {
        if self.left == 0 {
            let now = clock::now();
            let seconds = now.since(self.since).as_secs();
            if seconds == 0 {
                return false;
            }
            self.since = now;
            self.earn(u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(A_SECOND));
        }
        self.left -= 1;
        true
    }
}

/// Requests of a connection that were opened, and those of them that their client took back before they were answered
/// (CVE-2023-44487).
#[derive(Default)]
pub struct TakenBack {
    opened: u32,
    taken_back: u32,
}

impl TakenBack {
    pub fn opened(&mut self) {
        self.opened = self.opened.saturating_add(1);
    }

    pub fn taken_back(&mut self) {
        self.taken_back = self.taken_back.saturating_add(1);
    }

    pub fn is_flood(&self) -> bool {
        self.taken_back > TAKEN_BACK && self.taken_back > self.opened / 2
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.extend(std::iter::repeat_n(7, usize::from(length)));
        bytes
    }

    /// How many of these a connection may send at once, which reads `bytes` in pieces of `cut`.
    fn taken(bytes: &[u8], cut: usize) -> usize {
        let mut meter = Meter::new();
        assert!(meter.see(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        (0..100_000).take_while(|_| bytes.chunks(cut).all(|piece| meter.see(piece))).count()
    }

    #[tokio::test(start_paused = true)]
    async fn idle_frames_come_to_an_end() {
        let most = MOST as usize;
        for cut in [1, 5, 9, 100] {
            assert_eq!(taken(&frame(PING, 0, 8), cut), most);
            assert_eq!(taken(&frame(4, 0, 0), cut), most);
            assert_eq!(taken(&frame(DATA, 0, 0), cut), most);
            assert_eq!(taken(&frame(99, 0, 200), cut), most);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_uses_a_connection_does_not_notice() {
        let all = 100_000;
        let request = [frame(HEADERS, 4, 30), frame(2, 0, 5), frame(3, 0, 4)].concat();
        assert_eq!(taken(&request, 100), all);
        assert_eq!(taken(&[frame(DATA, 0, 100), frame(PING, 0, 8)].concat(), 100), all);
        assert_eq!(taken(&frame(WINDOW_UPDATE, 0, 4), 100), all);
        assert_eq!(taken(&frame(DATA, END_STREAM, 0), 100), all);
        let mut meter = Meter::new();
        meter.skip = 0;
        for _ in 0..all {
            assert!(meter.see(&frame(PING, 0, 8)));
            // An answer between two of them.
            meter.wrote(100);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_earns_some() {
        let mut meter = Meter::new();
        meter.skip = 0;
        let ping = frame(PING, 0, 8);
        while meter.see(&ping) {}
        // It stopped within the last of them.
        meter.skip = 0;
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!((0..1000).take_while(|_| meter.see(&ping)).count(), 3 * A_SECOND as usize);
    }

    #[test]
    fn taking_most_requests_back_is_a_flood() {
        let mut resets = TakenBack::default();
        for _ in 0..TAKEN_BACK {
            resets.opened();
            resets.taken_back();
            assert!(!resets.is_flood());
        }
        (0..2 * TAKEN_BACK).for_each(|_| resets.opened());
        resets.taken_back();
        assert!(!resets.is_flood(), "most were wanted");
        (0..2 * TAKEN_BACK).for_each(|_| resets.taken_back());
        assert!(resets.is_flood());
    }
}
