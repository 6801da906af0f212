//! gRPC from an HTTP/2 client to an instance: unary calls, streams, and calls that fail at once.

use bytes::Bytes;
use h2::server::Builder;
use http::{HeaderMap, HeaderValue, Request, Response};

use super::to;
use crate::support::PATIENCE;
use crate::support::h2::H2;
use crate::support::h2_origin::{Asked, H2Origin, send};

fn grpc_head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).expect("constants")
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers
}

/// Sends every message back as it comes; `/refused` is answered with a head alone.
async fn server() -> H2Origin {
    H2Origin::start(Builder::new(), |mut asked: Asked| async move {
        assert_eq!(asked.head.headers["te"], "trailers");
        assert_eq!(asked.head.headers["content-type"], "application/grpc");
        assert_eq!(asked.head.headers["grpc-timeout"], "5S");
        if asked.head.uri.path() == "/refused" {
            let mut head = grpc_head();
            head.headers_mut().extend(status("7"));
            let _ = asked.respond.send_response(head, true);
            return;
        }
        let Ok(mut stream) = asked.respond.send_response(grpc_head(), false) else { return };
        while let Some(Ok(data)) = asked.body.data().await {
            let _ = asked.body.flow_control().release_capacity(data.len());
            send(&mut stream, data, false).await;
        }
        let sum = asked.body.trailers().await.ok().flatten().and_then(|all| all.get("x-sum").cloned());
        let mut trailers = status("0");
        trailers.extend(sum.map(|sum| (http::HeaderName::from_static("x-sum"), sum)));
        let _ = stream.send_trailers(trailers);
    })
    .await
}

fn call(path: &str) -> Request<()> {
    Request::post(format!("http://a{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "5S")
        .body(())
        .expect("a plain request")
}

#[tokio::test]
async fn a_unary_call_has_its_message_and_its_trailers() {
    let origin = server().await;
    let gateway = to(&[origin.url()], "");
    let client = H2::connect(gateway.http()).await;
    let (response, mut body) =
        client.ready().await.send_request(call("/users.v1.Users/Get"), false).expect("open");
    body.send_data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"), true).expect("open");
    let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut body = response.into_body();
    assert_eq!(body.data().await.expect("a message").expect("whole"), &b"\0\0\0\0\x02\x08\x01"[..]);
    assert!(body.data().await.is_none());
    let trailers = body.trailers().await.expect("whole").expect("there are some");
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn a_call_may_be_a_conversation() {
    let origin = server().await;
    let gateway = to(&[origin.url()], "");
    let client = H2::connect(gateway.http()).await;
    let (response, mut sending) = client.ready().await.send_request(call("/chat"), false).expect("open");
    sending.send_data(Bytes::from_static(b"first"), false).expect("open");
    let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
    let mut receiving = response.into_body();
    for message in ["first", "second", "third"] {
        if message != "first" {
            sending.send_data(Bytes::from(message), false).expect("open");
        }
        let data = tokio::time::timeout(PATIENCE, receiving.data()).await.expect("in time");
        let data = data.expect("a message").expect("whole");
        let _ = receiving.flow_control().release_capacity(data.len());
        assert_eq!(data, message);
    }
    let mut sum = HeaderMap::new();
    sum.insert("x-sum", HeaderValue::from_static("3"));
    sending.send_trailers(sum).expect("open");
    assert!(tokio::time::timeout(PATIENCE, receiving.data()).await.expect("in time").is_none());
    let trailers = receiving.trailers().await.expect("whole").expect("there are some");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-sum"]),
        (&"0".parse().unwrap(), &"3".parse().unwrap())
    );
}

#[tokio::test]
async fn a_call_that_fails_at_once_has_its_status_in_the_head() {
    let origin = server().await;
    let gateway = to(&[origin.url()], "");
    let client = H2::connect(gateway.http()).await;
    let (response, mut body) = client.ready().await.send_request(call("/refused"), false).expect("open");
    body.send_data(Bytes::from_static(b"\0\0\0\0\0"), true).expect("open");
    let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"7".parse().unwrap())
    );
    assert!(response.into_body().is_end_stream());
}
