//! HTTP/1.1 on both sides where it is awkward: clients and services that hurry, dawdle, break off or answer before
//! they were asked all of it.

use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::h2::{self, H2};
use crate::support::raw::{RawOrigin, read_head, read_until, read_until_close};
use crate::support::{Gateway, Origin, PATIENCE, eventually, one_service, raw};

const CLOSE: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn limited(limits: &str, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "workers: 1\nlisteners: [{{ name: http, bind: \"127.0.0.1:0\", limits: {{ {limits} }} }}]\n{rest}"
    ))
}

async fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.http()).await.expect("it listens")
}

/// A client whose kernel takes little in advance.
async fn connect_narrow(gateway: &Gateway) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("the loopback is IPv4");
    socket.set_recv_buffer_size(16 * 1024).expect("a plain option");
    socket.connect(gateway.http()).await.expect("it listens")
}

/// Many answers in one turn use up what the runtime allows a task at once; the limits hold all the same.
#[tokio::test]
async fn a_connection_that_was_kept_very_busy_is_timed_afterwards() {
    let gateway = limited(
        "header_timeout: 300ms, idle_timeout: 300ms",
        "routes: [{ name: x, match: { path: / }, respond: { text: hello } }]\n",
    );
    for behind in ["", "GET / HT"] {
        let mut stream = connect(&gateway).await;
        let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500) + behind;
        stream.write_all(requests.as_bytes()).await.expect("it reads");
        let answers = read_until_close(&mut stream).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 500);
        assert_eq!(answers.contains("HTTP/1.1 408 "), !behind.is_empty());
    }
}

/// What the client does not take is not kept for it.
#[tokio::test(flavor = "multi_thread")]
async fn early_hints_that_nobody_reads_are_left_out() {
    const HINTS: usize = 990;
    let (told, mut all_sent) = tokio::sync::mpsc::channel(1);
    let origin = RawOrigin::start(move |mut stream, _| {
        let told = told.clone();
        async move {
            read_head(&mut stream).await;
            let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(15_000));
            for _ in 0..HINTS {
                stream.write_all(hint.as_bytes()).await.expect("it reads");
                // Each comes by itself.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            told.send(()).await.expect("the test waits");
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gateway = Gateway::start(&one_service(&[origin.url()], ""));
    let mut stream = connect_narrow(&gateway).await;
    stream.write_all(CLOSE.as_bytes()).await.expect("it reads");
    timeout(PATIENCE, all_sent.recv()).await.expect("the service is not held up");
    let answer = read_until_close(&mut stream).await;
    assert!(answer.ends_with("\r\n\r\nok"), "the response comes last");
    let hints = answer.matches("HTTP/1.1 103 ").count();
    // The kernel keeps some megabytes.
    assert!(hints < HINTS / 2, "{hints} were kept");
}

/// A slow reader is not one that does not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_gets_all_of_a_long_answer() {
    const SIZE: usize = 16 * 1024 * 1024;
    let body = format!("\"{}\"", "x".repeat(SIZE - 2));
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {SIZE}\r\n\r\n{body}");
    let origin = RawOrigin::answering(answer).await;
    let gateway = limited(
        "idle_timeout: 1s",
        &format!(
            "services: {{ s: {{ instances: [\"{}\"] }} }}\n\
             routes:\n- name: all\n  match: {{ prefix: / }}\n  aggregate:\n    parts:\n      \
             it: {{ service: s, path: /it, max_body: 32MiB }}\n",
            origin.url()
        ),
    );
    let mut stream = connect_narrow(&gateway).await;
    stream.write_all(CLOSE.as_bytes()).await.expect("it reads");
    let mut received = 0;
    let mut piece = vec![0; 256 * 1024];
    loop {
        let read =
            timeout(PATIENCE, stream.read(&mut piece)).await.expect("it comes").expect("it is not cut off");
        if read == 0 {
            break;
        }
        received += read;
        // So that all of it takes several times as long as the limit.
        tokio::time::sleep(Duration::from_micros(read as u64 / 4)).await;
    }
    assert!(received > SIZE, "{received} bytes came");
}

/// Whose fault it is that an exchange ends early is told, when both bodies were under way too.
#[tokio::test]
async fn a_client_that_breaks_off_its_request_during_the_response_is_named() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_until(&mut stream, "some").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst").await;
        raw::closed(&mut stream).await;
    })
    .await;
    let large = format!("1000\r\n{}", "x".repeat(0x1000));
    for (sent, after, expected) in [
        ("Content-Length: 100\r\n\r\nsome", None, "client_gone"),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n", Some("zz\r\n"), "invalid_request"),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n", Some(&*large), "body_too_large"),
    ] {
        let gateway = Gateway::start(&format!(
            "services: {{ s: {{ instances: [\"{}\"] }} }}\n\
             routes: [{{ name: all, match: {{ prefix: / }}, max_body: 1KiB, forward: {{ service: s }} }}]\n",
            origin.url()
        ));
        let mut stream = connect(&gateway).await;
        let request = format!("POST /x HTTP/1.1\r\nHost: a\r\n{sent}");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        read_until(&mut stream, "first").await;
        match after {
            Some(bytes) => stream.write_all(bytes.as_bytes()).await.expect("it reads"),
            None => stream.shutdown().await.expect("it is open"),
        }
        let entry = gateway.log_entry(|entry| entry["path"] == "/x");
        assert_eq!((&entry["status"], &entry["reason"]), (&200.into(), &expected.into()), "{after:?}");
    }
}

