//! HTTP/2 as RFC 9113 and RFC 7541 have it, case by case: what is sent frame by frame, and what has to come of it. The
//! cases are those of the usual conformance suites and some more; each names its section.
//!
//! A connection that has conformed answers a PING behind the case, and one that has not says why in its GOAWAY.

mod compression;
mod connection;
mod definitions;
mod messages;
mod streams;
mod windows;

use tokio::io::AsyncWriteExt;

use super::{Place, place};
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GET, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    block, frame,
};

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;

const ACK: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY_FLAG: u8 = 0x20;

/// What has to come of a case.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// The connection ends, with one of these codes.
    Connection(&'static [u32]),
    /// The stream is reset with one of these codes, and the connection goes on; or it ends with one of them, which an
    /// endpoint may choose (§5.4.2).
    Stream(u32, &'static [u32]),
    /// The stream is answered with 200, to its end, and nothing is complained of.
    Answer(u32),
    /// The connection goes on, and nothing is complained of.
    Life,
}

/// Its section and what it is, what is sent, and what is due.
type Case = (&'static str, Vec<u8>, Due);

/// What has come of one so far.
#[derive(Debug, Default)]
struct Seen {
    answered: Vec<u32>,
    ended: Vec<u32>,
    resets: Vec<(u32, u32)>,
    goaway: Option<u32>,
    closed: bool,
    pongs: usize,
    /// Bytes of DATA.
    data: usize,
}

impl Seen {
    /// Reads on until `enough` says so, or the connection has ended.
    async fn read(&mut self, client: &mut Frames, enough: impl Fn(&Seen) -> bool) {
        while !self.closed && !enough(self) {
            let Some(frame) = client.read().await else {
                self.closed = true;
                return;
            };
            let code = |at: usize| {
                let bytes = frame.payload.get(at..at + 4).and_then(|code| code.try_into().ok());
                bytes.map_or(u32::MAX, u32::from_be_bytes)
            };
            match frame.kind {
                // `:status: 200` of the static table, behind the size of the other one where that has changed.
                HEADERS if frame.payload.iter().find(|byte| **byte != 0x20) == Some(&0x88) => {
                    self.answered.push(frame.stream);
                }
                DATA => self.data += frame.payload.len(),
                RST_STREAM => self.resets.push((frame.stream, code(0))),
                GOAWAY => self.goaway = Some(code(4)),
                PING if frame.flags == ACK => self.pongs += 1,
                SETTINGS if frame.flags == 0 => {
                    client.send(SETTINGS, ACK, 0, &[]).await;
                }
                _ => {}
            }
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                self.ended.push(frame.stream);
            }
        }
    }

    fn is(&self, due: Due) -> bool {
        match due {
            Due::Connection(codes) => self.closed && self.goaway.is_some_and(|code| codes.contains(&code)),
            Due::Stream(stream, codes) => match self.goaway {
                Some(code) => self.closed && codes.contains(&code),
                None => self.resets.iter().any(|(reset, code)| *reset == stream && codes.contains(code)),
            },
            Due::Answer(stream) => {
                self.is(Due::Life) && self.answered.contains(&stream) && self.ended.contains(&stream)
            }
            Due::Life => !self.closed && self.resets.is_empty() && self.goaway.is_none(),
        }
    }
}

/// Sends the bytes, and a PING behind them; what has come of it by then.
async fn outcome(client: &mut Frames, bytes: &[u8], due: Due) -> Seen {
    let ping = frame(PING, 0, 0, b"conforms");
    let mut seen = Seen::default();
    let _ = client.stream.write_all(&[bytes, &ping].concat()).await;
    seen.read(client, |seen| seen.pongs == 1).await;
    // What is said of a stream may stand behind the answer to the PING.
    let _ = client.stream.write_all(&ping).await;
    let is_over = |seen: &Seen| match due {
        Due::Answer(stream) => seen.ended.contains(&stream) || !seen.resets.is_empty(),
        _ => true,
    };
    seen.read(client, |seen| seen.pongs == 2 && is_over(seen)).await;
    seen
}

impl Place {
    /// Each on a connection of its own.
    async fn conforms(&self, cases: &[Case]) {
        let mut faults = Vec::new();
        for (name, bytes, due) in cases {
            let mut client = Frames::connect(self.gateway.http()).await;
            let seen = outcome(&mut client, bytes, *due).await;
            if !seen.is(*due) {
                faults.push(format!("{name}: {due:?} was due, and {seen:?} came"));
            }
        }
        assert!(faults.is_empty(), "{faults:#?}");
        // It lives, and what it has sent on was whole.
        self.origin.count();
    }

    /// The same, and nothing of it has reached the service.
    async fn conforms_and_keeps_all_back(&self, cases: &[Case]) {
        for case in cases {
            let before = self.origin.count();
            self.conforms(std::slice::from_ref(case)).await;
            assert_eq!(self.origin.count(), before, "{} was forwarded", case.0);
        }
    }
}

/// A connection on which the streams up to this one were answered.
async fn answered(place: &Place, last: u32) -> Frames {
    let mut client = Frames::connect(place.gateway.http()).await;
    for stream in (1..=last).step_by(2) {
        let seen = outcome(&mut client, &get(stream), Due::Answer(stream)).await;
        assert!(seen.is(Due::Answer(stream)), "{seen:?}");
    }
    client
}

/// A whole GET.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET))
}

/// The fields of a POST.
fn post_fields() -> [(&'static str, &'static str); 4] {
    GET.map(|(name, value)| (name, if name == ":method" { "POST" } else { value }))
}

/// The head of a POST, whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&post_fields()))
}

/// A GET of which the fields have not all come.
fn begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &block(&GET[..2]))
}

/// What it lacks.
fn rest(stream: u32, flags: u8) -> Vec<u8> {
    frame(CONTINUATION, flags, stream, &block(&GET[2..]))
}
