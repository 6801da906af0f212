//! Flow control (RFC 9113 §6.9).

use tokio::io::AsyncReadExt;

use super::*;
use crate::support::frames::WINDOW_UPDATE;
use crate::support::raw::{self, RawOrigin};
use crate::support::{Gateway, PATIENCE, one_service};

const INITIAL_WINDOW_SIZE: u16 = 4;
const MOST: u32 = 0x7fff_ffff;

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn initial(size: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &size.to_be_bytes()].concat())
}

/// Reads until so much of an answer has come, and by the answer to a PING no more.
async fn takes(client: &mut Frames, seen: &mut Seen, data: usize) {
    seen.read(client, |seen| seen.data >= data).await;
    let pongs = seen.pongs;
    client.send(PING, 0, 0, &[1; 8]).await;
    seen.read(client, |seen| seen.pongs > pongs).await;
    assert!(seen.is(Due::Life) && seen.data == data, "{data} bytes were due: {seen:?}");
}

/// 6.9.1, 6.9.2: what the service says has seven bytes.
#[tokio::test]
async fn answers_fit_into_the_window() {
    let place = place().await;
    let mut client = Frames::connect_with(place.gateway.http(), &[(INITIAL_WINDOW_SIZE, 1)]).await;
    let mut seen = Seen::default();
    let _ = client.stream.write_all(&get(1)).await;
    takes(&mut client, &mut seen, 1).await;
    // A stream's window, and that of all streams to come and of those that are open.
    let _ = client.stream.write_all(&update(1, 2)).await;
    takes(&mut client, &mut seen, 3).await;
    let _ = client.stream.write_all(&initial(2)).await;
    takes(&mut client, &mut seen, 4).await;
    // It falls below nothing, and is nothing again after two.
    let _ = client.stream.write_all(&[initial(0), update(1, 2)].concat()).await;
    takes(&mut client, &mut seen, 4).await;
    let _ = client.stream.write_all(&update(1, 1)).await;
    takes(&mut client, &mut seen, 5).await;
    let _ = client.stream.write_all(&initial(100)).await;
    takes(&mut client, &mut seen, 7).await;
    assert_eq!((seen.answered, seen.ended), (vec![1], vec![1]));
    // 6.5.3: of a setting that comes twice, the last counts.
    let mut client = Frames::connect_with(place.gateway.http(), &[(4, 100), (4, 1)]).await;
    let mut seen = Seen::default();
    let _ = client.stream.write_all(&get(1)).await;
    takes(&mut client, &mut seen, 1).await;
}

#[tokio::test]
async fn windows_have_an_end() {
    let place = place().await;
    let then = |bytes: Vec<u8>| [post(1), bytes].concat();
    place
        .conforms(&[
            (
                "6.9.1: the connection's beyond 2^31-1",
                [update(0, MOST), update(0, MOST)].concat(),
                Due::Connection(&[FLOW_CONTROL_ERROR]),
            ),
            ("6.9.1: the connection's to 2^31-1", update(0, MOST - 65_535), Due::Life),
            (
                "6.9.1: a stream's beyond 2^31-1",
                then([update(1, MOST), update(1, MOST)].concat()),
                Due::Stream(1, &[FLOW_CONTROL_ERROR]),
            ),
            ("6.9.1: a stream's to 2^31-1", then(update(1, MOST - 65_535)), Due::Life),
            (
                "6.9.2: a stream's beyond it by a setting",
                then([update(1, MOST - 65_535), initial(65_536)].concat()),
                Due::Connection(&[FLOW_CONTROL_ERROR]),
            ),
        ])
        .await;
}

/// 6.9.1: who sends more than there is room for is told so. What the service's socket holds is room.
#[tokio::test]
async fn bodies_fit_into_our_window() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        raw::read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = Gateway::start(&format!(
        "listeners: [{{ name: http, bind: \"127.0.0.1:0\" }}]\n{}",
        one_service(&[origin.url()], "")
    ));
    let Frames { stream, .. } = Frames::connect(gateway.http()).await;
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        let data = frame(DATA, 0, 1, &[b'x'; 16_384]);
        let _ = writer.write_all(&post(1)).await;
        for _ in 0..10_000 {
            if writer.write_all(&data).await.is_err() {
                return;
            }
        }
    });
    // `RST_STREAM` or `GOAWAY`, whose codes stand at their ends.
    let mut head = [0; 9];
    let code = loop {
        let read = tokio::time::timeout(PATIENCE, reader.read_exact(&mut head)).await.expect("it says so");
        read.expect("before it closes");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        reader.read_exact(&mut payload).await.expect("a whole frame");
        match head[3] {
            RST_STREAM => break payload[3],
            GOAWAY => break payload[7],
            _ => {}
        }
    };
    assert_eq!(u32::from(code), FLOW_CONTROL_ERROR);
    sending.abort();
}
