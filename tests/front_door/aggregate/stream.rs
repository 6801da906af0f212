//! Parts that go out as they come: what a client has before the last of them is there, what it is told of failures, and what
//! waits at the services meanwhile.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::without_times;
use crate::support::origin::Seen;
use crate::support::raw::{RawOrigin, read_head, read_until};
use crate::support::{Client, Gateway, Origin, eventually, origin};

const KIB: usize = 1024;

/// A gateway whose route `/all` streams these parts.
fn gateway(origin: &str, stream: &str, parts: &str) -> Gateway {
    let one = format!("timeout: 60s, stream: {stream}, parts: {{ {parts} }}");
    of(origin, &one)
}

fn of(origin: &str, aggregate: &str) -> Gateway {
    Gateway::start(&format!(
        "workers: 1\nservices: {{ parts: {{ instances: [\"{origin}\"], retries: {{ attempts: 0 }}, \
         circuit_breaker: {{ consecutive_failures: 1000000, failure_ratio: off }} }} }}\n\
         routes:\n- name: all\n  match: {{ path: \"/all/{{id}}\" }}\n  aggregate: {{ {aggregate} }}\n"
    ))
}

/// Sends a `GET` with these lines behind the first, and reads the head of the answer.
async fn ask(gateway: &Gateway, version: &str, lines: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(gateway.http()).await.expect("the gateway listens");
    let request = format!("GET /all/1 {version}\r\nhost: a.example\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.expect("the gateway reads");
    let head = read_head(&mut stream).await.to_ascii_lowercase();
    (stream, head)
}

/// Answers each target when the test has opened its gate, and `/big/<n>` with an array of that length.
struct Gated {
    gates: Arc<Gates>,
}

type Gates = dyn Fn(&str) -> Arc<Semaphore> + Send + Sync;

impl Gated {
    fn new(targets: &'static [&'static str]) -> Self {
        let all: Vec<Arc<Semaphore>> = targets.iter().map(|_| Arc::new(Semaphore::new(0))).collect();
        let free = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let of = move |target: &str| {
            let place = targets.iter().position(|known| *known == target);
            place.map_or_else(|| free.clone(), |place| all[place].clone())
        };
        Gated { gates: Arc::new(of) }
    }

    async fn origin(&self) -> Origin {
        let gates = self.gates.clone();
        Origin::start_slow(move |seen: Seen| {
            let gate = gates(&seen.target);
            async move {
                gate.acquire().await.expect("it is never closed").forget();
                let target = seen.target.trim_start_matches('/');
                match target.strip_prefix("status/").and_then(|status| status.parse().ok()) {
                    Some(status) => origin::status(status),
                    None => origin::json(format!("{{\n\"{target}\": 1.0}}")),
                }
            }
        })
        .await
    }

    fn open(&self, target: &str) {
        (self.gates)(target).add_permits(1);
    }
}

/// An array of zeros with this many bytes, and spaces in it.
fn large(bytes: usize) -> String {
    let text = format!("[0{}]", ", 0".repeat(bytes / 3));
    assert!(text.len() >= bytes);
    text
}

#[tokio::test]
async fn each_part_goes_out_when_those_before_it_have() {
    let gated = Gated::new(&["/b", "/c"]);
    let origin = gated.origin().await;
    let parts = "a: { service: parts, path: /a }, b: { service: parts, path: /b }, \
                 c: { service: parts, path: /c }, d: { static: [4] }";
    let gateway = gateway(&origin.url(), "true", parts);
    let (mut stream, head) = ask(&gateway, "HTTP/1.1", "connection: close\r\n").await;
    for wanted in
        ["200 ok", "transfer-encoding: chunked", "cache-control: no-store", "content-type: application/json"]
    {
        assert!(head.contains(wanted), "{head}");
    }
    // The third is there before the second, and waits for it.
    read_until(&mut stream, "{\"a\":{\n\"a\": 1.0}").await;
    gated.open("/c");
    gated.open("/b");
    read_until(&mut stream, ",\"b\":{\n\"b\": 1.0}").await;
    read_until(&mut stream, ",\"c\":{\n\"c\": 1.0}").await;
    read_until(&mut stream, "0\r\n\r\n").await;
    let entry = gateway.log_entry(|entry| entry["route"] == "all");
    assert_eq!(entry["attempts"], 3, "{entry}");
    assert!(entry["parts"]["a"].is_number() || entry["timings"]["a"].is_number(), "{entry}");
}

