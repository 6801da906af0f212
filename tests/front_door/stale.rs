//! `stale_if_error`: the last good answer where there would be an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use tokio::io::AsyncWriteExt;

use crate::support::raw::{RawOrigin, read_until};
use crate::support::tokens::{SECRET, authenticator, hs256};
use crate::support::{Client, Gateway, Origin, Reply, eventually, one_service};

const NO_BREAKER: &str = "circuit_breaker: { consecutive_failures: 1000000, failure_ratio: off }";

/// One service `users`, and a route for all paths that keeps its answers.
fn keeping(instances: &[String], settings: &str, stale: &str) -> String {
    one_service(instances, settings).replace(
        "forward: { service: users }",
        &format!("forward: {{ service: users, stale_if_error: {stale} }}"),
    )
}

/// An origin that answers with the number of the request, and with a field of the test's, until it is told another status.
async fn numbering(field: (&'static str, &'static str)) -> (Origin, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let (current, count) = (status.clone(), AtomicUsize::new(0));
    let origin = Origin::start(move |seen| {
        let number = count.fetch_add(1, SeqCst) + 1;
        let response = Response::builder().status(current.load(SeqCst)).header(field.0, field.1);
        response.body(Full::from(format!("{} {number}", seen.target))).expect("constants")
    })
    .await;
    (origin, status)
}

async fn killed(origin: &Origin) {
    origin.kill();
    eventually("the port is closed", || async {
        tokio::net::TcpStream::connect(origin.address).await.is_err().then_some(())
    })
    .await;
}

fn age(reply: &Reply) -> u64 {
    reply.header("age").and_then(|age| age.parse().ok()).expect("it has an age")
}

#[tokio::test]
async fn the_last_good_answer_is_given_when_nobody_answers() {
    let (origin, _) = numbering(("x-own", "kept")).await;
    let gateway = Gateway::start(&keeping(&[origin.url()], "", "10m"));
    for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
        client.get("/a?b=1").await;
    }
    let last = Client::new(gateway.http()).get("/a?b=1").await;
    assert_eq!((last.text().as_str(), last.header("age")), ("/a?b=1 3", None));
    killed(&origin).await;
    for (worker_or_protocol, client) in
        [Client::new(gateway.http()), Client::new(gateway.http()), Client::new(gateway.http()).http2()]
            .into_iter()
            .enumerate()
    {
        let stale = client.get("/a?b=1").await;
        assert_eq!((stale.status, stale.text().as_str()), (200, "/a?b=1 3"), "{worker_or_protocol}");
        assert_eq!((stale.header("x-own"), stale.header("content-length")), (Some("kept"), Some("8")));
        assert!(age(&stale) < 30);
        let told = stale.header("cache-status").expect("it says so");
        assert!(told.starts_with("gatehouse; hit; ttl="), "{told}");
        assert!(
            told.ends_with("; detail=connect_failure") || told.ends_with("; detail=circuit_open"),
            "{told}"
        );
        let proxy = stale.header("proxy-status").expect("and why");
        assert!(proxy.starts_with("gatehouse; error="), "{proxy}");
        let head = client.send(Method::HEAD, "/a?b=1", Bytes::new()).await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("8"), 0));
    }
    for other in ["/a", "/a?b=2", "/b?b=1"] {
        assert_eq!(Client::new(gateway.http()).get(other).await.status / 100, 5, "{other}");
    }
    assert_eq!(Client::new(gateway.http()).host("other.example").get("/a?b=1").await.status / 100, 5);
    assert_eq!(Client::new(gateway.http()).post("/a?b=1", "").await.status / 100, 5);
    let entry = gateway.log_entry(|entry| entry["reason"] == "stale_if_error");
    assert_eq!((&entry["status"], &entry["service"]), (&200.into(), &"users".into()));
    assert_eq!(gateway.metric("gatehouse_stale_responses_total", &["service=\"users\""]).await, 6.0);
    assert_eq!(gateway.metric("http_errors_total", &["reason=\"stale_if_error\""]).await, 6.0);
    assert_eq!(gateway.metric("gatehouse_stale_answers", &["route=\"all\""]).await, 1.0);
    let kept = gateway.service("users").await["stale"][0].clone();
    assert_eq!(
        (&kept["route"], &kept["answers"], &kept["max_bytes"]),
        (&"all".into(), &1.into(), &16777216.into())
    );
    assert_eq!(
        gateway.api("/api/routes").await["routes"][0]["action"]["forward"]["stale_if_error_ms"],
        600_000
    );
}

