//! What instances can answer to a check, and what is said about it.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::service::discovered::{Discovered, Publish};
use crate::service::{HttpProbe, Instances, Protocol};

/// An instance whose connections are handled by `serve`.
async fn instance<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Arc<Instance>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let instances = Instances::new(1);
    let authority = "users.internal:8001".into();
    instances.publish(vec![Discovered { address, weight: 1, authority, zone: None, priority: 0 }]);
    instances.current().instances().next().unwrap().clone()
}

/// One that sends these pieces whatever it is asked, and then closes or hangs.
async fn saying(pieces: &'static [&'static [u8]], hangs: bool) -> Arc<Instance> {
    instance(move |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        for piece in pieces {
            let _ = stream.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        if hangs {
            std::future::pending::<()>().await;
        }
    })
    .await
}

fn settings(probe: HealthProbe) -> HealthSettings {
    HealthSettings {
        probe,
        protocol: Protocol::Http1,
        interval: Duration::from_secs(5),
        jitter: 0.1,
        timeout: Duration::from_secs(10),
        healthy_after: 2,
        unhealthy_after: 3,
        panic_threshold: None,
    }
}

fn impatient(probe: HealthProbe) -> HealthSettings {
    HealthSettings { timeout: Duration::from_millis(50), ..settings(probe) }
}

fn http(body: Option<&str>) -> HealthProbe {
    let (status, body) = (vec![200..=299], body.map(str::to_owned));
    HealthProbe::Http(HttpProbe { path: "/health".into(), status, body })
}

fn grpc(service: &str) -> HealthProbe {
    HealthProbe::Grpc { service: service.into() }
}

async fn why(instance: &Instance, settings: &HealthSettings) -> String {
    check(instance, None, settings).await.err().map_or_else(String::new, |error| error.with_causes())
}

#[tokio::test]
async fn the_text_is_found_wherever_the_body_is_cut() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n";
    let probe = settings(http(Some("\"UP\"")));
    for pieces in [
        &[HEAD, b"{\"status\":\"UP\"}"][..],
        &[HEAD, b"{\"status\":\"", b"U", b"P\"", b"}"][..],
        // The rest of the body never comes, and need not.
        &[HEAD, b"\"UP\""][..],
    ] {
        assert_eq!(why(&*saying(pieces, true).await, &probe).await, "");
    }
    let down = saying(&[HEAD, b"{\"status\":\"DN\"}"], false).await;
    assert_eq!(why(&down, &probe).await, "the body does not have the expected text");
    assert_eq!(why(&down, &settings(http(None))).await, "");
    let short = why(&*saying(&[HEAD, b"{\"sta"], false).await, &probe).await;
    assert!(short.starts_with("the body broke off: "), "{short}");
    let hanging = why(&*saying(&[HEAD, b"{\"sta"], true).await, &impatient(http(Some("UP")))).await;
    assert_eq!(hanging, "no answer within 50ms");
    let other = saying(&[b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\n\"UP\""], false).await;
    assert_eq!(why(&other, &probe).await, "status 503");
}

#[tokio::test]
async fn a_body_without_end_is_read_to_its_bound() {
    let endless = instance(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 1000]).await.is_ok() {}
    })
    .await;
    let expected = "the first 64 KiB of the body do not have the expected text";
    assert_eq!(why(&endless, &settings(http(Some("UP")))).await, expected);
}

