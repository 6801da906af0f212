//! HTTP/2 with prior knowledge: streams, trailers, resets, windows, and how a connection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::h2::{H2, get};
use crate::support::raw::{RawOrigin, read_head, read_until};
use crate::support::{Client, Gateway, Origin, PATIENCE, eventually, raw};

fn to(url: &str, limits: &str) -> Gateway {
    Gateway::start(&format!(
        "workers: 1\nlisteners: [{{ name: http, bind: \"127.0.0.1:0\", limits: {{ {limits} }} }}]\n\
         services: {{ s: {{ instances: [\"{url}\"], retries: {{ attempts: 0 }} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}]\n"
    ))
}

#[tokio::test]
async fn many_streams_at_once_share_a_connection() {
    let origin = Origin::start_slow(|seen| async move {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        http::Response::new(http_body_util::Full::from(seen.target))
    })
    .await;
    let gateway = to(&origin.url(), "max_streams: 50");
    let client = Arc::new(H2::connect(gateway.http()).await);
    // From the first answer on, the client knows how many streams it may open.
    client.get("/first").await.expect("an answer");
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..300 {
        let client = client.clone();
        asking.spawn(async move {
            let target = format!("/{number}");
            let (head, body, _) = client.get(&target).await.expect("an answer");
            assert_eq!((head.status.as_u16(), &body[..]), (200, target.as_bytes()));
            assert_eq!(head.headers["content-length"], body.len().to_string());
        });
    }
    while let Some(done) = asking.join_next().await {
        done.expect("every stream is answered");
    }
    assert_eq!(origin.count(), 301);
}

/// More than one turn of the connection can take on: all come at once, wait, and are answered at once.
#[tokio::test]
async fn hundreds_of_streams_wait_and_go_on_together() {
    const STREAMS: usize = 300;
    let (go, gate) = tokio::sync::watch::channel(false);
    let origin = Origin::start_slow(move |seen| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|go| *go).await;
            http::Response::new(http_body_util::Full::from(seen.target))
        }
    })
    .await;
    let gateway = to(&origin.url(), "max_streams: 300");
    let client = H2::connect(gateway.http()).await;
    let mut asked = Vec::new();
    for number in 0..STREAMS {
        let request = get(&format!("/{number}"));
        asked.push(client.ready().await.send_request(request, true).expect("it is open").0);
    }
    eventually("all have come", || async { (origin.count() == STREAMS).then_some(()) }).await;
    go.send(true).expect("the origin waits");
    for (number, response) in asked.into_iter().enumerate() {
        let (head, mut body) = response.await.expect("an answer").into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(body.data().await.expect("some").expect("whole"), format!("/{number}"));
    }
}

#[tokio::test]
async fn bodies_trailers_and_interim_responses_pass() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        assert!(head.contains("\r\nte: trailers\r\n") && head.contains("\r\nvia: 2.0 gatehouse\r\n"), "{head}");
        assert!(head.contains("\r\ncookie: a=1; b=2\r\n") && head.contains("\r\nhost: a\r\n"), "{head}");
        let body = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(body, "5\r\nhello\r\n0\r\nx-check: 9\r\n\r\n");
        let _ = stream
            .write_all(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\
                  Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
            )
            .await;
    })
    .await;
    let gateway = to(&origin.url(), "");
    let client = H2::connect(gateway.http()).await;
    let request = Request::post("http://a/x")
        .header("te", "trailers")
        .header("trailer", "x-check")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .expect("a request");
    let (mut response, mut sending) = client.ready().await.send_request(request, false).expect("it is open");
    sending.send_data(Bytes::from_static(b"hello"), false).expect("it is open");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", "9".parse().expect("a value"));
    sending.send_trailers(trailers).expect("it is open");
    let hints =
        std::future::poll_fn(|cx| response.poll_informational(cx)).await.expect("it comes").expect("whole");
    assert_eq!((hints.status().as_u16(), hints.headers()["link"].as_bytes()), (103, &b"</a.css>"[..]));
    let (head, mut body) = response.await.expect("an answer").into_parts();
    assert_eq!(head.status, 200);
    for name in ["connection", "keep-alive", "transfer-encoding"] {
        assert!(!head.headers.contains_key(name), "{head:?}");
    }
    assert_eq!(body.data().await.expect("some").expect("whole"), "ok");
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.expect("whole").expect("some")["x-sum"], "7");
}