#[tokio::test]
async fn a_status_that_nobody_has_heard_of_is_passed_on() {
    for status in [600, 777, 999] {
        let origin =
            RawOrigin::answering(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok")).await;
        let gateway = Gateway::start(&one_service(&[origin.url()], ""));
        let answer = raw::exchange(gateway.http(), CLOSE).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} X\r\n")) && answer.ends_with("ok"),
            "{answer}"
        );
        assert_eq!(gateway.log_entry(|entry| entry["path"] == "/x")["status"], status);
    }
}

/// Answers, and then reads nothing more: what is written to it breaks the connection, with the answer on it.
#[tokio::test]
async fn a_response_that_is_there_is_passed_on_though_writing_breaks() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await;
        // With something unread, it is a reset.
        drop(stream);
    })
    .await;
    let gateway = Gateway::start(&one_service(&[origin.url()], "retries: { attempts: 0 }"));
    for _ in 0..20 {
        let (mut reader, mut writer) = connect(&gateway).await.into_split();
        let sending = tokio::spawn(async move {
            let head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n";
            let _ = writer.write_all(head).await;
            let _ = writer.write_all(&vec![b'x'; 30_000_000]).await;
            writer
        });
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, reader.read_to_end(&mut answer)).await.expect("in time");
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 413 Too Large\r\n") && answer.ends_with("\r\n\r\nno"),
            "{answer}"
        );
        drop(sending.await);
    }
}

#[tokio::test]
async fn no_switch_before_the_request_is_through() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nevil";
        let _ = stream.write_all(switch.as_bytes()).await;
        raw::closed(&mut stream).await;
    })
    .await;
    // So long it reads on, in case that the rest of the request comes.
    let gateway = limited("header_timeout: 500ms", &one_service(&[origin.url()], ""));
    for framing in ["Content-Length: 100\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n"] {
        let mut stream = connect(&gateway).await;
        let head = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        stream.write_all(format!("{head}{framing}").as_bytes()).await.expect("it reads");
        let answer = read_until_close(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
        assert!(answer.contains("\"code\":\"invalid_response\"") && !answer.contains("evil"), "{answer}");
    }
}

/// A client that reads nothing before it has sent everything must not stand in its own way.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_while_nobody_reads_the_response() {
    const SIZE: usize = 16 * 1024 * 1024;
    let origin = RawOrigin::start(|mut stream, _| async move {
        read_head(&mut stream).await;
        let (mut reader, mut writer) = stream.split();
        let answer = async {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            writer.write_all(head.as_bytes()).await.expect("it reads");
            writer.write_all(&vec![b'a'; SIZE]).await.expect("it reads");
        };
        let take = async {
            let mut all = vec![0; SIZE];
            reader.read_exact(&mut all).await.expect("it comes");
        };
        tokio::join!(answer, take);
    })
    .await;
    let gateway = Gateway::start(&one_service(&[origin.url()], ""));
    let mut stream = connect_narrow(&gateway).await;
    let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let sent = timeout(PATIENCE, stream.write_all(&vec![b'q'; SIZE])).await;
    sent.expect("all of it is taken").expect("it reads");
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(read_until_close(&mut stream).await.len(), SIZE);
}

/// RFC 9113 §8.2.3: HTTP/2 may split the field, HTTP/1.1 may not.
#[tokio::test]
async fn cookies_are_one_field() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&one_service(&[origin.url()], ""));
    let client = H2::connect(gateway.http()).await;
    let mut request = h2::get("/x");
    for cookie in ["a=1", "b=2; c=3", "d=4"] {
        request.headers_mut().append("cookie", HeaderValue::from_static(cookie));
    }
    let (response, _) = client.ready().await.send_request(request, true).expect("it is open");
    assert_eq!(response.await.expect("an answer").status(), 200);
    let seen = origin.only();
    let cookies: Vec<_> = seen.headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
}

/// A tunnel takes up as much as a connection that has not become one.
#[tokio::test]
async fn tunnels_count_as_the_connections_that_they_were() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        let answer = match read_head(&mut stream).await.contains("upgrade: websocket") {
            true => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            false => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        };
        let _ = stream.write_all(answer.as_bytes()).await;
        raw::closed(&mut stream).await;
    })
    .await;
    let gateway = limited("max_connections: 2", &one_service(&[origin.url()], ""));
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&gateway).await;
        let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.expect("it reads");
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        tunnels.push(stream);
    }
    let mut third = connect(&gateway).await;
    third.write_all(CLOSE.as_bytes()).await.expect("the kernel takes it");
    eventually("the third has to wait", || async {
        (gateway.metric("gatehouse_connections_refused_total", &[]).await > 0.0).then_some(())
    })
    .await;
    assert_eq!(origin.connections(), 2);
    tunnels.pop();
    assert!(read_until_close(&mut third).await.starts_with("HTTP/1.1 200 OK\r\n"));
}
