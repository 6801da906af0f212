//! One URL, with open and closed loads: what is sent, and what is told about it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{command, loadtest, loadtest_in};
use crate::support::{Gateway, Origin, eventually};

#[tokio::test]
async fn an_open_load_sends_what_is_due() {
    let origin = Origin::text("hello").await;
    let url = format!("{}/things?a=b", origin.url());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("thing.json"), "{\"id\":1}").unwrap();
    let arguments =
        [&url, "--rate", "400", "--requests", "100", "--body", "thing.json", "-H", "x-a: b", "--json"];
    let ran = loadtest_in(directory.path(), &arguments).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let told = ran.json();
    assert_eq!((&told["requests"], &told["errors"], &told["bytes"]), (&100.into(), &0.into(), &500.into()));
    assert_eq!((&told["statuses"]["200"], &told["load"]["kind"]), (&100.into(), &"open".into()));
    // 100 requests, 2.5 ms apart.
    assert_eq!((&told["seconds"], &told["rate"]), (&0.25.into(), &400.0.into()), "{told}");
    let seen = origin.seen();
    assert_eq!(seen.len(), 100);
    let first = &seen[0];
    assert_eq!((first.method.as_str(), first.target.as_str()), ("POST", "/things?a=b"));
    assert_eq!((first.header("x-a"), &first.body[..]), (Some("b"), &b"{\"id\":1}"[..]));
    assert_eq!(first.header("host"), Some(origin.address.to_string().as_str()));
    // The table is for people, and no terminal is written to as if it were one.
    assert!(ran.err.contains("100 in") && !ran.err.contains(['\r', '\x1b']), "{}", ran.err);
}

#[tokio::test]
async fn a_closed_load_keeps_its_connections_busy() {
    let origin = Origin::text("hello").await;
    let ran = loadtest(&[&origin.url(), "--connections", "3", "--requests", "60", "--threads", "2"]).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("closed loop, 3 at once") && ran.out.contains("requests   60 in"),
        "{}",
        ran.out
    );
    assert_eq!(ran.err, "");
    assert_eq!(origin.count(), 60);
    assert!(origin.connections() <= 3, "{} connections", origin.connections());
}

/// The requests that are due while the server stands still have waited, though they were not sent yet.
#[tokio::test]
async fn a_stall_is_not_hidden() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let origin = Origin::start_slow(move |_| {
        let gate = held.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Response::default()
        }
    })
    .await;
    let opening = async {
        eventually("the first request is there", || async { (origin.count() > 0).then_some(()) }).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        gate.add_permits(20);
    };
    let url = origin.url();
    let arguments = [&url, "--rate", "100", "--connections", "1", "--requests", "20", "--json"];
    let (ran, ()) = tokio::join!(loadtest(&arguments), opening);
    let told = ran.json();
    assert_eq!((&told["requests"], &told["errors"]), (&20.into(), &0.into()));
    // The last one was due after 190 ms, and no answer came within 500.
    let least = told["latency"]["min"].as_f64().unwrap();
    assert!(least >= 300.0, "{told}");
}

#[tokio::test]
async fn what_could_not_be_sent_is_told() {
    let origin = Origin::start_slow(|_| std::future::pending()).await;
    let url = origin.url();
    let arguments =
        [&url, "--rate", "20", "--connections", "1", "--duration", "500ms", "--timeout", "3s", "--json"];
    let ran = loadtest(&arguments).await;
    let told = ran.json();
    assert_eq!((ran.code, &told["requests"], &told["errors"]), (1, &10.into(), &10.into()), "{told}");
    let faults = &told["faults"];
    assert_eq!((&faults["timeout"]["count"], &faults["unsent"]["count"]), (&1.into(), &9.into()), "{told}");
    assert_eq!(told["latency"]["count"], 10, "those who waited in vain have waited");
}

