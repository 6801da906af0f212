//! What each frame has to look like (RFC 9113 §6).

use super::*;
use crate::support::frames::{PRIORITY, WINDOW_UPDATE};

const LAST: u8 = END_HEADERS | END_STREAM;
const PUSH_PROMISE: u8 = 5;

const PROTOCOL: Due = Due::Connection(&[PROTOCOL_ERROR]);
const SIZE: Due = Due::Connection(&[FRAME_SIZE_ERROR]);

/// A payload with so much padding as its first byte says.
fn padded(told: u8, content: &[u8], padding: usize) -> Vec<u8> {
    [&[told][..], content, &vec![0; padding]].concat()
}

#[tokio::test]
async fn data() {
    let place = place().await;
    let with = |flags: u8, payload: &[u8]| [post(1), frame(DATA, flags, 1, payload)].concat();
    place
        .conforms(&[
            ("6.1: DATA", with(END_STREAM, b"test"), Due::Answer(1)),
            ("6.1: more than one", [with(0, b"test"), frame(DATA, 1, 1, b"ed")].concat(), Due::Answer(1)),
            ("6.1: empty", with(END_STREAM, b""), Due::Answer(1)),
            ("6.1: padded", with(END_STREAM | PADDED, &padded(6, b"test", 6)), Due::Answer(1)),
            ("6.1: nothing but padding", with(END_STREAM | PADDED, &padded(255, b"", 255)), Due::Answer(1)),
            ("6.1: padded with nothing", with(END_STREAM | PADDED, &padded(0, b"test", 0)), Due::Answer(1)),
            ("6.1: on stream 0", frame(DATA, END_STREAM, 0, b"test"), PROTOCOL),
            ("6.1: more padding than payload", with(END_STREAM | PADDED, &padded(7, b"test", 2)), PROTOCOL),
            ("6.1: as much padding as payload", with(END_STREAM | PADDED, &padded(5, b"test", 0)), PROTOCOL),
            (
                "6.1: no room for the length of the padding",
                with(END_STREAM | PADDED, b""),
                Due::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
            ),
        ])
        .await;
}

#[tokio::test]
async fn headers() {
    let place = place().await;
    let whole = block(&GET);
    let both = [&[3, 0, 0, 0, 0, 7][..], &whole, &[0; 3]].concat();
    place
        .conforms(&[
            ("6.2: HEADERS", get(1), Due::Answer(1)),
            ("6.2: padded", frame(HEADERS, LAST | PADDED, 1, &padded(9, &whole, 9)), Due::Answer(1)),
            (
                "6.2: padded and with a priority",
                frame(HEADERS, LAST | PADDED | PRIORITY_FLAG, 1, &both),
                Due::Answer(1),
            ),
            ("6.2: on stream 0", frame(HEADERS, LAST, 0, &whole), PROTOCOL),
            (
                "6.2: then something else than their CONTINUATION",
                [begun(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
                PROTOCOL,
            ),
            ("6.2: then HEADERS of another stream", [begun(1), get(3)].concat(), PROTOCOL),
            (
                "6.2: more padding than payload",
                frame(HEADERS, LAST | PADDED, 1, &padded(255, &whole, 0)),
                PROTOCOL,
            ),
            (
                "6.2: no room for the length of the padding",
                frame(HEADERS, LAST | PADDED, 1, b""),
                Due::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
            ),
            (
                "6.2: no room for the priority",
                frame(HEADERS, LAST | PRIORITY_FLAG, 1, &[0; 4]),
                Due::Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]),
            ),
        ])
        .await;
}

