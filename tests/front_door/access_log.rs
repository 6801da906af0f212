//! The access log: what a line says, and that writing it neither loses lines nor holds up requests.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::support::raw;
use crate::support::{Client, Gateway, Origin, Session, eventually, origin, tokens};

const HELLO: &str = "routes: [{ name: hello, match: { prefix: / }, respond: { text: hello } }]\n";

fn to_file(name: &str) -> String {
    format!("observability: {{ access_log: {{ output: {name} }} }}\n{HELLO}")
}

/// The lines that are there whole: a write may be seen while it is under way.
fn lines(gateway: &Gateway, file: &str) -> Vec<Value> {
    let text = std::fs::read(gateway.file(file)).unwrap_or_default();
    let whole = text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    whole.map(|line| serde_json::from_slice(line).expect("a line is JSON")).collect()
}

#[tokio::test]
async fn a_line_says_all_that_is_known() {
    let origin = Origin::text("pong").await;
    let gateway = Gateway::start(&format!(
        "trusted_proxies: [127.0.0.0/8]\nservices: {{ users: {{ instances: ['{}'] }} }}\n{}\
         routes: [{{ name: all, match: {{ prefix: / }}, authenticate: {{ with: [shop] }}, forward: {{ service: users }} }}]\n",
        origin.url(),
        tokens::secret_authenticator()
    ));
    let token = tokens::hs256(serde_json::json!({ "sub": "ada" }));
    let reply = Client::new(gateway.http())
        .host("shop.example:8000")
        .bearer(&token)
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-request-id", "from-the-client-1")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .post("/a/../b%20c?secret=1", "12345")
        .await;
    assert_eq!(reply.status, 200);
    let entry = gateway.log_entry(|entry| entry["status"] == 200);
    for (field, expected) in [
        ("request_id", "from-the-client-1"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("client", "203.0.113.7"),
        ("method", "POST"),
        ("host", "shop.example"),
        ("path", "/b%20c"),
        ("route", "all"),
        ("service", "users"),
        ("instance", &origin.address.to_string()),
        ("subject", "ada"),
        ("protocol", "HTTP/1.1"),
        ("listener", "http"),
    ] {
        assert_eq!(entry[field], expected, "{field}: {entry}");
    }
    for (field, expected) in [("bytes_in", 5), ("bytes_out", 4), ("attempts", 1)] {
        assert_eq!(entry[field], expected, "{field}: {entry}");
    }
    assert_eq!(entry["tls"], false);
    assert!(entry.get("reason").is_none(), "{entry}");
    let time = entry["time"].as_str().expect("a moment");
    assert!(time.len() == "2026-11-21T08:31:00.123Z".len() && time.ends_with('Z'), "{time}");
    let [all, own, upstream] =
        ["duration_ms", "gateway_ms", "upstream_ms"].map(|name| entry[name].as_f64().expect("a number"));
    assert!(upstream > 0.0 && (all - own - upstream).abs() < 0.002, "{entry}");
    assert!(!entry.to_string().contains("secret=1") && !entry.to_string().contains(&token));
}

#[tokio::test]
async fn a_refusal_has_its_reason_and_an_aggregate_its_attempts() {
    let origin = Origin::json("{}").await;
    let gateway = Gateway::start(&format!(
        "services: {{ a: {{ instances: ['{0}'] }}, b: {{ instances: ['{0}'] }} }}\n\
         routes: [{{ name: both, match: {{ path: /both }}, aggregate: {{ parts: {{ one: {{ service: a, path: /1 }}, \
         two: {{ service: b, path: /2 }} }} }} }}]\n",
        origin.url()
    ));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/both").await.status, 200);
    client.get("/neither").await;
    let entry = gateway.log_entry(|entry| entry["path"] == "/both");
    assert_eq!((&entry["attempts"], &entry["route"]), (&2.into(), &"both".into()), "{entry}");
    assert!(entry["upstream_ms"].as_f64().is_some_and(|took| took > 0.0), "{entry}");
    let entry = gateway.log_entry(|entry| entry["path"] == "/neither");
    assert_eq!((&entry["reason"], &entry["status"]), (&"route_not_found".into(), &404.into()), "{entry}");
    assert_eq!(entry["attempts"], 0);
}

#[tokio::test]
async fn nothing_that_a_client_sends_breaks_a_line() {
    let gateway = Gateway::start(HELLO);
    let requests = [
        "GET /%22,%22status%22:200,%0a%0d%1b[31m HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET /\u{e9}\u{202e}\u{2028} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\"b\r\nconnection: close\r\n\r\n",
        "GET /y HTTP/1.1\r\nhost: a\r\nx-request-id: \"}\\n{\"a\":\"\r\nconnection: close\r\n\r\n",
        "BR!EAK'`| /z HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET \"/q\" HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ];
    for request in requests {
        raw::exchange(gateway.http(), request).await;
    }
    Client::new(gateway.http()).get("/last").await;
    // Every line is read as JSON on the way to the last.
    gateway.log_entry(|entry| entry["path"] == "/last");
    for line in gateway.log_lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    let parsed =
        gateway.log_entry(|entry| entry["path"].as_str().is_some_and(|path| path.contains("status")));
    assert!(parsed["path"].as_str().is_some_and(|path| path.starts_with("/%22")), "{parsed}");
}

#[tokio::test]
async fn a_client_that_leaves_is_in_it() {
    let origin = Origin::start_slow(|_| async {
        std::future::pending::<()>().await;
        origin::status(200)
    })
    .await;
    let gateway = Gateway::start(&format!(
        "services: {{ s: {{ instances: ['{}'] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}]\n",
        origin.url()
    ));
    let mut session = Session::open(gateway.http()).await;
    tokio::select! {
        answered = session.try_get("/never") => panic!("{answered:?}"),
        () = eventually("the origin has it", || async { (origin.count() == 1).then_some(()) }) => {}
    }
    drop(session);
    let entry = eventually("the line", || async {
        let line = gateway.log_lines().into_iter().next()?;
        Some(serde_json::from_str::<Value>(&line).expect("a line is JSON"))
    })
    .await;
    assert_eq!((&entry["status"], &entry["reason"]), (&499.into(), &"client_gone".into()), "{entry}");
    assert_eq!(entry["instance"], origin.address.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_is_lost_when_the_file_is_rotated() {
    let mut gateway = Gateway::start(&to_file("access.log"));
    let over = Arc::new(AtomicBool::new(false));
    let address = gateway.http();
    let asking = (0..4).map(|_| {
        let over = over.clone();
        tokio::spawn(async move {
            let mut session = Session::open(address).await;
            let mut asked = 0;
            while !over.load(Relaxed) {
                assert_eq!(session.get("/").await.status, 200);
                asked += 1;
            }
            asked
        })
    });
    let asking: Vec<_> = asking.collect();
    for rotation in 1..=3 {
        eventually("there are lines", || async { (lines(&gateway, "access.log").len() > 50).then_some(()) })
            .await;
        std::fs::rename(gateway.file("access.log"), gateway.file(&format!("access.log.{rotation}")))
            .expect("it is there");
        gateway.signal("USR1");
    }
    eventually("there are lines", || async { (lines(&gateway, "access.log").len() > 50).then_some(()) })
        .await;
    over.store(true, Relaxed);
    let mut asked = 0;
    for one in asking {
        asked += one.await.expect("it was answered");
    }
    gateway.signal("TERM");
    gateway.ended().await;
    let files = ["access.log", "access.log.1", "access.log.2", "access.log.3"];
    for file in files {
        assert!(std::fs::read(gateway.file(file)).is_ok_and(|text| text.ends_with(b"\n")), "{file}");
    }
    assert_eq!(files.iter().map(|file| lines(&gateway, file).len()).sum::<usize>(), asked);
}

#[tokio::test]
async fn off_is_off_and_a_reload_turns_it_on() {
    let gateway = Gateway::start(&to_file("off"));
    let client = Client::new(gateway.http());
    client.get("/unseen").await;
    gateway.reconfigure(&to_file("access.log")).await;
    client.get("/seen").await;
    eventually("the line", || async { (!lines(&gateway, "access.log").is_empty()).then_some(()) }).await;
    let lines = lines(&gateway, "access.log");
    assert_eq!((lines.len(), &lines[0]["path"]), (1, &"/seen".into()));
    assert!(gateway.log_lines().is_empty());
}

#[tokio::test]
async fn a_file_that_cannot_be_written_costs_lines_and_nothing_else() {
    let gateway = Gateway::start(&to_file("logs/access.log"));
    gateway.wait_for("access log: cannot write to");
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/lost").await.status, 200);
    eventually("the loss is counted", || async {
        (gateway.metric("gatehouse_access_log_dropped_total", &[]).await >= 1.0).then_some(())
    })
    .await;
    std::fs::create_dir(gateway.file("logs")).expect("writable");
    eventually("it is tried again", || async {
        assert_eq!(client.get("/again").await.status, 200);
        (!lines(&gateway, "logs/access.log").is_empty()).then_some(())
    })
    .await;
}

/// A pipe holds 64 KiB; what is behind it does not read.
#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody() {
    let (reader, writer) = std::io::pipe().expect("there are pipes");
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let mut gateway = Gateway::with_stdout(directory, HELLO, Stdio::from(writer));
    let mut session = Session::open(gateway.http()).await;
    let path = format!("/{}", "long".repeat(250));
    for _ in 0..500 {
        assert_eq!(session.get(&path).await.status, 200);
    }
    let written = gateway.metric("gatehouse_access_log_lines_total", &[]).await;
    assert!(written < 200.0, "{written}");
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await.code(), Some(0));
    drop(reader);
}
