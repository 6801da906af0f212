//! Floods of HTTP/2: frames that cost a client nothing. The connection ends, and nobody else notices.

use tokio::io::AsyncWriteExt;

use super::{HELLO, limited};
use crate::support::frames::{
    CONTINUATION, DATA, END_STREAM, ENHANCE_YOUR_CALM, Frames, GET, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::support::raw::{self, RawOrigin, read_head};
use crate::support::{Client, Gateway, Origin, PATIENCE, eventually, one_service};

/// Sends these frames over and over, and reads meanwhile. The connection must end before so many bytes; how, is
/// what GOAWAY says, unless the end of the connection has overtaken it.
async fn flood(gateway: &Gateway, open: bool, bytes: &[u8]) -> Option<u32> {
    let mut client = Frames::connect(gateway.http()).await;
    if open {
        let fields = GET.map(|(name, value)| (name, if name == ":method" { "POST" } else { value }));
        client.request(&fields, false).await;
    }
    let flood = bytes.repeat(64 * 1024 / bytes.len());
    let (mut reader, mut writer) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        for _ in 0..1000 {
            if writer.write_all(&flood).await.is_err() {
                return true;
            }
        }
        false
    });
    let mut all = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut all);
    let _ = tokio::time::timeout(PATIENCE, reading).await.expect("the connection ends");
    assert!(sending.await.expect("no panic"), "64 MB were taken");
    goaway(&all)
}

/// The code of the GOAWAY among these frames.
fn goaway(mut frames: &[u8]) -> Option<u32> {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if *kind == 7 {
            return Some(u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?));
        }
        frames = rest.get(length..)?;
    }
    None
}

fn is_calm(told: Option<u32>) -> bool {
    told.is_none_or(|code| code == ENHANCE_YOUR_CALM)
}

#[tokio::test]
async fn floods_of_idle_frames_end_the_connection() {
    let gateway = limited("", HELLO);
    for (number, (name, bytes)) in [
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("PING that answers none", frame(PING, 1, 0, &[7; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS with settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 7])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("unknown", frame(0x42, 0, 0, b"whatever")),
    ]
    .into_iter()
    .enumerate()
    {
        let told = flood(&gateway, false, &bytes).await;
        assert!(is_calm(told), "{name}: {told:?}");
        let counted = gateway.metric("gatehouse_http2_floods_total", &["listener=\"http\""]).await;
        assert_eq!(counted, (number + 1) as f64, "{name}");
        assert_eq!(Client::new(gateway.http()).http2().get("/").await.status, 200, "{name}");
    }
    gateway.wait_for("127.0.0.1 floods a connection");
}

#[tokio::test]
async fn floods_of_empty_data_end_the_connection() {
    let origin = RawOrigin::start(|mut stream, _| async move { raw::closed(&mut stream).await }).await;
    let gateway = limited("", &one_service(&[origin.url()], ""));
    let told = flood(&gateway, true, &frame(DATA, 0, 1, &[])).await;
    assert!(is_calm(told), "{told:?}");
}

#[tokio::test]
async fn a_flood_of_continuation_ends_the_connection() {
    let gateway = limited("", HELLO);
    for payload in [&b""[..], &block(&[("x", "1")])] {
        let mut client = Frames::connect(gateway.http()).await;
        client.send(HEADERS, END_STREAM, 1, &block(&GET)).await;
        let mut taken = 0;
        while taken < 100_000 && client.send(CONTINUATION, 0, 1, payload).await {
            taken += 1;
        }
        assert!(taken < 100_000, "all were taken");
    }
    assert_eq!(Client::new(gateway.http()).get("/").await.status, 200);
}

/// CVE-2023-44487, with each request well on its way before it is taken back.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        raw::closed(&mut stream).await;
    })
    .await;
    let gateway = limited("", &one_service(&[origin.url()], ""));
    let mut client = Frames::connect(gateway.http()).await;
    let mut taken = 0;
    let told = 'ended: loop {
        let stream = client.request(&GET, true).await;
        client.send(PING, 0, 0, &[1; 8]).await;
        // It was read, and what came before it as well.
        loop {
            match client.read().await {
                None => break 'ended None,
                Some(frame) if frame.kind == 7 => break 'ended Some(frame.payload[7]),
                Some(frame) if frame.kind == PING && frame.flags == 1 => break,
                Some(_) => {}
            }
        }
        client.send(RST_STREAM, 0, stream, &8u32.to_be_bytes()).await;
        taken += 1;
        assert!(taken < 3000, "{taken} requests were taken back");
    };
    assert!(told.is_none_or(|code| u32::from(code) == ENHANCE_YOUR_CALM), "{told:?}");
    assert!(taken > 400, "{taken}: a page full of pictures is no attack");
    eventually("no request is left", || async {
        (gateway.metric("http_requests_active", &[]).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("gatehouse_http2_floods_total", &[]).await, 1.0);
}

/// Requests in the same breath with their resets, which `h2` bounds before anyone sees them.
#[tokio::test]
async fn resets_in_one_breath_end_the_connection() {
    let origin = Origin::text("ok").await;
    let gateway = limited("", &one_service(&[origin.url()], ""));
    let mut client = Frames::connect(gateway.http()).await;
    let mut all = Vec::new();
    for number in 0..5000u32 {
        all.extend(frame(HEADERS, 5, 2 * number + 1, &block(&GET)));
        all.extend(frame(RST_STREAM, 0, 2 * number + 1, &8u32.to_be_bytes()));
    }
    let _ = client.stream.write_all(&all).await;
    let told = client.goaway().await;
    assert!(is_calm(told), "{told:?}");
    assert!(origin.count() < 2500, "{} of 5000 reached the service", origin.count());
}

/// CVE-2025-8671: the client makes us reset what it has opened.
#[tokio::test]
async fn streams_that_we_are_made_to_reset_end_the_connection() {
    let origin = RawOrigin::start(|mut stream, _| async move { raw::closed(&mut stream).await }).await;
    let gateway = limited("", &one_service(&[origin.url()], ""));
    let mut client = Frames::connect(gateway.http()).await;
    let mut all = Vec::new();
    for number in 0..5000u32 {
        all.extend(frame(HEADERS, 5, 2 * number + 1, &block(&GET)));
        // An increment of nothing is an error of the stream (RFC 9113 §6.9).
        all.extend(frame(WINDOW_UPDATE, 0, 2 * number + 1, &0u32.to_be_bytes()));
    }
    let (mut reader, mut writer) = client.stream.split();
    let mut told = Vec::new();
    let (_, read) = tokio::join!(
        writer.write_all(&all),
        tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut told))
    );
    let _ = read.expect("the connection ends");
    eventually("no request is left", || async {
        (gateway.metric("http_requests_active", &[]).await == 0.0).then_some(())
    })
    .await;
}

