//! Bodies over HTTP/2, both ways, and with room made as they are taken.

use bytes::Bytes;
use h2::server::Builder;
use http::{Method, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::to;
use crate::support::h2_origin::{Asked, H2Origin, send};
use crate::support::raw::{read_head, read_until_close};
use crate::support::{Client, Session, eventually};

#[tokio::test]
async fn bodies_of_every_size_pass_both_ways() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        let (body, _) = asked.read().await;
        asked.answer(body).await;
    })
    .await;
    let gateway = to(&[origin.url()], "");
    for mut session in [Session::open(gateway.http()).await, Session::open_http2(gateway.http()).await] {
        for size in [0, 1, 16 << 10, (64 << 10) - 1, 64 << 10, 1 << 20, 3 << 20] {
            let body: Bytes = (0..size).map(|n: usize| (n % 251) as u8).collect();
            let reply =
                session.try_send(http::Request::post("/echo"), body.clone()).await.expect("an answer");
            assert_eq!((reply.status, reply.body.len()), (200, size));
            assert!(reply.body == body, "{size} bytes are not what they were");
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_chunked_request_and_a_response_without_length() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        assert!(!asked.head.headers.contains_key("content-length"));
        let (body, _) = asked.read().await;
        asked.answer(body).await;
    })
    .await;
    let gateway = to(&[origin.url()], "");
    let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it reads");
    eventually("the instance has the head", || async { (origin.seen().len() == 1).then_some(()) }).await;
    stream.write_all(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await.expect("it reads");
    let answer = read_until_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("abcde"), "{answer}");
    assert!(answer.to_lowercase().contains("\r\ntransfer-encoding: chunked\r\n"), "{answer}");
}

#[tokio::test]
async fn a_slow_reader_holds_up_itself_alone() {
    let (sent, mut progress) = watch::channel(0usize);
    let origin = H2Origin::start(Builder::new(), move |mut asked: Asked| {
        let sent = sent.clone();
        async move {
            if asked.head.uri.path() != "/large" {
                return asked.answer("well").await;
            }
            let Ok(mut stream) = asked.respond.send_response(Response::new(()), false) else { return };
            for _ in 0..512 {
                send(&mut stream, Bytes::from(vec![b'x'; 64 << 10]), false).await;
                sent.send_modify(|sent| *sent += 64 << 10);
            }
            let _ = stream.send_data(Bytes::new(), true);
        }
    })
    .await;
    let gateway = to(&[origin.url()], "");
    let mut slow = TcpStream::connect(gateway.http()).await.expect("it listens");
    slow.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("it reads");
    read_head(&mut slow).await;
    progress.wait_for(|sent| *sent >= 64 << 10).await.expect("it sends");
    // However long it reads nothing, others are answered over the same connection.
    for _ in 0..20 {
        assert_eq!(Client::new(gateway.http()).get("/small").await.text(), "well");
    }
    assert_eq!(origin.connections(), 1);
    assert!(*progress.borrow() < 512 * (64 << 10), "nobody can have taken 32 MiB that were not read");
    let rest = read_until_close(&mut slow).await;
    assert!(rest.len() >= 512 * (64 << 10));
}

#[tokio::test]
async fn an_answer_before_the_request_is_through_is_passed_on() {
    let origin = H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        let head = Response::builder().status(413).body(()).expect("constants");
        let _ = asked.respond.send_response(head, true);
    })
    .await;
    let gateway = to(&[origin.url()], "");
    let client = Client::new(gateway.http());
    let body = Bytes::from(vec![b'x'; 4 << 20]);
    // The client may be told in the midst of its request, and its connection closed.
    if let Ok(reply) = client.try_send(Method::POST, "/", body).await {
        assert_eq!(reply.status, 413);
    }
    assert_eq!(client.get("/").await.status, 413);
}
