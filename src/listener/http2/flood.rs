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

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// Counts the frames of a connection.
pub struct Meter {
    left: u32,
    /// Since when time has earned nothing.
    since: Millis,
    /// So many WINDOW_UPDATE may come for what we have sent.
    windows: u32,
}

impl Meter {
    pub fn new() -> Self {
        Meter { left: MOST, since: clock::now(), windows: 0 }
    }

    /// Something was written.
    pub fn wrote(&mut self, bytes: usize) {
        self.earn(u32::try_from(bytes / BYTES_WRITTEN).unwrap_or(MOST));
    }

    /// So many frames of DATA were sent. Whoever takes them in may make room for each, in its stream and in the connection.
    pub fn sent(&mut self, frames: u32) {
        self.windows = self.windows.saturating_add(frames.saturating_mul(2));
    }

    /// A frame begins, with so much behind its head. `false` once there were too many.
    pub fn count(&mut self, kind: u8, flags: u8, length: u32) -> bool {
        match kind {
            HEADERS => self.earn(2),
            DATA if length > 0 => self.earn(1),
            // The last of a body, often.
            DATA if flags & END_STREAM != 0 => {}
            WINDOW_UPDATE if self.windows > 0 => self.windows -= 1,
            // Part of a head, and `h2` counts them.
            CONTINUATION => {}
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

    /// How many of these frames a connection may send at once.
    fn taken(frames: &[(u8, u8, u32)]) -> usize {
        let mut meter = Meter::new();
        let mut may = |(kind, flags, length): &(u8, u8, u32)| meter.count(*kind, *flags, *length);
        (0..100_000).take_while(|_| frames.iter().all(&mut may)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn idle_frames_come_to_an_end() {
        let most = MOST as usize;
        for idle in [(PING, 0, 8), (4, 0, 0), (DATA, 0, 0), (WINDOW_UPDATE, 0, 4), (99, 0, 200)] {
            assert_eq!(taken(&[idle]), most, "{idle:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_uses_a_connection_does_not_notice() {
        let all = 100_000;
        assert_eq!(taken(&[(HEADERS, 4, 30), (2, 0, 5), (3, 0, 4)]), all);
        // As some browsers open a stream.
        assert_eq!(taken(&[(HEADERS, 5, 30), (WINDOW_UPDATE, 0, 4)]), all);
        assert_eq!(taken(&[(DATA, 0, 100), (PING, 0, 8)]), all);
        assert_eq!(taken(&[(DATA, END_STREAM, 0)]), all);
        let mut meter = Meter::new();
        for _ in 0..all {
            assert!(meter.count(PING, 0, 8));
            // An answer between two of them.
            meter.wrote(100);
        }
    }

    /// However short they are, and however late it says so.
    #[tokio::test(start_paused = true)]
    async fn who_takes_frames_in_may_make_room_for_each() {
        let mut meter = Meter::new();
        meter.sent(50_000);
        assert!((0..100_000).all(|_| meter.count(WINDOW_UPDATE, 0, 4)));
        assert_eq!((0..100_000).take_while(|_| meter.count(WINDOW_UPDATE, 0, 4)).count(), MOST as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn time_earns_some() {
        let mut meter = Meter::new();
        while meter.count(PING, 0, 8) {}
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!((0..1000).take_while(|_| meter.count(PING, 0, 8)).count(), 3 * A_SECOND as usize);
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