/// Every stream asks for much and takes nothing of it.
#[tokio::test]
async fn stalled_windows_hold_nothing_for_long() {
    let origin =
        Origin::start(|_| http::Response::new(http_body_util::Full::from(vec![b'x'; 300_000]))).await;
    let gateway = limited("idle_timeout: 500ms", &one_service(&[origin.url()], ""));
    let mut client = Frames::connect_with(gateway.http(), &[(4, 0)]).await;
    for _ in 0..100 {
        client.request(&GET, true).await;
    }
    let mut resets = 0;
    while resets < 100 {
        let frame = client.read().await.expect("the connection goes on until then");
        resets += usize::from(frame.kind == RST_STREAM);
        assert!(frame.kind != DATA || frame.payload.is_empty());
    }
    eventually("no request is left", || async {
        (gateway.metric("http_requests_active", &[]).await == 0.0).then_some(())
    })
    .await;
}

/// Frames as short as they come, each of them taken in and made room for twice, are what a conversation consists of.
#[tokio::test]
async fn making_room_for_what_has_come_is_no_flood() {
    const WORDS: usize = 4000;
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.set_nodelay(true);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for _ in 0..WORDS {
            if stream.write_all(b"1\r\nx\r\n").await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = stream.write_all(b"0\r\n\r\n").await;
    })
    .await;
    let gateway = limited("", &one_service(&[origin.url()], ""));
    let mut client = Frames::connect(gateway.http()).await;
    let stream = client.request(&GET, true).await;
    let mut came = 0;
    loop {
        let frame = client.read().await.expect("it goes on");
        if frame.kind == DATA && !frame.payload.is_empty() {
            came += frame.payload.len();
            let room = u32::try_from(frame.payload.len()).expect("short").to_be_bytes();
            client.send(WINDOW_UPDATE, 0, 0, &room).await;
            client.send(WINDOW_UPDATE, 0, stream, &room).await;
        }
        if frame.kind == DATA && frame.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(came, WORDS);
    assert_eq!(gateway.metric("gatehouse_http2_floods_total", &[]).await, 0.0);
}

/// Who asks and answers pings while it uses the connection is no flood.
#[tokio::test]
async fn a_busy_client_is_no_flood() {
    let gateway = limited("", HELLO);
    let mut client = Frames::connect(gateway.http()).await;
    for _ in 0..1500 {
        let stream = client.request(&GET, true).await;
        for _ in 0..2 {
            client.send(PING, 0, 0, &[1; 8]).await;
        }
        assert_eq!(client.outcome(stream).await, crate::support::frames::Outcome::Ok);
    }
    assert_eq!(gateway.metric("gatehouse_http2_floods_total", &[]).await, 0.0);
}