#[tokio::test]
async fn the_document_is_the_one_that_would_have_gone_out_whole() {
    let gated = Gated::new(&[]);
    let origin = gated.origin().await;
    let rest = "parts: { user: { service: parts, path: /user, required: true }, \
                near: { service: parts, path: /near, select: \"$['near']\", wrap: w }, \
                lost: { service: parts, path: /status/404, fallback: { none: ~ } }, \
                text: { service: parts, path: /text, as: text }, \
                one: { service: parts, path: /one, allow: [one] }, \
                secret: { service: parts, path: \"/x-{user.user}\", hidden: true }, \
                other: { service: parts, path: /status/500, fallback: { part: spare } }, \
                spare: { service: parts, path: /spare, hidden: true }, \
                rows: { service: parts, path: \"/row-{item}\", for_each: \"$.near[*]\" } }";
    let whole = of(&origin.url(), rest);
    let wanted = Client::new(whole.http()).get("/all/1").await;
    let streamed = of(&origin.url(), &format!("stream: true, {rest}"));
    for client in [Client::new(streamed.http()), Client::new(streamed.http()).http2()] {
        let reply = client.get("/all/1").await;
        assert_eq!((reply.status, without_times(&reply)), (200, without_times(&wanted)));
        assert_eq!(reply.header("vary"), Some("accept"));
        assert_eq!((reply.header("gatehouse-missing-parts"), &reply.trailers), (None, &None));
    }
    let head = Client::new(streamed.http()).send(Method::HEAD, "/all/1", Bytes::new()).await;
    assert_eq!((head.status, head.text().as_str()), (200, ""));
}

/// The beginning of a string with this many bytes, in a response that announces `length`.
fn beginning(length: usize, bytes: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n\"");
    let mut all = head.into_bytes();
    all.resize(all.len() + bytes - 1, b'x');
    all
}