#[tokio::test]
async fn errors_are_told_apart() {
    // A port that nobody listens at, and nobody else gets.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = format!("http://{}", closed.local_addr().unwrap());
    let cut = saying(b"").await;
    let half = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let nonsense = saying(b"220 mail.example.com ESMTP\r\n\r\n").await;
    for (url, fault) in [(refused, "connect"), (cut, "reset"), (half, "reset"), (nonsense, "protocol")] {
        let ran = loadtest(&[&url, "--requests", "4", "--connections", "2", "--json"]).await;
        let told = ran.json();
        assert_eq!((ran.code, &told["faults"][fault]["count"]), (1, &4.into()), "{fault}: {told}");
        assert!(told["faults"][fault]["first"].as_str().is_some_and(|said| !said.is_empty()), "{told}");
        assert_eq!(told["latency"]["count"], 0, "{fault}: {told}");
    }
}

/// A server that answers every connection with these bytes once it has a request, and closes it.
async fn saying(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    url
}

#[tokio::test]
async fn an_error_status_is_an_error_unless_it_is_accepted() {
    let origin = Origin::status(503).await;
    let url = origin.url();
    let ran = loadtest(&[&url, "--requests", "5", "--json"]).await;
    let told = ran.json();
    assert_eq!((ran.code, &told["errors"], &told["statuses"]["503"]), (1, &5.into(), &5.into()));
    let ran = loadtest(&[&url, "--requests", "5", "--accept-status", "200,5xx", "--json"]).await;
    assert_eq!((ran.code, &ran.json()["errors"]), (0, &0.into()));
}

#[tokio::test]
async fn the_gateways_reasons_are_counted_over_http2_and_tls() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["shop.example.com".to_owned()]).unwrap();
    std::fs::write(directory.path().join("shop.crt"), made.cert.pem()).unwrap();
    std::fs::write(directory.path().join("shop.key"), made.signing_key.serialize_pem()).unwrap();
    let gateway = Gateway::start_in(
        directory,
        "listeners:\n\
         - { name: http, bind: '127.0.0.1:0', tls: { certificates: [{ certificate: shop.crt, private_key: shop.key }] } }\n\
         rate_limits: { few: { key: route, rate: 1/h, burst: 4 } }\n\
         routes: [{ name: all, match: { prefix: /, hosts: [shop.example.com] }, rate_limits: [few], respond: { text: pong } }]\n",
        &[],
    );
    let (address, ca) = (gateway.http().to_string(), gateway.file("shop.crt").display().to_string());
    let url = "https://shop.example.com/";
    let arguments =
        [url, "--connect", &address, "--ca", &ca, "--http2", "--connections", "2", "--streams", "3"];
    let ran = loadtest(&[&arguments[..], &["--requests", "30", "--json"]].concat()).await;
    let told = ran.json();
    assert_eq!((ran.code, &told["requests"], &told["load"]["level"]), (0, &30.into(), &6.0.into()), "{told}");
    assert_eq!((&told["statuses"]["200"], &told["statuses"]["429"]), (&4.into(), &26.into()), "{told}");
    assert_eq!(told["reasons"]["rate_limited"], 26);
    assert_eq!((&told["load"]["http2"], &told["load"]["tls"]), (&true.into(), &true.into()));
    // Its certificate is nobody's that the system trusts.
    let ran = loadtest(&[url, "--connect", &address, "--requests", "2", "--json"]).await;
    assert_eq!((ran.code, &ran.json()["faults"]["tls"]["count"]), (1, &2.into()), "{}", ran.out);
}

#[tokio::test]
async fn http2_with_prior_knowledge() {
    let gateway =
        Gateway::start("routes: [{ name: ping, match: { path: /ping }, respond: { text: pong } }]\n");
    let url = format!("http://{}/ping", gateway.http());
    let ran = loadtest(&[&url, "--http2", "--rate", "200", "--requests", "40", "--json"]).await;
    assert_eq!((ran.code, &ran.json()["statuses"]["200"]), (0, &40.into()), "{}", ran.err);
}

#[tokio::test]
async fn an_interrupted_test_tells_what_it_has() {
    let origin = Origin::text("hello").await;
    let url = origin.url();
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path(), &[&url, "--rate", "50", "--duration", "1h", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("some requests are there", || async { (origin.count() > 3).then_some(()) }).await;
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["interrupted"]), (Some(0), &true.into()), "{told}");
    assert_eq!(told["requests"].as_u64().unwrap(), origin.count() as u64, "what was sent was waited for");
}
