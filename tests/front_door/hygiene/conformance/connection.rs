//! The preface, frames as such, and errors (RFC 9113 §3.4, §4, §5.4, §5.5, §7).

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;
use crate::support::frames::{PRIORITY, WINDOW_UPDATE};

const UNKNOWN: u8 = 0x16;

/// 3.4: SETTINGS come first, from the server as well.
#[tokio::test]
async fn settings_come_first() {
    let place = place().await;
    let mut client = Frames::connect(place.gateway.http()).await;
    let first = client.read().await.expect("it speaks first");
    assert_eq!((first.kind, first.flags & ACK, first.stream), (SETTINGS, 0, 0));
    // A client that begins with something else speaks another protocol.
    for bytes in [get(1), frame(PING, 0, 0, &[1; 8]), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])] {
        let stream = TcpStream::connect(place.gateway.http()).await.expect("it listens");
        let mut client = Frames::over(stream);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.stream.write_all(&[&preface[..], &bytes].concat()).await.expect("it reads");
        assert_eq!(client.goaway().await, Some(PROTOCOL_ERROR));
    }
    assert_eq!(place.origin.count(), 0);
}

#[tokio::test]
async fn frames() {
    let place = place().await;
    let reserved = |mut bytes: Vec<u8>| {
        bytes[5] |= 0x80;
        bytes
    };
    let long = vec![b'x'; 16_384];
    let body = |data: Vec<u8>| [post(1), data].concat();
    place
        .conforms(&[
            ("4.1: a frame of unknown type", frame(UNKNOWN, 0, 0, b"whatever"), Due::Life),
            ("4.1: one of a stream", [post(1), frame(UNKNOWN, 0xff, 1, b"x")].concat(), Due::Life),
            ("4.1: a frame with unknown flags", frame(PING, 0x16, 0, &[1; 8]), Due::Life),
            ("4.1: the reserved bit in PING", reserved(frame(PING, 0, 0, &[1; 8])), Due::Life),
            ("4.1: the reserved bit in HEADERS", reserved(get(1)), Due::Answer(1)),
            ("4.2: DATA of 2^14 bytes", body(frame(DATA, END_STREAM, 1, &long)), Due::Answer(1)),
            (
                "4.2: DATA of more",
                body(frame(DATA, END_STREAM, 1, &[&long[..], b"x"].concat())),
                Due::Stream(1, &[FRAME_SIZE_ERROR]),
            ),
            (
                "4.2: HEADERS of more",
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &vec![0; 16_385]),
                Due::Connection(&[FRAME_SIZE_ERROR]),
            ),
            (
                "4.2: an unknown frame of more",
                frame(UNKNOWN, 0, 0, &vec![0; 16_385]),
                Due::Connection(&[FRAME_SIZE_ERROR]),
            ),
            (
                "4.3: PRIORITY within a block",
                [begun(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]), rest(1, END_HEADERS)].concat(),
                Due::Connection(&[PROTOCOL_ERROR]),
            ),
            (
                "4.3: HEADERS of another stream within a block",
                [begun(1), get(3)].concat(),
                Due::Connection(&[PROTOCOL_ERROR]),
            ),
        ])
        .await;
}

#[tokio::test]
async fn errors_and_extensions() {
    let place = place().await;
    let goaway = |code: u32| frame(GOAWAY, 0, 0, &[0u32.to_be_bytes(), code.to_be_bytes()].concat());
    place
        .conforms(&[
            ("5.4.1: GOAWAY, then the end", frame(PING, 0, 0, &[1; 6]), Due::Connection(&[FRAME_SIZE_ERROR])),
            ("5.5: an extension's frame", frame(0xf0, 0xff, 3, &[7; 100]), Due::Life),
            ("5.5: an extension's setting", frame(SETTINGS, 0, 0, &[0xf0, 0, 0, 0, 0, 1]), Due::Life),
            (
                "5.5: an extension's frame within a block",
                [begun(1), frame(UNKNOWN, 0, 1, &[0; 8]), rest(1, END_HEADERS)].concat(),
                Due::Connection(&[PROTOCOL_ERROR]),
            ),
            (
                "7: RST_STREAM of unknown code",
                [post(1), frame(RST_STREAM, 0, 1, &[0xff; 4])].concat(),
                Due::Life,
            ),
        ])
        .await;
    // 7: GOAWAY of a known code and of an unknown one. It is the client's goodbye: what it has asked is answered.
    for code in [NO_ERROR, 0xff] {
        let mut client = Frames::connect(place.gateway.http()).await;
        let seen = outcome(&mut client, &[get(1), goaway(code)].concat(), Due::Answer(1)).await;
        assert!(seen.answered == [1] && seen.goaway.is_none_or(|code| code == NO_ERROR), "{code}: {seen:?}");
    }
}
