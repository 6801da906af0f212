//! Bodies and bytes through TLS, both ways; what ends a body there, and what ends a connection.

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{TRUST, in_front_of, trusting, usual};
use crate::support::tls_origin::{Authority, TlsOrigin, server};
use crate::support::{Client, Session, eventually, raw};

/// Reads the head of a request.
async fn head(stream: &mut TlsStream<TcpStream>) -> String {
    let mut all = Vec::new();
    let mut byte = [0];
    while !all.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
        all.push(byte[0]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn bodies_of_every_size_pass_both_ways() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::answering(server(&usual(&authority), None, &[]), |seen| {
        Response::new(Full::new(seen.body.clone()))
    })
    .await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
    let mut session = Session::open(gateway.http()).await;
    for size in [0, 1, 4096, 4097, 16 << 10, (16 << 10) + 1, 64 << 10, 1 << 20, 5 << 20] {
        let body: Bytes = (0..size).map(|n: usize| (n % 251) as u8).collect();
        let request = http::Request::post("/echo");
        let reply = session.try_send(request, body.clone()).await.expect("an answer");
        assert_eq!((reply.status, reply.body.len()), (200, size));
        assert!(reply.body == body, "{size} bytes are not what they were");
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_chunked_body_is_passed_on_as_it_comes() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::start(server(&usual(&authority), None, &[]), |mut stream, _| async move {
        head(&mut stream).await;
        let start = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
        let _ = stream.write_all(start.as_bytes()).await;
        for _ in 0..1000 {
            let _ = stream.write_all(b"400\r\n").await;
            let _ = stream.write_all(&[b'x'; 1024]).await;
            let _ = stream.write_all(b"\r\n").await;
        }
        let _ = stream.write_all(b"0\r\nx-sum: 7\r\n\r\n").await;
        let _ = stream.flush().await;
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
    let reply = Client::new(gateway.http()).http2().get("/").await;
    assert_eq!((reply.status, reply.body.len()), (200, 1024 * 1000));
    assert_eq!(reply.trailers.expect("they were announced")["x-sum"], "7");
}

/// An origin that answers the first request with these bytes, and ends the connection with or without saying so.
async fn ending(authority: &Authority, bytes: &'static str, says_so: bool) -> TlsOrigin {
    TlsOrigin::start(server(&usual(authority), None, &[]), move |mut stream, _| async move {
        head(&mut stream).await;
        let _ = stream.write_all(bytes.as_bytes()).await;
        let _ = stream.flush().await;
        if says_so {
            let _ = stream.shutdown().await;
        } else {
            // As anybody on the way can.
            let (mut below, _) = stream.into_inner();
            let _ = below.shutdown().await;
            let _ = below.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_whole_only_when_tls_says_so() {
    let authority = Authority::new("ca");
    let until_close = "HTTP/1.1 200 OK\r\n\r\nall of it";
    let told = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall of it";
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nall of it";
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nall of it\r\n";
    for (bytes, says_so, whole) in [
        (until_close, true, true),
        (until_close, false, false),
        (told, true, true),
        (told, false, true),
        (short, true, false),
        (chunks, true, false),
    ] {
        let origin = ending(&authority, bytes, says_so).await;
        let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
        let reply = Client::new(gateway.http()).try_send(Method::GET, "/", Bytes::new()).await;
        match reply {
            Ok(reply) if whole => assert_eq!((reply.status, &reply.text()[..]), (200, "all of it")),
            // Where it showed before the head was passed on.
            Ok(reply) => assert_eq!(reply.code(), "upstream_reset", "{bytes:?}, {says_so}"),
            Err(broken_off) => assert!(!whole, "{bytes:?}, {says_so}: {broken_off}"),
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_not_used_again() {
    let authority = Authority::new("ca");
    for says_so in [true, false] {
        let bytes = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall of it";
        let origin = ending(&authority, bytes, says_so).await;
        let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
        let client = Client::new(gateway.http());
        for sent in 1..=5 {
            assert_eq!(client.get("/").await.text(), "all of it");
            assert_eq!(origin.connections(), sent);
        }
    }
}

#[tokio::test]
async fn an_instance_is_told_when_a_kept_connection_ends() {
    let authority = Authority::new("ca");
    let (ended, mut end) = tokio::sync::mpsc::unbounded_channel();
    let origin = TlsOrigin::start(server(&usual(&authority), None, &[]), move |mut stream, _| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell").await;
            let _ = stream.flush().await;
            // An end that is not told is an error.
            let _ = ended.send(stream.read(&mut [0]).await.map_err(|error| error.to_string()));
        }
    })
    .await;
    let settings = format!("{TRUST}, pool: {{ idle_timeout: 100ms }}");
    let gateway = in_front_of(trusting(&authority), &[origin.url()], &settings);
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
    let end = tokio::time::timeout(crate::support::PATIENCE, end.recv()).await.expect("it is closed");
    assert_eq!(end, Some(Ok(0)));
}

#[tokio::test]
async fn tunnels_go_through_tls() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::start(server(&usual(&authority), None, &[]), |mut stream, _| async move {
        head(&mut stream).await;
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst";
        let _ = stream.write_all(switch.as_bytes()).await;
        let _ = stream.flush().await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.write_all(b"last").await;
        let _ = writer.shutdown().await;
    })
    .await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
    let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    let ask = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.expect("it reads");
    assert!(raw::read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let block = vec![b'z'; 1_000_000];
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        writer.write_all(&block).await.expect("it takes all");
        writer.shutdown().await.expect("it is open");
        // Kept, as dropping it would be another end.
        writer
    });
    let mut all = Vec::new();
    let read = tokio::time::timeout(crate::support::PATIENCE, reader.read_to_end(&mut all)).await;
    read.expect("it ends").expect("it ends in order");
    drop(sending.await.expect("it did not panic"));
    assert!(all.starts_with(b"firstzz") && all.ends_with(b"zzlast"));
    assert_eq!(all.len(), 1_000_000 + "firstlast".len());
    eventually("the tunnel is over", || async {
        (gateway.service("users").await["instances"][0]["in_flight"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_connection_with_it() {
    let authority = Authority::new("ca");
    let (left, mut gone) = tokio::sync::mpsc::unbounded_channel();
    let origin = TlsOrigin::start(server(&usual(&authority), None, &[]), move |mut stream, _| {
        let left = left.clone();
        async move {
            head(&mut stream).await;
            // A request that is cut short must not look whole: it ends without being told.
            let _ = left.send(stream.read(&mut [0]).await.is_err());
        }
    })
    .await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
    let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    eventually("it is with the instance", || async { (origin.handshakes().len() == 1).then_some(()) }).await;
    eventually("it waits", || async {
        (gateway.service("users").await["instances"][0]["in_flight"] == 1).then_some(())
    })
    .await;
    drop(stream);
    let gone = tokio::time::timeout(crate::support::PATIENCE, gone.recv()).await.expect("it is closed");
    assert_eq!(gone, Some(true));
}
