//! Upgrades: after 101, bytes pass both ways; and nothing gets through that way which a route has not let in.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::raw::{RawOrigin, read_bytes, read_head, read_until, read_until_close};
use crate::support::{Gateway, Origin, eventually, raw};

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: x\r\nX-Hop: 1\r\nConnection: X-Hop\r\n\r\n";

fn to(url: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "services: {{ s: {{ instances: [\"{url}\"] }} }}\n\
         authenticators: {{ j: {{ jwt: {{ algorithms: [HS256], keys: [ {{ secret: \"0123456789012345678901234567890123\" }} ] }} }} }}\n\
         routes:\n\
         - {{ name: closed, match: {{ prefix: /closed }}, authenticate: {{ with: [j] }}, forward: {{ service: s }} }}\n\
         - {{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}\n{more}"
    ))
}

/// Switches and then says everything back, until the other side closes.
async fn echo() -> RawOrigin {
    RawOrigin::start(|mut stream, _| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
        assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        assert!(head.contains("\r\nsec-websocket-key: k\r\n"), "{head}");
        // The first words of the tunnel come with the head.
        let _ = stream.write_all(format!("{SWITCH}first").as_bytes()).await;
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.write_all(b"last").await;
    })
    .await
}

fn ask(path: &str, upgrade: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Key: k\r\n\r\n"
    )
}

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.http()).await.expect("it listens")
}

#[tokio::test]
async fn bytes_pass_both_ways_until_one_side_ends() {
    let origin = echo().await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    // A client in a hurry; and what it says looks like requests and responses, which it is not.
    let early = "HTTP/1.1 400 Bad Request\r\n\r\nGET / HTTP/9\n\n\0\x01";
    stream.write_all(format!("{}{early}", ask("/ws", "websocket")).as_bytes()).await.expect("it reads");
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(
        head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: websocket\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nsec-websocket-accept: x\r\n") && !head.contains("x-hop"), "{head}");
    assert_eq!(read_until(&mut stream, early).await, format!("first{early}"));
    let block = vec![b'z'; 3_000_000];
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        writer.write_all(&block).await.expect("it takes all");
        writer
    });
    let mut got = vec![0; 3_000_000];
    tokio::io::AsyncReadExt::read_exact(&mut reader, &mut got).await.expect("all comes back");
    assert!(got.iter().all(|byte| *byte == b'z'));
    let writer = sending.await.expect("it did not panic");
    let mut stream = reader.reunite(writer).expect("two halves of one");
    stream.shutdown().await.expect("it is open");
    assert_eq!(read_until_close(&mut stream).await, "last");
    let entry = gateway.log_entry(|entry| entry["path"] == "/ws");
    assert_eq!(entry["status"], 101);
}

#[tokio::test]
async fn a_service_that_ends_ends_the_tunnel() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(SWITCH.as_bytes()).await;
        read_bytes(&mut stream, 4).await;
        let _ = stream.write_all(b"bye").await;
    })
    .await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    stream.write_all(ask("/ws", "websocket").as_bytes()).await.expect("it reads");
    read_head(&mut stream).await;
    stream.write_all(b"stop").await.expect("it is open");
    assert_eq!(read_bytes(&mut stream, 3).await, b"bye");
    stream.shutdown().await.expect("it is open");
    assert_eq!(read_until_close(&mut stream).await, "");
}

#[tokio::test]
async fn policies_come_before_the_upgrade() {
    let origin = echo().await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    stream.write_all(ask("/closed", "websocket").as_bytes()).await.expect("it reads");
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{head}");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_refused_upgrade_leaves_an_ordinary_connection() {
    let origin = Origin::text("plain").await;
    let gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    let both =
        format!("{}GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ask("/ws", "websocket"));
    stream.write_all(both.as_bytes()).await.expect("it reads");
    let answers = read_until_close(&mut stream).await;
    assert_eq!(answers.matches("plain").count(), 2, "{answers}");
    let seen = origin.seen();
    assert_eq!(seen[0].header("upgrade"), Some("websocket"));
    assert_eq!((seen[1].target.as_str(), seen[1].header("upgrade")), ("/next", None));
}

#[tokio::test]
async fn what_would_hide_requests_is_not_upgraded_to() {
    let origin = Origin::text("plain").await;
    let gateway = to(&origin.url(), "");
    for upgrade in ["h2c", "H2C", "HTTP/2.0", "TLS/1.3", "websocket, h2c"] {
        let mut stream = connect(&gateway).await;
        stream.write_all(ask("/", upgrade).as_bytes()).await.expect("it reads");
        let answer = read_until(&mut stream, "plain").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{upgrade}: {answer}");
        let seen = origin.seen().pop().expect("it came");
        assert_eq!((seen.header("upgrade"), seen.header("connection")), (None, None), "{upgrade}");
        assert_eq!(seen.header("http2-settings"), None);
    }
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_no_answer() {
    let origin = RawOrigin::answering(SWITCH).await;
    let gateway = to(&origin.url(), "");
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n".to_owned(),
        ask("/", "h2c").replace("keep-alive", "close"),
    ] {
        let answer = raw::exchange(gateway.http(), request).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        assert!(answer.contains("\"code\":\"invalid_response\""), "{answer}");
    }
}

#[tokio::test]
async fn an_open_tunnel_holds_the_end_of_the_process_up() {
    let origin = echo().await;
    let mut gateway = to(&origin.url(), "");
    let mut stream = connect(&gateway).await;
    stream.write_all(ask("/ws", "websocket").as_bytes()).await.expect("it reads");
    read_until(&mut stream, "first").await;
    gateway.signal("TERM");
    let address = gateway.http();
    eventually("it listens no more", || async { TcpStream::connect(address).await.is_err().then_some(()) })
        .await;
    stream.write_all(b"still").await.expect("it is open");
    assert_eq!(read_bytes(&mut stream, 5).await, b"still");
    drop(stream);
    assert_eq!(gateway.wait_for_end().code(), Some(0));
}