#[tokio::test]
async fn an_answer_that_counts_as_a_failure_is_replaced_and_no_other() {
    let (origin, status) = numbering(("cache-control", "max-age=0")).await;
    let gateway = Gateway::start(&keeping(
        &[origin.url()],
        &format!("retries: {{ attempts: 0 }}, {NO_BREAKER}"),
        "10m",
    ));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.text(), "/ 1");
    status.store(503, SeqCst);
    let stale = client.get("/").await;
    assert_eq!((stale.status, stale.text().as_str()), (200, "/ 1"));
    let told = stale.header("cache-status").expect("it says so");
    assert!(told.starts_with("gatehouse; fwd=stale; fwd-status=503; ttl="), "{told}");
    assert_eq!(stale.header("proxy-status"), Some("gatehouse; received-status=503"));
    // The service's own word, as far as `failures` goes.
    for own in [500, 403] {
        status.store(own, SeqCst);
        assert_eq!(client.get("/").await.status, own);
    }
    // What is gone isn't given any more.
    status.store(404, SeqCst);
    assert_eq!(client.get("/").await.status, 404);
    status.store(503, SeqCst);
    assert_eq!(client.get("/").await.status, 503);
    // Nor what has been changed.
    status.store(200, SeqCst);
    let good = client.get("/").await;
    assert_eq!((good.status, good.header("cache-status")), (200, None));
    assert_eq!(client.post("/", "").await.status, 200);
    status.store(503, SeqCst);
    assert_eq!(client.get("/").await.status, 503);
}

#[tokio::test]
async fn every_error_of_the_gateways_own_counts_and_the_fallback_comes_after() {
    let hang = Arc::new(AtomicU16::new(0));
    let hanging = hang.clone();
    let origin = Origin::start_slow(move |_| {
        let hanging = hanging.clone();
        async move {
            if hanging.load(SeqCst) == 1 {
                std::future::pending::<()>().await;
            }
            Response::new(Full::from("good"))
        }
    })
    .await;
    let gateway = Gateway::start(&keeping(
        &[origin.url()],
        "timeouts: { response: 200ms }, retries: { attempts: 0 }, fallback: { status: 200, text: instead }, \
         circuit_breaker: { consecutive_failures: 2, open_for: 60s }",
        "10m",
    ));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/kept").await.text(), "good");
    hang.store(1, SeqCst);
    for cause in ["response_timeout", "response_timeout", "circuit_open"] {
        let stale = client.get("/kept").await;
        assert_eq!(stale.text(), "good", "{cause}");
        assert!(stale.header("cache-status").is_some_and(|told| told.ends_with(cause)), "{cause}");
    }
    let instead = client.get("/not-kept").await;
    assert_eq!((instead.text().as_str(), instead.header("cache-status")), ("instead", None));
}

/// What one client may see is not given to another.
#[tokio::test]
async fn nothing_of_one_client_goes_to_another() {
    for (headers, field, others) in [
        (("authorization", "Bearer a"), ("x-a", "b"), 503),
        (("authorization", "Bearer a"), ("cache-control", "public"), 200),
        (("cookie", "session=1"), ("x-a", "b"), 503),
        (("cookie", "session=1"), ("vary", "cookie"), 503),
        (("x-plain", "1"), ("x-a", "b"), 200),
        (("x-plain", "1"), ("vary", "x-plain"), 503),
        (("x-plain", "1"), ("set-cookie", "session=2"), 503),
        (("x-plain", "1"), ("cache-control", "private"), 503),
        (("x-plain", "1"), ("cache-control", "no-store"), 503),
    ] {
        let (origin, status) = numbering(field).await;
        let gateway = Gateway::start(&keeping(
            &[origin.url()],
            &format!("retries: {{ attempts: 0 }}, {NO_BREAKER}"),
            "10m",
        ));
        let client = Client::new(gateway.http());
        assert_eq!(client.clone().header(headers.0, headers.1).get("/").await.status, 200);
        status.store(503, SeqCst);
        assert_eq!(client.get("/").await.status, others, "{headers:?} {field:?}");
    }
}

