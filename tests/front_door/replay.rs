//! Requests with bodies that are sent again: whole, from the beginning, and only as far as they are kept.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::raw::{RawOrigin, read_until, read_until_close};
use crate::support::{Client, Gateway, Origin, one_service};

const SETTINGS: &str = "workers: 1\n";

/// Round robin over the instances, with breakers out of the way and no pauses.
fn service(instances: &[String], retries: &str) -> String {
    let settings = format!(
        "load_balancing: round_robin, circuit_breaker: {{ consecutive_failures: 1000000, failure_ratio: off }}, \
         retries: {{ backoff: {{ base: 0s }}, budget: 100%, {retries} }}"
    );
    format!("{SETTINGS}{}", one_service(instances, &settings))
}

/// Reads so much of a request and closes.
async fn closing_after(bytes: &'static str) -> RawOrigin {
    RawOrigin::start(move |mut stream, _| async move {
        read_until(&mut stream, bytes).await;
    })
    .await
}

#[tokio::test]
async fn a_short_body_is_sent_again_from_the_beginning() {
    let well = Origin::text("well").await;
    // The head alone was read, a part of the body, all of it; or there was an answer.
    let busy = Origin::status(503).await;
    let origins =
        [closing_after("\r\n\r\n").await, closing_after("middle").await, closing_after("the end").await];
    for broken in origins.iter().map(|origin| origin.url()).chain([busy.url()]) {
        let before = well.count();
        let gateway = Gateway::start(&service(&[broken, well.url()], ""));
        for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
            for method in [Method::PUT, Method::DELETE, Method::PUT] {
                let body = "a body with a middle and the end";
                let reply = client.send(method.clone(), "/", body.into()).await;
                assert_eq!((reply.status, reply.text().as_str()), (200, "well"), "{method}");
            }
        }
        assert_eq!(well.count() - before, 6);
        assert!(gateway.service("users").await["retries"].as_u64() >= Some(2));
    }
    assert!(well.seen().iter().all(|seen| seen.body == "a body with a middle and the end"));
    assert!(busy.seen().iter().all(|seen| seen.body == "a body with a middle and the end"));
}

/// Chunked, with trailers, of which the client has sent only the beginning when the first instance fails.
#[tokio::test]
async fn what_the_client_has_yet_to_send_follows_what_it_has_sent() {
    let broken = closing_after("begun").await;
    let well = Origin::text("well").await;
    let gateway = Gateway::start(&service(&[broken.url(), well.url()], ""));
    let mut failed = 0;
    for _ in 0..4 {
        let before = broken.connections();
        let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
        let head = "PUT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n";
        client.write_all(head.as_bytes()).await.expect("it reads");
        client.write_all(b"5\r\nbegun\r\n").await.expect("it reads");
        // The other instance gets the request at once, and is waited for the rest with.
        tokio::time::sleep(Duration::from_millis(100)).await;
        failed += broken.connections() - before;
        client.write_all(b"6\r\n ended\r\n0\r\nx-sum: 1\r\n\r\n").await.expect("it reads");
        let reply = read_until_close(&mut client).await;
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("well"), "{reply}");
    }
    assert!(failed >= 1);
    for seen in well.seen() {
        assert_eq!(seen.body, "begun ended");
        assert_eq!(
            seen.trailers.as_ref().and_then(|trailers| trailers.get("x-sum")).expect("it was sent"),
            "1"
        );
    }
}

#[tokio::test]
async fn a_longer_body_is_streamed_and_not_sent_again() {
    for (length, keep, again) in [
        (64 * 1024, "", true),
        (64 * 1024 + 1, "", false),
        (100, "keep_body: 100B", true),
        (101, "keep_body: 100B", false),
        (1, "keep_body: 0", false),
    ] {
        let busy = Origin::status(503).await;
        let well = Origin::text("well").await;
        let gateway = Gateway::start(&service(&[busy.url(), well.url()], keep));
        let client = Client::new(gateway.http());
        let mut statuses = Vec::new();
        for _ in 0..2 {
            statuses.push(client.send(Method::PUT, "/", Bytes::from(vec![b'x'; length])).await.status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, if again { [200, 200] } else { [200, 503] }, "{length} {keep}");
        assert!(well.seen().iter().all(|seen| seen.body.len() == length));
    }
}

/// However much it is, and whatever of it was kept at first.
#[tokio::test]
async fn a_body_of_unknown_length_is_kept_until_it_is_too_long() {
    let origin = Origin::text("well").await;
    let gateway = Gateway::start(&service(&[origin.url()], "keep_body: 1KiB"));
    let mut client = TcpStream::connect(gateway.http()).await.expect("it listens");
    let head = b"PUT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head).await.expect("it reads");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    for _ in 0..2000 {
        client.write_all(chunk.as_bytes()).await.expect("it reads");
    }
    client.write_all(b"0\r\n\r\n").await.expect("it reads");
    let reply = read_until_close(&mut client).await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert_eq!(origin.only().body.len(), 2000 * 1024);
}

/// The methods say what may be sent twice; a POST that is among them is.
#[tokio::test]
async fn a_post_is_sent_again_only_where_that_is_written() {
    for (methods, again) in [("", false), ("methods: [POST]", true)] {
        let busy = Origin::status(503).await;
        let well = Origin::text("well").await;
        let gateway = Gateway::start(&service(&[busy.url(), well.url()], methods));
        let client = Client::new(gateway.http());
        let mut statuses = [client.post("/", "body").await.status, client.post("/", "body").await.status];
        statuses.sort_unstable();
        assert_eq!(statuses, if again { [200, 200] } else { [200, 503] }, "{methods}");
    }
}
