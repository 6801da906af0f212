//! Clients that use up more than they ask for: bodies and answers drop by drop, connections without number, floods of
//! frames, memory and file descriptors. Each is bounded, each is counted, and others are served all the while.

mod floods;

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::frames::{DATA, Frames, GET, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::support::raw::{self, RawOrigin, read_head, read_until};
use crate::support::{Client, Gateway, Origin, PATIENCE, eventually, one_service};

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn limited(limits: &str, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "workers: 2\nlisteners: [{{ name: http, bind: \"127.0.0.1:0\", limits: {{ {limits} }} }}]\n{rest}"
    ))
}

const HELLO: &str = "routes: [{ name: x, match: { prefix: / }, respond: { text: hello } }]\n";

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.http()).await.expect("it listens")
}

#[tokio::test]
async fn a_slow_body_is_answered_with_408() {
    let origin = Origin::text("hello").await;
    let gateway = limited("idle_timeout: 300ms, min_upload_rate: 1KiB/s", &one_service(&[origin.url()], ""));
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let (mut reader, mut writer) = connect(&gateway).await.into_split();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("it reads");
        // Never silent for long, and never at an end.
        let dripping = async {
            while writer.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await
        };
        let mut answer = String::new();
        let reading = tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut answer);
        tokio::select! {
            read = tokio::time::timeout(PATIENCE, reading) => drop(read.expect("it is cut off")),
            () = dripping => {}
        }
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{framing}: {answer}");
        assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    }
    assert_eq!(origin.count(), 0);
    // Who sends fast enough sends as long as it takes.
    let answer = raw::exchange(
        gateway.http(),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 500000\r\n\r\n{}",
            "x".repeat(500_000)
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// Once the service has begun to answer, the two may be talking, and each word has its time.
#[tokio::test]
async fn a_conversation_is_not_a_slow_body() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        read_until(&mut stream, "\r\n0\r\n\r\n").await;
        let _ = stream.write_all(b"3\r\nall\r\n0\r\n\r\n").await;
    })
    .await;
    let gateway = limited("idle_timeout: 200ms, min_upload_rate: 1KiB/s", &one_service(&[origin.url()], ""));
    let mut stream = connect(&gateway).await;
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    stream.write_all(head.as_bytes()).await.expect("it reads");
    read_until(&mut stream, "ok\r\n").await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(b"1\r\nx\r\n").await.expect("it is not cut off");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("it is not cut off");
    assert!(raw::read_until_close(&mut stream).await.ends_with("3\r\nall\r\n0\r\n\r\n"));
}

/// A window of a byte now and then is no silence.
#[tokio::test]
async fn a_slow_reader_is_cut_off() {
    let origin =
        Origin::start(|_| http::Response::new(http_body_util::Full::from(vec![b'x'; 100_000]))).await;
    let gateway =
        limited("idle_timeout: 300ms, min_download_rate: 1KiB/s", &one_service(&[origin.url()], ""));
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let mut client = Frames::connect_with(gateway.http(), &[(INITIAL_WINDOW_SIZE, 1)]).await;
    let stream = client.request(&GET, true).await;
    loop {
        let frame = client.read().await.expect("the connection goes on");
        match frame.kind {
            DATA if frame.stream == stream => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                client.send(WINDOW_UPDATE, 0, stream, &1u32.to_be_bytes()).await;
            }
            RST_STREAM => break assert_eq!((frame.stream, &frame.payload[..]), (stream, &[0, 0, 0, 8][..])),
            HEADERS | SETTINGS | WINDOW_UPDATE => {}
            other => panic!("a frame of type {other}"),
        }
    }
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/ok")["reason"], "client_gone");
}

