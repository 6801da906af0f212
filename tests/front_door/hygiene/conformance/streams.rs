//! Streams: their states, numbers and number (RFC 9113 §5.1, §5.3).

use super::*;
use crate::support::frames::{PRIORITY, WINDOW_UPDATE};
use crate::support::raw::{self, RawOrigin};
use crate::support::{Gateway, one_service};

const LAST: u8 = END_HEADERS | END_STREAM;
/// The first is what §5.1 asks for. `h2` ends the connection with the second, unless it was it that reset the stream.
const CLOSED: &[u32] = &[STREAM_CLOSED, PROTOCOL_ERROR];

#[tokio::test]
async fn idle_streams() {
    let place = place().await;
    const WRONG: Due = Due::Connection(&[PROTOCOL_ERROR]);
    place
        .conforms_and_keeps_all_back(&[
            ("5.1 idle: DATA", frame(DATA, END_STREAM, 1, b"x"), WRONG),
            ("5.1 idle: RST_STREAM", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), WRONG),
            ("5.1 idle: WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100]), WRONG),
            ("5.1 idle: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, &block(&GET)), WRONG),
            ("5.1 idle: PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]), Due::Life),
        ])
        .await;
    let before = [frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 7]), get(1)].concat();
    place.conforms(&[("5.1 idle: PRIORITY, then a stream before it", before, Due::Answer(1))]).await;
}

#[tokio::test]
async fn half_closed_streams() {
    let place = place().await;
    let then = |bytes: Vec<u8>| [get(1), bytes].concat();
    place
        .conforms(&[
            ("5.1 half-closed: DATA", then(frame(DATA, END_STREAM, 1, b"x")), Due::Stream(1, CLOSED)),
            ("5.1 half-closed: HEADERS", then(get(1)), Due::Stream(1, CLOSED)),
            (
                "5.1 half-closed: CONTINUATION",
                then(frame(CONTINUATION, END_HEADERS, 1, &block(&[("x", "1")]))),
                Due::Connection(CLOSED),
            ),
            (
                "5.1 half-closed: WINDOW_UPDATE",
                then(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])),
                Due::Answer(1),
            ),
            ("5.1 half-closed: PRIORITY", then(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7])), Due::Answer(1)),
            ("5.1 half-closed: RST_STREAM", then(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])), Due::Life),
        ])
        .await;
}

#[tokio::test]
async fn closed_streams() {
    let place = place().await;
    let reset = |bytes: Vec<u8>| [post(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), bytes].concat();
    place
        .conforms(&[
            (
                "5.1 closed by RST_STREAM: DATA",
                reset(frame(DATA, END_STREAM, 1, b"x")),
                Due::Stream(1, CLOSED),
            ),
            ("5.1 closed by RST_STREAM: HEADERS", reset(get(1)), Due::Stream(1, CLOSED)),
            (
                "5.1 closed by RST_STREAM: CONTINUATION",
                reset(frame(CONTINUATION, END_HEADERS, 1, &block(&GET))),
                Due::Connection(CLOSED),
            ),
            ("5.1 closed by RST_STREAM: PRIORITY", reset(frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7])), Due::Life),
        ])
        .await;
    for (name, bytes, due) in [
        ("DATA", frame(DATA, END_STREAM, 1, b"x"), Due::Stream(1, CLOSED)),
        ("HEADERS", get(1), Due::Stream(1, CLOSED)),
        ("CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, &block(&GET)), Due::Connection(CLOSED)),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100]), Due::Life),
        ("RST_STREAM", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Due::Life),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]), Due::Life),
        ("another stream", get(3), Due::Answer(3)),
    ] {
        let mut client = answered(&place, 1).await;
        let seen = outcome(&mut client, &bytes, due).await;
        assert!(seen.is(due), "5.1 closed, then {name}: {due:?} was due, and {seen:?} came");
    }
}

#[tokio::test]
async fn stream_identifiers() {
    let place = place().await;
    const WRONG: Due = Due::Connection(&[PROTOCOL_ERROR]);
    place
        .conforms_and_keeps_all_back(&[
            ("5.1.1: an even number", get(2), WRONG),
            ("5.1.1: zero", get(0), WRONG),
        ])
        .await;
    place
        .conforms(&[
            ("5.1.1: a number below another", [get(5), get(3)].concat(), Due::Connection(CLOSED)),
            ("5.1.1: a number left out", get(7), Due::Answer(7)),
            ("5.1.1: the last number", get(0x7fff_ffff), Due::Answer(0x7fff_ffff)),
        ])
        .await;
}

/// 5.1.2: who opens more than it may has the one too many refused.
#[tokio::test]
async fn stream_concurrency() {
    let origin = RawOrigin::start(|mut stream, _| async move { raw::closed(&mut stream).await }).await;
    let gateway = Gateway::start(&format!(
        "listeners: [{{ name: http, bind: \"127.0.0.1:0\", limits: {{ max_streams: 2 }} }}]\n{}",
        one_service(&[origin.url()], "")
    ));
    let mut client = Frames::connect(gateway.http()).await;
    let due = Due::Stream(5, &[REFUSED_STREAM, PROTOCOL_ERROR]);
    let seen = outcome(&mut client, &[get(1), get(3), get(5)].concat(), due).await;
    assert!(seen.is(due) && !seen.closed, "{seen:?}");
    assert!(seen.resets.iter().all(|(stream, _)| *stream == 5), "{seen:?}");
}

/// They mean nothing any more and are read all the same, but for what was always an error.
#[tokio::test]
async fn priorities() {
    let place = place().await;
    let dependent = |on: u32, weight: u8| {
        let payload = [&on.to_be_bytes()[..], &[weight], &block(&GET)].concat();
        frame(HEADERS, LAST | PRIORITY_FLAG, 1, &payload)
    };
    let own = Due::Stream(1, &[PROTOCOL_ERROR]);
    place
        .conforms_and_keeps_all_back(&[
            ("5.3.1: HEADERS that depend on their own stream", dependent(1, 7), own),
            ("5.3.1: PRIORITY that does", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 7]), own),
        ])
        .await;
    place
        .conforms(&[
            ("5.3.2: HEADERS with a priority", dependent(0, 255), Due::Answer(1)),
            ("5.3.2: HEADERS that depend on a stream to come", dependent(99, 0), Due::Answer(1)),
            ("5.3.2: an exclusive one", dependent(0x8000_0003, 1), Due::Answer(1)),
        ])
        .await;
}
