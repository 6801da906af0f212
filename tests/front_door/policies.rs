//! CORS, size limits, header changes and defaults.

mod cors;
mod ip_filter;
mod maintenance;
mod method_override;
mod order;
mod security_headers;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Client, Gateway, Origin, raw};

fn forwarding(origin: &Origin, defaults: &str, more: &str) -> String {
    format!(
        "{defaults}\nservices: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}{more}, forward: {{ service: all }} }}]\n",
        origin.url()
    )
}

#[tokio::test]
async fn a_declared_body_is_refused_before_it_is_read() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&forwarding(&origin, "defaults: { max_body: 10B }", ""));
    for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
        assert_eq!(client.post("/", vec![b'x'; 10]).await.status, 200);
        let reply = client.post("/", vec![b'x'; 11]).await;
        assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"));
    }
    assert_eq!(origin.count(), 2, "nothing of it came through");
    // Nobody sends a byte of the body: the answer is there all the same.
    let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let answer = raw::read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_chunked_body_is_refused_once_it_is_too_long() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&forwarding(&origin, "defaults: { max_body: 10B }", ""));
    let send = async |chunks: &str| {
        let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        raw::exchange(gateway.http(), format!("{head}{chunks}")).await
    };
    let answer = send("5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(origin.only().body, "helloworld");
    let answer = send("5\r\nhello\r\n6\r\nworlds\r\n0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"), "{answer}");
    assert_eq!(origin.count(), 1, "the service never saw a whole request");
    let entry = gateway.log_entry(|entry| entry["status"] == 413);
    assert_eq!(entry["reason"], "body_too_large");
}

#[tokio::test]
async fn the_routes_own_limit_takes_the_place_of_the_default() {
    let origin = Origin::text("ok").await;
    for (route, size, status) in [(", max_body: 20B", 15, 200), (", max_body: 5B", 6, 413), ("", 11, 413)] {
        let gateway = Gateway::start(&forwarding(&origin, "defaults: { max_body: 10B }", route));
        assert_eq!(Client::new(gateway.http()).post("/", vec![b'x'; size]).await.status, status, "{route}");
    }
}

#[tokio::test]
async fn request_fields_are_changed_last() {
    let origin = Origin::text("ok").await;
    let edit = ", request_headers: { set: { x-from: gateway, authorization: Bearer inner }, remove: [x-internal, cookie] }";
    let gateway = Gateway::start(&forwarding(&origin, "", edit));
    let client = Client::new(gateway.http())
        .header("x-from", "client")
        .header("X-From", "again")
        .header("x-internal", "1")
        .header("x-internal", "2")
        .header("cookie", "a=b")
        .header("authorization", "Bearer mine")
        .header("connection", "x-from, authorization");
    assert_eq!(client.get("/").await.status, 200);
    let seen = origin.only();
    let all = |name: &str| seen.headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(all("x-from"), ["gateway"], "no Connection field takes it away");
    assert_eq!(all("authorization"), ["Bearer inner"]);
    assert!(all("x-internal").is_empty() && all("cookie").is_empty(), "{:?}", seen.headers);
}

#[tokio::test]
async fn response_fields_are_changed_on_every_reply() {
    let origin = Origin::start(|_| {
        let response = Response::builder()
            .header("server", "inner/1.0")
            .header("x-powered-by", "php")
            .header("x-frame-options", "none");
        response.body(Full::new(Bytes::from_static(b"ok"))).expect("constants")
    })
    .await;
    let gateway = Gateway::start(&format!(
        "defaults: {{ response_headers: {{ set: {{ x-frame-options: deny, x-a: default }}, remove: [server] }} }}\n\
         services: {{ all: {{ instances: [\"{}\"] }}, none: {{ discovery: {{ registry: {{}} }} }} }}\n\
         registry: {{ bind: \"127.0.0.1:0\" }}\n\
         routes:\n\
         \x20 - {{ name: own, match: {{ path: /own }}, response_headers: {{ set: {{ x-a: own }}, remove: [x-powered-by] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: plain, match: {{ path: /plain }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: none, match: {{ path: /none }}, forward: {{ service: none }} }}\n\
         \x20 - {{ name: text, match: {{ path: /text }}, respond: {{ text: x }} }}\n\
         \x20 - {{ name: moved, match: {{ path: /moved }}, redirect: {{ to: /text }} }}\n",
        origin.url()
    ));
    let client = Client::new(gateway.http());
    for (target, status, own) in [
        ("/own", 200, "own"),
        ("/plain", 200, "default"),
        ("/none", 503, "default"),
        ("/text", 200, "default"),
        ("/moved", 308, "default"),
        ("/nowhere", 404, "default"),
        ("/%00", 400, "default"),
    ] {
        let reply = client.get(target).await;
        assert_eq!(reply.status, status, "{target}");
        assert_eq!(reply.header("x-frame-options"), Some("deny"), "{target}");
        assert_eq!(reply.header("x-a"), Some(own), "{target}");
        assert_eq!(reply.header("server"), None, "{target}");
        assert_eq!(reply.header("x-powered-by").is_some(), target == "/plain", "{target}");
        assert!(reply.header("x-request-id").is_some(), "{target}");
    }
}