#[tokio::test]
async fn a_client_has_only_so_many_connections() {
    let gateway = limited("max_connections_per_client: 3", HELLO);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&gateway).await;
        stream.write_all(ASK).await.expect("it reads");
        read_until(&mut stream, "hello").await;
        open.push(stream);
    }
    for _ in 0..3 {
        let mut stream = connect(&gateway).await;
        let _ = stream.write_all(ASK).await;
        raw::closed(&mut stream).await;
    }
    gateway.wait_for("127.0.0.1 gets no further connection now");
    assert_eq!(gateway.metric("gatehouse_connections_turned_away_total", &["listener=\"http\""]).await, 3.0);
    // Those that are open are served on.
    for stream in &mut open {
        stream.write_all(ASK).await.expect("it reads");
        read_until(stream, "hello").await;
    }
    // A reload forgets none of them.
    gateway
        .reconfigure(&format!(
            "workers: 2\nlisteners: [{{ name: http, bind: \"127.0.0.1:0\", limits: {{ max_connections_per_client: 3, \
             max_headers: 50 }} }}]\n{HELLO}"
        ))
        .await;
    let mut stream = connect(&gateway).await;
    let _ = stream.write_all(ASK).await;
    raw::closed(&mut stream).await;
    // And one that ends makes room.
    open.pop();
    eventually("there is room again", || async {
        let mut stream = connect(&gateway).await;
        let _ = stream.write_all(CLOSE.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        answer.starts_with(b"HTTP/1.1 200 OK\r\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_begins_only_so_many_connections() {
    // So slow that no time of the test earns another.
    let gateway = limited("connection_rate_per_client: 4/h", HELLO);
    for _ in 0..4 {
        assert!(raw::exchange(gateway.http(), CLOSE).await.ends_with("hello"));
    }
    for _ in 0..3 {
        let mut stream = connect(&gateway).await;
        let _ = stream.write_all(CLOSE.as_bytes()).await;
        raw::closed(&mut stream).await;
    }
    assert_eq!(gateway.metric("gatehouse_connections_turned_away_total", &["listener=\"http\""]).await, 3.0);
    assert_eq!(gateway.metric("gatehouse_connections_accepted_total", &["listener=\"http\""]).await, 4.0);
}

#[tokio::test]
async fn a_trusted_proxy_has_the_connections_of_many() {
    let rest = format!("trusted_proxies: [127.0.0.0/8]\n{HELLO}");
    let gateway = limited("max_connections_per_client: 2, connection_rate_per_client: 2/h", &rest);
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut stream = connect(&gateway).await;
        stream.write_all(ASK).await.expect("it reads");
        read_until(&mut stream, "hello").await;
        open.push(stream);
    }
}

#[tokio::test]
async fn past_max_memory_new_requests_are_refused() {
    let configuration = |limit: &str| format!("max_memory: {limit}\n{HELLO}");
    // More than that is in use at any time.
    let gateway = Gateway::start(&configuration("1MiB"));
    eventually("it is noticed", || async {
        (Client::new(gateway.http()).get("/").await.status == 503).then_some(())
    })
    .await;
    let answer = raw::exchange(gateway.http(), ASK).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\"code\":\"out_of_memory\""), "{answer}");
    for field in ["\r\nretry-after: 1\r\n", "\r\nconnection: close\r\n"] {
        assert!(answer.contains(field), "{field:?} in {answer}");
    }
    gateway.wait_for("out of memory: ");
    assert_eq!(gateway.metric("gatehouse_out_of_memory", &[]).await, 1.0);
    gateway.reconfigure(&configuration("64GiB")).await;
    eventually("there is memory again", || async {
        (Client::new(gateway.http()).get("/").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("gatehouse_out_of_memory", &[]).await, 0.0);
    assert!(gateway.metric("http_errors_total", &["reason=\"out_of_memory\""]).await >= 1.0);
}

#[tokio::test]
async fn a_shortage_of_file_descriptors_slows_accepting_down() {
    let gateway = limited("", HELLO);
    let mut open = connect(&gateway).await;
    open.write_all(ASK).await.expect("it reads");
    read_until(&mut open, "hello").await;
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).expect("it is small"));
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = |current| {
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).expect("it is our child");
    };
    let taken: Vec<u64> = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid()))
        .expect("it runs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let free = (0..).find(|number| !taken.contains(number)).expect("there is one");
    limit(Some(free));
    let mut waiting = connect(&gateway).await;
    waiting.write_all(CLOSE.as_bytes()).await.expect("the kernel takes it");
    gateway.wait_for("can't accept");
    // What is open is served.
    open.write_all(ASK).await.expect("it reads");
    read_until(&mut open, "hello").await;
    limit(maximum);
    assert!(raw::read_until_close(&mut waiting).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let failures = gateway.metric("gatehouse_accept_failures_total", &["listener=\"http\""]).await;
    assert!((1.0..2000.0).contains(&failures), "{failures}: it does not spin");
}