#[tokio::test]
async fn whatever_is_no_answer_has_its_reason() {
    let silent = saying(&[], true).await;
    for probe in [http(None), http(Some("x")), grpc("")] {
        assert_eq!(why(&silent, &impatient(probe)).await, "no answer within 50ms");
    }
    let closing = saying(&[], false).await;
    let garbage = saying(&[b"SSH-2.0-OpenSSH_9.2\r\n"], false).await;
    let endless_head = saying(&[b"HTTP/1.1 200 OK\r\nx: ", &[b'x'; 20_000]], true).await;
    for instance in [&closing, &garbage, &endless_head] {
        let told = why(instance, &settings(http(None))).await;
        assert!(told.starts_with("no usable answer: ") && told.len() < 120, "{told}");
    }
    let old = saying(&[b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"], false).await;
    for instance in [&closing, &garbage, &old] {
        let told = why(instance, &settings(grpc(""))).await;
        assert!(told.starts_with("no usable answer in HTTP/2: ") && told.len() < 120, "{told}");
    }
    for instance in [&silent, &closing, &garbage] {
        assert_eq!(why(instance, &settings(HealthProbe::Tcp)).await, "", "it accepts connections");
    }
}

#[tokio::test]
async fn nobody_there_is_not_to_be_reached() {
    // Bound, so that nobody else gets the port, but not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let instances = Instances::new(1);
    let (address, authority) = (socket.local_addr().unwrap(), "users".into());
    instances.publish(vec![Discovered { address, weight: 1, authority, zone: None, priority: 0 }]);
    let dead = instances.current().instances().next().unwrap().clone();
    for probe in [HealthProbe::Tcp, http(None), grpc("")] {
        let error = check(&dead, None, &settings(probe)).await.unwrap_err();
        assert!(error.is_unreachable());
        let told = error.with_causes();
        assert!(told.starts_with("cannot connect: "), "{told}");
    }
}

/// How a gRPC server answers.
#[derive(Clone)]
struct Call {
    head: Response<()>,
    message: &'static [u8],
    /// Without, the head is all there is.
    trailers: Option<&'static [(&'static str, &'static str)]>,
}

/// A server that checks what it is asked as a real one would.
async fn grpc_server(call: Call) -> Arc<Instance> {
    instance(move |stream| {
        let call = call.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let call = call.clone();
                tokio::spawn(async move {
                    let (head, mut body) = request.into_parts();
                    assert_eq!(head.uri, "http://users.internal:8001/grpc.health.v1.Health/Check");
                    assert_eq!(
                        (head.method, &head.headers["te"]),
                        (http::Method::POST, &http::HeaderValue::from_static("trailers"))
                    );
                    assert_eq!(head.headers["content-type"], "application/grpc");
                    assert_eq!(head.headers["grpc-timeout"], "10000m");
                    let message = body.data().await.unwrap().unwrap();
                    assert_eq!(&message[..], b"\0\0\0\0\x07\x0a\x05users");
                    let Some(trailers) = call.trailers else {
                        respond.send_response(call.head, true).unwrap();
                        return;
                    };
                    let mut stream = respond.send_response(call.head, false).unwrap();
                    stream.send_data(Bytes::from_static(call.message), trailers.is_empty()).unwrap();
                    if !trailers.is_empty() {
                        let fields = trailers.iter().map(|(name, value)| {
                            (name.parse().unwrap(), http::HeaderValue::from_static(value))
                        });
                        stream.send_trailers(fields.collect()).unwrap();
                    }
                });
            }
        }
    })
    .await
}

fn head(status: u16, fields: &[(&str, &str)]) -> Response<()> {
    let response = Response::builder().status(status);
    fields.iter().fold(response, |response, (name, value)| response.header(*name, *value)).body(()).unwrap()
}

const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";
const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
const OK: Option<&[(&str, &str)]> = Some(&[("grpc-status", "0")]);

#[tokio::test]
async fn only_one_that_says_that_it_serves_is_well() {
    let answer = |message, trailers| Call { head: head(200, &[GRPC]), message, trailers };
    let only_head = |head| Call { head, message: b"", trailers: None };
    for (call, expected) in [
        (answer(SERVING, OK), ""),
        (answer(b"\0\0\0\0\x02\x08\x02", OK), "it says NOT_SERVING"),
        (answer(b"\0\0\0\0\0", OK), "it says UNKNOWN"),
        (answer(b"\0\0\0\0\x02\x08\x03", OK), "it says SERVICE_UNKNOWN"),
        (answer(b"", OK), "its answer is not a HealthCheckResponse"),
        (answer(&[b'x'; 5000], OK), "its answer is not a HealthCheckResponse"),
        (answer(SERVING, Some(&[])), "its answer has no grpc-status"),
        (
            answer(SERVING, Some(&[("grpc-status", "14"), ("grpc-message", "later")])),
            "the call failed: UNAVAILABLE (later)",
        ),
        (
            only_head(head(200, &[GRPC, ("grpc-status", "12")])),
            "it has no gRPC health service (UNIMPLEMENTED)",
        ),
        (
            only_head(head(200, &[GRPC, ("grpc-status", "5")])),
            "its health service does not know this service (NOT_FOUND)",
        ),
        (only_head(head(200, &[GRPC])), "its answer has no grpc-status"),
        (only_head(head(404, &[])), "it does not speak gRPC: its answer has status 404"),
        (
            only_head(head(200, &[("content-type", "text/html")])),
            "it does not speak gRPC: its answer has content-type \"text/html\"",
        ),
    ] {
        assert_eq!(why(&*grpc_server(call).await, &settings(grpc("users"))).await, expected);
    }
}