#[tokio::test]
async fn a_token_says_who_one_is_wherever_it_stands() {
    let (origin, status) = numbering(("vary", "cookie")).await;
    let config = keeping(&[origin.url()], &format!("retries: {{ attempts: 0 }}, {NO_BREAKER}"), "10m")
        .replace("match: { prefix: / }", "match: { prefix: / }, authenticate: { with: [shop] }");
    let keys = format!("token_from: [{{ cookie: token }}]\nkeys: [{{ secret: \"{SECRET}\" }}]");
    let gateway = Gateway::start(&format!("{}{config}", authenticator("HS256", &keys)));
    let client = |subject: &str| {
        let token = hs256(serde_json::json!({ "sub": subject }));
        Client::new(gateway.http()).header("cookie", &format!("token={token}"))
    };
    assert_eq!(client("one").get("/").await.status, 200);
    status.store(503, SeqCst);
    for subject in ["one", "other"] {
        assert_eq!(client(subject).get("/").await.status, 503, "{subject}");
    }
    assert_eq!(Client::new(gateway.http()).get("/").await.status, 401);
}

#[tokio::test]
async fn variants_are_kept_beside_each_other() {
    let status = Arc::new(AtomicU16::new(200));
    let current = status.clone();
    let origin = Origin::start(move |seen| {
        let language = seen.header("accept-language").unwrap_or("none").to_owned();
        let response = Response::builder().status(current.load(SeqCst)).header("vary", "Accept-Language");
        response.body(Full::from(language)).expect("constants")
    })
    .await;
    let gateway = Gateway::start(&keeping(&[origin.url()], NO_BREAKER, "{ for: 10m, max_size: 1MiB }"));
    let get = async |language| Client::new(gateway.http()).header("accept-language", language).get("/").await;
    for language in ["de", "en"] {
        assert_eq!(get(language).await.text(), language);
    }
    status.store(502, SeqCst);
    for language in ["de", "en"] {
        assert_eq!(get(language).await.text(), language);
    }
    assert_eq!(get("fr").await.status, 502);
}

#[tokio::test]
async fn it_lives_on_over_reloads_but_not_as_another_services() {
    let (origin, _) = numbering(("x-a", "b")).await;
    let with = |settings: &str, stale: &str| keeping(&[origin.url()], settings, stale);
    let gateway = Gateway::start(&with("", "10m"));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.text(), "/ 1");
    killed(&origin).await;
    gateway.reconfigure(&with("retries: { attempts: 0 }", "10m")).await;
    assert_eq!(client.get("/").await.text(), "/ 1");
    gateway.reconfigure(&with("", "{ for: 5m, max_size: 1MiB }")).await;
    assert_eq!(client.get("/").await.text(), "/ 1");
    assert_eq!(gateway.service("users").await["stale"][0]["max_bytes"], 1 << 20);
    gateway.reconfigure(&with("", "10m").replace("service: users,", "service: users, host: instance,")).await;
    assert_eq!(client.get("/").await.status / 100, 5);
}