/// A client that reads nothing before it has sent everything must not stand in its own way.
#[tokio::test]
async fn a_request_goes_on_while_nobody_reads_the_response() {
    const SIZE: usize = 4 * 1024 * 1024;
    let (told, mut all_came) = tokio::sync::mpsc::channel(1);
    let origin = RawOrigin::start(move |mut stream, _| {
        let told = told.clone();
        async move {
            read_head(&mut stream).await;
            let (mut reader, mut writer) = stream.split();
            let answer = async {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
                writer.write_all(head.as_bytes()).await.expect("it reads");
                writer.write_all(&vec![b'a'; SIZE]).await.expect("it reads");
            };
            let take = async {
                let mut all = vec![0; SIZE];
                tokio::io::AsyncReadExt::read_exact(&mut reader, &mut all).await.expect("it comes");
                told.send(()).await.expect("the test waits");
            };
            tokio::join!(answer, take);
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    let client = H2::connect(gateway.http()).await;
    let request = Request::post("http://a/x").header("content-length", SIZE).body(()).expect("a request");
    let (response, mut sending) = client.ready().await.send_request(request, false).expect("it is open");
    sending.send_data(Bytes::from(vec![b'q'; SIZE]), true).expect("it is open");
    tokio::time::timeout(PATIENCE, all_came.recv()).await.expect("all of it is passed on");
    let mut body = response.await.expect("an answer").into_body();
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.expect("whole");
        body.flow_control().release_capacity(data.len()).expect("it was received");
        received += data.len();
    }
    assert_eq!(received, SIZE);
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_wanted() {
    let origin = Origin::text("ok").await;
    let gateway = to(&origin.url(), "");
    let client = H2::connect(gateway.http()).await;
    let request = |path: &str| {
        Request::post(format!("http://a{path}")).header("expect", "100-continue").body(()).expect("a request")
    };
    let (mut response, mut sending) = client.ready().await.send_request(request("/x"), false).expect("open");
    let interim =
        std::future::poll_fn(|cx| response.poll_informational(cx)).await.expect("it comes").expect("whole");
    assert_eq!(interim.status(), 100);
    sending.send_data(Bytes::from_static(b"hello"), true).expect("open");
    assert_eq!(response.await.expect("an answer").status(), 200);
    assert_eq!((&origin.only().body[..], origin.only().header("expect")), (&b"hello"[..], None));
    // Refused, it is never asked for.
    let (mut response, _sending) = client.ready().await.send_request(request("/%00"), false).expect("open");
    assert!(std::future::poll_fn(|cx| response.poll_informational(cx)).await.is_none());
    assert_eq!(response.await.expect("an answer").status(), 400);
}

#[tokio::test]
async fn a_reset_stream_cancels_the_upstream_request() {
    for body in ["", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome"] {
        let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let origin = RawOrigin::start(move |mut stream, _| {
            let told = told.clone();
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(body.as_bytes()).await;
                let _ = told.send("began");
                raw::closed(&mut stream).await;
                let _ = told.send("closed");
            }
        })
        .await;
        let gateway = to(&origin.url(), "");
        let client = H2::connect(gateway.http()).await;
        let (response, mut sending) =
            client.ready().await.send_request(get("/left"), true).expect("it is open");
        let mut next = async || tokio::time::timeout(PATIENCE, ends.recv()).await.expect("in time");
        assert_eq!(next().await, Some("began"));
        let held = if body.is_empty() { None } else { Some(response.await.expect("its head has come")) };
        sending.send_reset(h2::Reason::CANCEL);
        assert_eq!(next().await, Some("closed"));
        drop(held);
        let entry = gateway.log_entry(|entry| entry["path"] == "/left");
        assert_eq!((&entry["reason"], &entry["protocol"]), (&"client_gone".into(), &"HTTP/2".into()));
        // The connection goes on.
        assert!(!client.connection.is_finished());
    }
}

#[tokio::test]
async fn resetting_in_a_hurry_ends_the_connection_and_not_the_gateway() {
    let origin = Origin::start_slow(|_| async {
        tokio::time::sleep(std::time::Duration::from_secs(30)).await;
        http::Response::new(http_body_util::Full::from("late"))
    })
    .await;
    let gateway = to(&origin.url(), "");
    let client = H2::connect(gateway.http()).await;
    for _ in 0..20_000 {
        let Ok(mut sender) = client.sender.clone().ready().await else { break };
        let Ok((_, mut sending)) = sender.send_request(get("/r"), true) else { break };
        sending.send_reset(h2::Reason::CANCEL);
    }
    eventually("no request is left", || async {
        (gateway.metric("http_requests_active", &[]).await == 0.0).then_some(())
    })
    .await;
    assert_eq!(Client::new(gateway.http()).get("/%00").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_no_faster_than_its_window() {
    const BIG: u64 = 64 * 1024 * 1024;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let origin = RawOrigin::start(move |mut stream, _| {
        let counter = counter.clone();
        async move {
            let head = read_head(&mut stream).await;
            let length = if head.starts_with("GET /small") { 5 } else { BIG };
            let _ = stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())
                .await;
            if length == 5 {
                let _ = stream.write_all(b"small").await;
                return;
            }
            let block = vec![b'x'; 64 * 1024];
            while counter.load(Relaxed) < BIG && stream.write_all(&block).await.is_ok() {
                counter.fetch_add(block.len() as u64, Relaxed);
            }
        }
    })
    .await;
    let gateway = to(&origin.url(), "");
    // Room for other streams when one has used up its own.
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(64 * 1024).initial_connection_window_size(1024 * 1024);
    let stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    let client = H2::over(stream, builder).await;
    let (response, _) = client.ready().await.send_request(get("/big"), true).expect("it is open");
    let (_, mut body) = response.await.expect("its head").into_parts();
    let mut last = (0, 0);
    eventually("the origin stops", || {
        let now = sent.load(Relaxed);
        last = if now == last.0 && now > 0 { (now, last.1 + 1) } else { (now, 0) };
        let done = (last.1 == 30).then_some(());
        async move { done }
    })
    .await;
    assert!(sent.load(Relaxed) < BIG / 2, "{} bytes for a closed window", sent.load(Relaxed));
    // It holds nobody else up.
    assert_eq!(client.get("/small").await.expect("an answer").1, "small");
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.expect("whole");
        received += data.len() as u64;
        body.flow_control().release_capacity(data.len()).expect("it was taken");
    }
    assert_eq!(received, BIG);
}

#[tokio::test]
async fn a_stream_whose_client_reads_nothing_is_given_up() {
    let origin =
        Origin::start(|_| http::Response::new(http_body_util::Full::from(vec![b'x'; 4_000_000]))).await;
    let gateway = to(&origin.url(), "idle_timeout: 300ms");
    let client = H2::connect(gateway.http()).await;
    let (response, _) = client.ready().await.send_request(get("/stalls"), true).expect("it is open");
    let (_, mut body) = response.await.expect("its head").into_parts();
    let mut received = 0;
    let error = loop {
        // The data is taken and no window given back for it.
        match tokio::time::timeout(PATIENCE, body.data()).await.expect("it ends") {
            Some(Ok(data)) => received += data.len(),
            Some(Err(error)) => break error,
            None => panic!("it ended orderly after {received} bytes"),
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
    let mut entry = None;
    eventually("it is logged", || {
        entry = gateway.log_lines().into_iter().find(|line| line.contains("/stalls"));
        let found = entry.clone();
        async move { found }
    })
    .await;
    assert!(entry.expect("found").contains("\"reason\":\"client_gone\""));
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let origin = Origin::text("ok").await;
    let gateway = to(&origin.url(), "max_header_bytes: 8KiB, max_headers: 20, max_uri_bytes: 1KiB");
    let client = H2::connect(gateway.http()).await;
    let answer = async |request: http::request::Builder| {
        let request = request.body(()).expect("a request");
        client
            .ready()
            .await
            .send_request(request, true)
            .expect("open")
            .0
            .await
            .expect("an answer")
            .status()
            .as_u16()
    };
    let mut many = Request::get("http://a/x");
    for number in 0..30 {
        many = many.header(format!("x-{number}"), "1");
    }
    assert_eq!(answer(many).await, 431);
    assert_eq!(answer(Request::get("http://a/x").header("x", "1".repeat(9000))).await, 431);
    assert_eq!(answer(Request::get(format!("http://a/{}", "x".repeat(2000)))).await, 414);
    assert_eq!(answer(Request::get("http://a/x").header("host", "b")).await, 400);
    assert_eq!(answer(Request::builder().method("get").uri("http://a/x")).await, 400);
    assert_eq!(
        answer(Request::get("http://a/x").header("content-length", "0").header("content-length", "0")).await,
        400
    );
    assert_eq!(origin.count(), 0);
    assert_eq!(answer(Request::get("http://a/x")).await, 200);
}

#[tokio::test]
async fn shutting_down_says_goaway_and_finishes_what_runs() {
    let (go, gate) = tokio::sync::watch::channel(false);
    let origin = Origin::start_slow(move |_| {
        let mut gate = gate.clone();
        async move {
            let _ = gate.wait_for(|go| *go).await;
            http::Response::new(http_body_util::Full::from("finished"))
        }
    })
    .await;
    let mut gateway = to(&origin.url(), "");
    let client = H2::connect(gateway.http()).await;
    let (response, _) = client.ready().await.send_request(get("/runs"), true).expect("it is open");
    eventually("it runs", || async { (origin.count() == 1).then_some(()) }).await;
    gateway.signal("TERM");
    eventually("no stream can be opened any more", || async {
        client.sender.clone().ready().await.is_err().then_some(())
    })
    .await;
    go.send(true).expect("the origin waits");
    let (head, mut body) = response.await.expect("it is finished").into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(body.data().await.expect("some").expect("whole"), "finished");
    drop(body);
    let ended =
        tokio::time::timeout(PATIENCE, client.connection).await.expect("it closes").expect("no panic");
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(gateway.wait_for_end().code(), Some(0));
}

#[tokio::test]
async fn an_idle_connection_is_told_goaway() {
    let origin = Origin::text("ok").await;
    let gateway = to(&origin.url(), "idle_timeout: 300ms");
    let client = H2::connect(gateway.http()).await;
    client.get("/").await.expect("an answer");
    let ended =
        tokio::time::timeout(PATIENCE, client.connection).await.expect("it closes").expect("no panic");
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_broken_preface_is_no_request() {
    let gateway = to("http://127.0.0.1:9", "header_timeout: 300ms, idle_timeout: 300ms");
    let answer = raw::exchange(gateway.http(), "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    let mut half = TcpStream::connect(gateway.http()).await.expect("it listens");
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it reads");
    // The settings never come.
    raw::closed(&mut half).await;
    let garbage = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{}", "\u{1}".repeat(500));
    let mut stream = TcpStream::connect(gateway.http()).await.expect("it listens");
    stream.write_all(garbage.as_bytes()).await.expect("it reads");
    raw::closed(&mut stream).await;
    assert_eq!(Client::new(gateway.http()).get("/%00").await.status, 400);
}