#[tokio::test]
async fn what_is_not_yet_due_stays_with_its_instance() {
    const LENGTH: usize = 24 * KIB * KIB;
    let (sent, stalled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, flag) = (sent.clone(), stalled.clone());
    let big = RawOrigin::start(move |mut stream, _| {
        let (sent, stalled) = (count.clone(), flag.clone());
        async move {
            read_head(&mut stream).await;
            stream.write_all(&beginning(LENGTH, 2)).await.expect("the gateway reads the beginning");
            let mut left = LENGTH - 3;
            while left > 0 {
                let piece = vec![b'x'; left.min(64 * KIB)];
                let mut write = std::pin::pin!(stream.write_all(&piece));
                if tokio::time::timeout(Duration::from_millis(200), &mut write).await.is_err() {
                    stalled.store(true, Ordering::SeqCst);
                    let _ = write.await;
                }
                left -= piece.len();
                sent.fetch_add(piece.len(), Ordering::SeqCst);
            }
            stalled.store(true, Ordering::SeqCst);
            let _ = stream.write_all(b"\"").await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let gated = Gated::new(&["/first"]);
    let origin = gated.origin().await;
    let gateway = Gateway::start(&format!(
        "services: {{ parts: {{ instances: [\"{}\"] }}, big: {{ instances: [\"{}\"] }} }}\n\
         routes:\n- name: all\n  match: {{ path: \"/all/{{id}}\" }}\n  aggregate: {{ timeout: 60s, stream: true, \
         parts: {{ first: {{ service: parts, path: /first }}, big: {{ service: big, path: /, required: true }} }} }}\n",
        origin.url(),
        big.url()
    ));
    let (mut stream, head) = ask(&gateway, "HTTP/1.0", "").await;
    assert!(head.contains("200 ok"), "{head}");
    eventually("the instance can't send more", || async { stalled.load(Ordering::SeqCst).then_some(()) })
        .await;
    let before = sent.load(Ordering::SeqCst);
    assert!(before < LENGTH - KIB * KIB, "{before} bytes have been taken before anybody wants them");
    gated.open("/first");
    let mut body = Vec::new();
    stream.read_to_end(&mut body).await.expect("all of it comes");
    let wanted = "{\"first\":{\n\"first\": 1.0},\"big\":\"";
    assert_eq!((body.len(), body.starts_with(wanted.as_bytes())), (wanted.len() + LENGTH, true));
    assert!(body.ends_with(b"x\"}"), "it has its end");
}

/// An origin whose answer to everything is `bytes`; then it closes, when the test lets it.
async fn ending(bytes: Vec<u8>, end: Arc<Semaphore>) -> RawOrigin {
    let bytes = Arc::new(bytes);
    RawOrigin::start(move |mut stream, _| {
        let (bytes, end) = (bytes.clone(), end.clone());
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(&bytes).await;
            let _ = end.acquire().await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

fn open() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))
}

/// A response in one chunk.
fn chunked(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
}

#[tokio::test]
async fn what_fails_before_its_first_byte_has_its_stand_in() {
    let long = large(100 * KIB);
    for (answer, limit, reason) in [
        (beginning(100, 50), "", "upstream_reset"),
        (beginning(10_000_000, 1000), ", max_body: 1MiB", "part_too_large"),
        (chunked(&format!("{}]", large(1000))), "", "part_not_json"),
        (chunked(&long), ", max_body: 50KiB", "part_too_large"),
    ] {
        let origin = ending(answer, open()).await;
        let part = format!("service: parts, path: /{limit}");
        let optional =
            gateway(&origin.url(), "true", &format!("a: {{ {part}, fallback: [] }}, b: {{ static: 1 }}"));
        let reply = Client::new(optional.http()).get("/all/1").await;
        assert_eq!(reply.status, 200, "{reason}");
        let wanted =
            format!(r#"{{"a":[],"b":1,"_errors":[{{"part":"a","reason":"{reason}","status":502}}]}}"#);
        assert_eq!(without_times(&reply), wanted);
    }
}

#[tokio::test]
async fn what_breaks_off_while_it_waits_has_its_stand_in() {
    let end = Arc::new(Semaphore::new(0));
    let (lets, ended) = (end.clone(), Arc::new(Semaphore::new(0)));
    let tells = ended.clone();
    let breaking = RawOrigin::start(move |mut stream, _| {
        let (end, ended) = (lets.clone(), tells.clone());
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(&beginning(100 * KIB, 64 * KIB)).await;
            end.acquire().await.expect("it is never closed").forget();
            drop(stream);
            ended.add_permits(1);
        }
    })
    .await;
    let gated = Gated::new(&["/first"]);
    let origin = gated.origin().await;
    for (required, lines) in [(false, false), (true, false), (true, true)] {
        let gateway = Gateway::start(&format!(
            "workers: 1\nservices: {{ parts: {{ instances: [\"{}\"] }}, breaks: {{ instances: [\"{}\"], retries: {{ attempts: 0 }} }} }}\n\
             routes:\n- name: all\n  match: {{ path: \"/all/{{id}}\" }}\n  aggregate: {{ timeout: 60s, stream: {}, \
             parts: {{ first: {{ service: parts, path: /first }}, breaks: {{ service: breaks, path: /, {} }} }} }}\n",
            origin.url(),
            breaking.url(),
            if lines { "ndjson" } else { "true" },
            if required { "required: true" } else { "fallback: 7" },
        ));
        let (mut stream, head) = ask(&gateway, "HTTP/1.1", "connection: close\r\n").await;
        assert!(head.contains("200 ok"), "{head}");
        eventually("the part is asked", || async { (breaking.connections() > 0).then_some(()) }).await;
        end.add_permits(1);
        ended.acquire().await.expect("it is never closed").forget();
        // By the time that the gateway has answered another request, it can know.
        assert_eq!(Client::new(gateway.http()).get("/none").await.status, 404);
        gated.open("/first");
        let mut body = Vec::new();
        let _ = stream.read_to_end(&mut body).await;
        let body = String::from_utf8(body).expect("it is text");
        assert_eq!(body.ends_with("0\r\n\r\n"), !required, "{body}");
        match (required, lines) {
            (false, _) => {
                assert!(body.contains(",\"breaks\":7") && body.contains("upstream_reset"), "{body}")
            }
            (true, false) => assert!(!body.contains("breaks"), "{body}"),
            (true, true) => {
                assert!(
                    body.contains("{\"part\":\"breaks\",\"error\":{\"reason\":\"upstream_reset\""),
                    "{body}"
                );
            }
        }
        let entry = gateway.log_entry(|entry| entry["route"] == "all");
        assert_eq!(entry["reason"] == "upstream_reset", required, "{entry}");
    }
}

#[tokio::test]
async fn what_fails_behind_its_first_byte_breaks_the_answer_off() {
    let broken_json = format!("{}]", large(300 * KIB));
    for (answer, limit, reason) in [
        (beginning(300 * KIB, 200 * KIB), "", "upstream_reset"),
        (chunked(&broken_json), "", "part_not_json"),
        (chunked(&large(300 * KIB)), ", max_body: 200KiB", "part_too_large"),
    ] {
        for stream in ["true", "ndjson"] {
            let origin = ending(answer.clone(), open()).await;
            let gateway = gateway(
                &origin.url(),
                stream,
                &format!("a: {{ static: 1 }}, b: {{ service: parts, path: /, fallback: []{limit} }}"),
            );
            for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
                let answer = client.try_send(Method::GET, "/all/1", Bytes::new()).await;
                assert!(answer.is_err(), "{stream} {reason}");
            }
            let entries = || gateway.log_lines();
            let told =
                eventually("both are logged", || async { Some(entries()).filter(|lines| lines.len() == 2) });
            for line in told.await {
                assert!(line.contains(&format!("\"{reason}\"")) && line.contains("\"status\":200"), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_stands_still_ends_with_the_time_of_all() {
    let origin = ending(beginning(200 * KIB, 100 * KIB), Arc::new(Semaphore::new(0))).await;
    let gateway = of(
        &origin.url(),
        "timeout: 1s, stream: true, parts: { a: { service: parts, path: /, required: true } }",
    );
    let answer = Client::new(gateway.http()).try_send(Method::GET, "/all/1", Bytes::new()).await;
    // On a machine that is slow enough the time is over before the beginning is there.
    assert!(answer.is_err() || answer.is_ok_and(|reply| reply.status == 504));
    assert_eq!(gateway.log_entry(|entry| entry["route"] == "all")["reason"], "part_timeout");
}

#[tokio::test]
async fn a_required_part_still_decides_the_status() {
    let gated = Gated::new(&["/never"]);
    let origin = gated.origin().await;
    for (path, status, code) in [
        ("/status/404", 404, "part_not_found"),
        ("/status/500", 502, "part_failed"),
        ("/never", 504, "part_timeout"),
    ] {
        let time = if path == "/never" { "500ms" } else { "60s" };
        for stream in ["true", "ndjson"] {
            let gateway = of(
                &origin.url(),
                &format!(
                    "timeout: {time}, stream: {stream}, parts: {{ a: {{ service: parts, path: /a }}, \
                     b: {{ service: parts, path: {path}, after: [a], required: true }} }}"
                ),
            );
            let reply = Client::new(gateway.http()).get("/all/1").await;
            assert_eq!((reply.status, reply.code().as_str()), (status, code));
        }
    }
}

#[tokio::test]
async fn lines_name_their_parts() {
    let gated = Gated::new(&[]);
    let origin = gated.origin().await;
    let rest = "parts: { a: { service: parts, path: /a }, \"b \\\"\": { service: parts, path: /status/503, fallback: [1] }, \
                c: { static: [3] }, d: { service: parts, path: /status/404, fallback: [4] }, \
                e: { service: parts, path: /status/404, hidden: true }, f: { static: ~ } }, append: { cd: { of: [d, c] } }";
    let wanted = "{\"part\":\"a\",\"body\":{ \"a\": 1.0}}\n\
                  {\"part\":\"b \\\"\",\"error\":{\"reason\":\"part_failed\",\"status\":503},\"body\":[1]}\n\
                  {\"part\":\"cd\",\"body\":[4,3]}\n\
                  {\"part\":\"f\",\"body\":null}\n\
                  {\"part\":\"d\",\"error\":{\"reason\":\"part_not_found\",\"status\":404}}\n\
                  {\"part\":\"e\",\"error\":{\"reason\":\"part_not_found\",\"status\":404}}\n";
    let always = of(&origin.url(), &format!("stream: ndjson, {rest}"));
    let reply = Client::new(always.http()).get("/all/1").await;
    assert_eq!((without_times(&reply).as_str(), reply.header("vary")), (wanted, None));
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));

    let either = of(&origin.url(), &format!("stream: true, {rest}"));
    let reply = Client::new(either.http()).header("accept", "application/x-ndjson").get("/all/1").await;
    assert_eq!((without_times(&reply).as_str(), reply.header("vary")), (wanted, Some("accept")));
    let reply = Client::new(either.http()).header("accept", "*/*").get("/all/1").await;
    assert_eq!((reply.json()["cd"].to_string().as_str(), reply.header("vary")), ("[4,3]", Some("accept")));
}

#[tokio::test]
async fn long_parts_are_one_line_as_well() {
    let text = large(300 * KIB).replace(", ", ",\r\n");
    let origin = ending(chunked(&text), open()).await;
    let gateway = gateway(&origin.url(), "ndjson", "a: { service: parts, path: / }, b: { static: 2 }");
    let reply = Client::new(gateway.http()).get("/all/1").await;
    let body = text.replace(['\r', '\n'], " ");
    assert_eq!(reply.text(), format!("{{\"part\":\"a\",\"body\":{body}}}\n{{\"part\":\"b\",\"body\":2}}\n"));
}

#[tokio::test]
async fn what_is_known_at_the_end_is_told_to_those_who_take_trailers() {
    let gated = Gated::new(&[]);
    let origin = gated.origin().await;
    let gateway = of(
        &origin.url(),
        "stream: true, server_timing: { header: x-times, value: key }, \
         parts: { a: { service: parts, path: /a }, b: { service: parts, path: /status/404 } }",
    );
    for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
        let client = client.header("te", "trailers");
        let reply = client.get("/all/1").await;
        let trailers = reply.trailers.expect("there are trailers");
        assert_eq!(
            (&trailers["gatehouse-missing-parts"], trailers.len()),
            (&"b".parse().expect("a constant"), 1)
        );
        let reply = client.header("x-times", "key").get("/all/1").await;
        let trailers = reply.trailers.expect("there are trailers");
        let times = trailers["server-timing"].to_str().expect("it is text");
        assert!(times.contains("a;dur=") && times.contains("total;dur="), "{times}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_all_calls_with_it() {
    let gated = Gated::new(&["/never"]);
    let origin = gated.origin().await;
    let parts = "a: { service: parts, path: /a }, b: { service: parts, path: /never }";
    let gateway = gateway(&origin.url(), "true", parts);
    let (mut stream, _) = ask(&gateway, "HTTP/1.1", "").await;
    read_until(&mut stream, "1.0}").await;
    eventually("the second is asked", || async { (origin.count() == 2).then_some(()) }).await;
    let open = origin.open_connections();
    drop(stream);
    eventually("its call is cancelled", || async { (origin.open_connections() < open).then_some(()) }).await;
    assert_eq!(gateway.log_entry(|entry| entry["route"] == "all")["reason"], "client_gone");
}

#[tokio::test]
async fn it_is_shown_in_the_status_api() {
    for (stream, shown) in [("true", "json"), ("ndjson", "ndjson")] {
        let gateway = gateway("http://127.0.0.1:9", stream, "a: { static: 1 }");
        assert_eq!(gateway.api("/api/routes").await["routes"][0]["action"]["aggregate"]["stream"], shown);
        let mut check = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        check.args(["check", "--explain", "all", "-c"]).arg(gateway.file("gateway.yaml"));
        let told = String::from_utf8(check.output().expect("it runs").stdout).expect("it is text");
        let wanted = format!("all: an aggregate of 1 parts within 60000ms, streamed as {shown}\n");
        assert!(told.starts_with(&wanted), "{told}");
    }
}