/// The client has the beginning of a body before the end has come, and an answer that breaks off is none.
#[tokio::test]
async fn a_body_streams_while_it_is_copied_and_counts_only_when_it_is_whole() {
    let (go, wait) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (permits, turns) = (go.clone(), wait.clone());
    let origin = RawOrigin::start(move |mut stream, _| {
        let (permits, turns) = (permits.clone(), turns.clone());
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let turn = turns.fetch_add(1, SeqCst);
            if turn > 2 {
                return;
            }
            // A length that is told, chunks, and then the end of the connection alone.
            let framing = ["content-length: 10\r\n", "transfer-encoding: chunked\r\n", ""][turn];
            let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let begun: &[u8] = if turn == 1 { b"5\r\nbegun\r\n" } else { b"begun" };
            let _ = stream.write_all(begun).await;
            permits.acquire().await.expect("it is never closed").forget();
            let ended: &[u8] = if turn == 1 { b"5\r\nended\r\n0\r\n\r\n" } else { b"ended" };
            let _ = stream.write_all(ended).await;
        }
    })
    .await;
    let gateway = Gateway::start(&keeping(
        &[origin.url()],
        &format!("retries: {{ attempts: 0 }}, {NO_BREAKER}"),
        "10m",
    ));
    for (path, before) in [("/length", 0), ("/chunks", 1), ("/close", 2)] {
        let mut stream = tokio::net::TcpStream::connect(gateway.http()).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        read_until(&mut stream, "begun").await;
        assert_eq!(gateway.service("users").await["stale"][0]["answers"], before, "{path}");
        go.add_permits(1);
        let rest = read_until(&mut stream, "ended").await;
        assert!(rest.contains("ended"), "{path}: {rest}");
    }
    let client = Client::new(gateway.http()).host("a");
    for (path, kept) in [("/length", true), ("/chunks", true), ("/close", false)] {
        let reply = client.get(path).await;
        assert_eq!(reply.status == 200, kept, "{path}: {}", reply.text());
        assert!(!kept || reply.text() == "begunended");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_too_large_takes_no_good_answers_place() {
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = turn.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let turns = turns.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let answer = match turns.fetch_add(1, SeqCst) {
                0 => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ngood".to_owned(),
                1 => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbad".to_owned(),
                2 => format!("HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n{}", "x".repeat(9000)),
                _ => return,
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let gateway = Gateway::start(&keeping(
        &[origin.url()],
        &format!("retries: {{ attempts: 0 }}, {NO_BREAKER}"),
        "{ for: 10m, max_size: 64KiB }",
    ));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.text(), "good");
    assert!(client.try_send(Method::GET, "/", Bytes::new()).await.is_err(), "it broke off");
    assert_eq!(client.get("/").await.body.len(), 9000, "more than an eighth of what may be kept");
    assert_eq!(client.get("/").await.text(), "good");
    assert_eq!(gateway.service("users").await["stale"][0]["answers"], 1);
}

#[tokio::test]
async fn it_ends_when_its_time_is_over() {
    let (origin, status) = numbering(("x-a", "b")).await;
    let gateway =
        Gateway::start(&keeping(&[origin.url()], &format!("retries: {{ attempts: 0 }}, {NO_BREAKER}"), "1s"));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.status, 200);
    status.store(503, SeqCst);
    eventually("it is too old", || async { (client.get("/").await.status == 503).then_some(()) }).await;
}

/// The bound holds while many clients fetch different things, and each gets what it asked for.
#[tokio::test]
async fn the_store_is_bounded() {
    let origin = Origin::start(|seen| Response::new(Full::from(seen.target.repeat(1000)))).await;
    let gateway = Gateway::start(&keeping(&[origin.url()], NO_BREAKER, "{ for: 10m, max_size: 128KiB }"));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let client = Client::new(gateway.http());
        tasks.spawn(async move {
            for number in 0..50 {
                let path = format!("/{task}/{number}");
                assert_eq!(client.get(&path).await.text(), path.repeat(1000));
            }
        });
    }
    tasks.join_all().await;
    let kept = gateway.service("users").await["stale"][0].clone();
    let bytes = kept["bytes"].as_u64().expect("a number");
    assert!(bytes <= 128 * 1024 && bytes > 32 * 1024, "{kept}");
    killed(&origin).await;
    let client = Client::new(gateway.http());
    let mut found = 0;
    for number in 0..50 {
        let path = format!("/7/{number}");
        let reply = client.get(&path).await;
        if reply.status == 200 {
            assert_eq!(reply.text(), path.repeat(1000));
            found += 1;
        }
    }
    assert!(found > 0);
}

#[tokio::test]
async fn routes_without_it_keep_nothing() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&one_service(&[origin.url()], ""));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.text(), "x");
    assert!(gateway.service("users").await.get("stale").is_none());
    killed(&origin).await;
    assert_eq!(client.get("/").await.status / 100, 5);
}