#[tokio::test]
async fn priority_and_reset() {
    let place = place().await;
    let then = |bytes: Vec<u8>| [post(1), bytes].concat();
    place
        .conforms(&[
            ("6.3: PRIORITY", then(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255])), Due::Life),
            ("6.3: on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 7]), PROTOCOL),
            ("6.3: too short", then(frame(PRIORITY, 0, 1, &[0; 4])), Due::Stream(1, &[FRAME_SIZE_ERROR])),
            ("6.3: too long", then(frame(PRIORITY, 0, 1, &[0; 6])), Due::Stream(1, &[FRAME_SIZE_ERROR])),
            ("6.4: RST_STREAM", then(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])), Due::Life),
            ("6.4: on stream 0", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8]), PROTOCOL),
            ("6.4: of an idle stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), PROTOCOL),
            ("6.4: too short", then(frame(RST_STREAM, 0, 1, &[0; 3])), SIZE),
            ("6.4: too long", then(frame(RST_STREAM, 0, 1, &[0; 5])), SIZE),
        ])
        .await;
}

#[tokio::test]
async fn settings() {
    let place = place().await;
    let set = |id: u8, value: u32| frame(SETTINGS, 0, 0, &[&[0, id][..], &value.to_be_bytes()].concat());
    place
        .conforms(&[
            ("6.5: SETTINGS", set(1, 100), Due::Life),
            ("6.5: empty", frame(SETTINGS, 0, 0, &[]), Due::Life),
            ("6.5: ACK with a payload", frame(SETTINGS, ACK, 0, &[0; 6]), SIZE),
            ("6.5: of a stream", frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 100]), PROTOCOL),
            ("6.5: of no multiple of 6", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0]), SIZE),
            ("6.5.2: ENABLE_PUSH 0", set(2, 0), Due::Life),
            ("6.5.2: ENABLE_PUSH 1", set(2, 1), Due::Life),
            ("6.5.2: ENABLE_PUSH 2", set(2, 2), PROTOCOL),
            ("6.5.2: INITIAL_WINDOW_SIZE of the most", set(4, 0x7fff_ffff), Due::Life),
            (
                "6.5.2: INITIAL_WINDOW_SIZE of more",
                set(4, 0x8000_0000),
                Due::Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR]),
            ),
            ("6.5.2: MAX_FRAME_SIZE of too little", set(5, 16_383), PROTOCOL),
            ("6.5.2: MAX_FRAME_SIZE of the least", set(5, 16_384), Due::Life),
            ("6.5.2: MAX_FRAME_SIZE of the most", set(5, 0xff_ffff), Due::Life),
            ("6.5.2: MAX_FRAME_SIZE of more", set(5, 0x100_0000), PROTOCOL),
            ("6.5.2: MAX_CONCURRENT_STREAMS 0", [set(3, 0), get(1)].concat(), Due::Answer(1)),
            ("6.5.2: HEADER_TABLE_SIZE 0", [set(1, 0), get(1)].concat(), Due::Answer(1)),
            ("6.5.2: HEADER_TABLE_SIZE without end", [set(1, u32::MAX), get(1)].concat(), Due::Answer(1)),
            ("6.5.2: MAX_HEADER_LIST_SIZE without end", [set(6, u32::MAX), get(1)].concat(), Due::Answer(1)),
            ("6.5.2: an unknown setting", set(0xff, 1), Due::Life),
        ])
        .await;
    // 6.5.3: they are acknowledged, each of them.
    let mut client = Frames::connect(place.gateway.http()).await;
    let mut acknowledged = 0;
    client.send(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).await;
    while acknowledged < 2 {
        let frame = client.read().await.expect("it goes on");
        acknowledged += usize::from((frame.kind, frame.flags) == (SETTINGS, ACK));
    }
}

#[tokio::test]
async fn push_promise_ping_and_goaway() {
    let place = place().await;
    let promise = [&2u32.to_be_bytes()[..], &block(&GET)].concat();
    place
        .conforms_and_keeps_all_back(&[
            ("6.6: PUSH_PROMISE of a client", frame(PUSH_PROMISE, END_HEADERS, 1, &promise), PROTOCOL),
            ("6.6: on stream 0", frame(PUSH_PROMISE, END_HEADERS, 0, &promise), PROTOCOL),
            ("6.7: PING", frame(PING, 0, 0, &[7; 8]), Due::Life),
            ("6.7: an answer to none", frame(PING, ACK, 0, b"invalid!"), Due::Life),
            ("6.7: of a stream", frame(PING, 0, 1, &[7; 8]), PROTOCOL),
            ("6.7: too short", frame(PING, 0, 0, &[7; 6]), SIZE),
            ("6.7: too long", frame(PING, 0, 0, &[7; 9]), SIZE),
            ("6.8: GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), PROTOCOL),
            ("6.8: too short", frame(GOAWAY, 0, 0, &[0; 7]), SIZE),
        ])
        .await;
    // 6.6: one on an open stream is no better.
    let open = [post(1), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)].concat();
    place.conforms(&[("6.6: PUSH_PROMISE on an open stream", open, PROTOCOL)]).await;
    // 6.7: the answer to a PING says what it said, and an answer is not answered.
    let mut client = Frames::connect(place.gateway.http()).await;
    client.send(PING, ACK, 0, b"answered").await;
    client.send(PING, 0, 0, b"h2spec!!").await;
    loop {
        let frame = client.read().await.expect("it goes on");
        if frame.kind == PING {
            break assert_eq!((frame.flags, &frame.payload[..]), (ACK, &b"h2spec!!"[..]));
        }
    }
}

#[tokio::test]
async fn window_update() {
    let place = place().await;
    let update = |stream: u32, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let then = |bytes: Vec<u8>| [post(1), bytes].concat();
    place
        .conforms(&[
            ("6.9: WINDOW_UPDATE of the connection", update(0, 1), Due::Life),
            ("6.9: of a stream", then(update(1, 1)), Due::Life),
            ("6.9: with the reserved bit", update(0, 0x8000_0001), Due::Life),
            ("6.9: by nothing", update(0, 0), PROTOCOL),
            ("6.9: by nothing but the reserved bit", update(0, 0x8000_0000), PROTOCOL),
            ("6.9: of a stream by nothing", then(update(1, 0)), Due::Stream(1, &[PROTOCOL_ERROR])),
            ("6.9: too short", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), SIZE),
            ("6.9: too long", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1, 0]), SIZE),
            ("6.9: of a stream, too long", then(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1, 0])), SIZE),
        ])
        .await;
}

#[tokio::test]
async fn continuation() {
    let place = place().await;
    let empty = |stream: u32, flags: u8| frame(CONTINUATION, flags, stream, &[]);
    let first = [begun(1), rest(1, END_HEADERS)].concat();
    place
        .conforms(&[
            ("6.10: CONTINUATION", first.clone(), Due::Answer(1)),
            (
                "6.10: more than one",
                [begun(1), rest(1, 0), empty(1, 0), empty(1, END_HEADERS)].concat(),
                Due::Answer(1),
            ),
            (
                "6.10: all of it in CONTINUATION",
                [frame(HEADERS, END_STREAM, 1, &[]), frame(CONTINUATION, END_HEADERS, 1, &block(&GET))]
                    .concat(),
                Due::Answer(1),
            ),
            (
                "6.10: then something else",
                [begun(1), rest(1, 0), frame(DATA, END_STREAM, 1, b"x")].concat(),
                PROTOCOL,
            ),
            ("6.10: on stream 0", [begun(1), rest(0, END_HEADERS)].concat(), PROTOCOL),
            ("6.10: of another stream", [begun(1), rest(3, END_HEADERS)].concat(), PROTOCOL),
            (
                "6.10: behind HEADERS that were all",
                [get(1), empty(1, END_HEADERS)].concat(),
                Due::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            ),
            (
                "6.10: behind one that was the last",
                [first, empty(1, END_HEADERS)].concat(),
                Due::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            ),
            (
                "6.10: behind DATA",
                [post(1), frame(DATA, 0, 1, b"x"), empty(1, END_HEADERS)].concat(),
                PROTOCOL,
            ),
        ])
        .await;
}
