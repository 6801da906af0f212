//! The registry's watch as its clients see it: events, resuming, signs of life, and what becomes of slow readers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::companion::{local, port};
use crate::support::{Client, Gateway, PATIENCE, eventually};

fn configuration(registry: SocketAddr) -> String {
    format!(
        "registry: {{ bind: \"{registry}\", token: let-me-watch }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, respond: {{ text: ok }} }}]\n"
    )
}

async fn register(registry: SocketAddr, port: u16, metadata: &str) {
    let body =
        json!({ "service_name": "users", "host": "10.0.0.1", "port": port, "metadata": { "m": metadata } });
    let registry = Client::new(registry).bearer("let-me-watch");
    assert_eq!(registry.post("/registry/register", body.to_string()).await.status, 200);
}

struct Stream(BufReader<TcpStream>);

impl Stream {
    async fn open(registry: SocketAddr, last_event_id: Option<&str>) -> Stream {
        let socket = TcpSocket::new_v4().unwrap();
        // So that what it doesn't read waits at the registry.
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(registry).await.unwrap();
        let resume = last_event_id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /registry/watch/users HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer let-me-watch\r\n\
             accept: text/event-stream\r\n{resume}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = Stream(BufReader::new(stream));
        assert_eq!(stream.line().await, "HTTP/1.1 200 OK");
        stream
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await;
        assert!(read.expect("something comes in time").expect("it is text") > 0, "it ended");
        line.trim_end().to_owned()
    }

    /// The line that begins with this, without that beginning. What stands before it is left out: chunks' sizes too.
    async fn until(&mut self, start: &str) -> String {
        loop {
            if let Some(rest) = self.line().await.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    /// The id and the ports of the next event.
    async fn event(&mut self) -> (String, Vec<u64>) {
        let id = self.until("id: ").await;
        assert_eq!(self.until("event: ").await, "instances");
        // On the wire the set is a chunk of its own.
        let set = format!("{{{}", self.until("{").await);
        let set: Value = serde_json::from_str(&set).unwrap_or_else(|error| panic!("{error} in {set}"));
        assert_eq!(set["version"].to_string(), id);
        let ports = set["instances"].as_array().unwrap().iter().map(|one| one["port"].as_u64().unwrap());
        (id, ports.collect())
    }
}

#[tokio::test]
async fn a_stream_tells_all_resumes_and_gives_signs_of_life() {
    let registry = local(port());
    let mut gateway = Gateway::start(&configuration(registry));
    let mut stream = Stream::open(registry, None).await;
    assert_eq!(stream.event().await, ("0".to_owned(), vec![]), "before anybody has registered");
    register(registry, 1, "").await;
    let (first, ports) = stream.event().await;
    assert_eq!(ports, [1]);
    stream.until(": nothing new").await;
    register(registry, 2, "").await;
    let (second, ports) = stream.event().await;
    assert_eq!(ports, [1, 2]);
    assert!(second.parse::<u64>().unwrap() > first.parse::<u64>().unwrap());

    let mut missed = Stream::open(registry, Some(&first)).await;
    assert_eq!(missed.event().await, (second.clone(), vec![1, 2]), "at once");
    let mut missed_nothing = Stream::open(registry, Some(&second)).await;
    missed_nothing.until(": nothing new").await;
    let watchers = || gateway.metric("gatehouse_registry_watchers", &[]);
    assert_eq!(watchers().await, 3.0);
    register(registry, 3, "").await;
    let (third, ports) = missed_nothing.event().await;
    assert_eq!(ports, [1, 2, 3]);
    drop((stream, missed, missed_nothing));
    eventually("they are gone", || async { (watchers().await == 0.0).then_some(()) }).await;

    // A registry that has forgotten all has other versions than those that are remembered.
    gateway.signal("KILL");
    gateway.ended().await;
    let _gateway = Gateway::start(&configuration(registry));
    let mut after = Stream::open(registry, Some(&third)).await;
    assert_eq!(after.event().await, ("0".to_owned(), vec![]));
    register(registry, 4, "").await;
    let (fourth, ports) = after.event().await;
    assert_eq!(ports, [4]);
    assert!(fourth.parse::<u64>().unwrap() > third.parse::<u64>().unwrap());
}

#[tokio::test]
async fn a_reader_that_stopped_is_cut_off_and_holds_up_nobody() {
    let registry = local(port());
    // Nobody sends heartbeats, however long it takes.
    let patient = configuration(registry).replace("token:", "heartbeat_ttl: 10m, token:");
    let gateway = Gateway::start(&patient);
    let metadata = "x".repeat(2000);
    // Four megabytes, which is what the system's buffers may hold at most.
    for first in (1..=2000).step_by(100) {
        let some = (first..first + 100).map(|port| register(registry, port, &metadata));
        futures_util::future::join_all(some).await;
    }
    let stopped = Stream::open(registry, None).await;
    let mut reading = Stream::open(registry, None).await;
    assert_eq!(reading.event().await.1.len(), 2000);
    let watchers = || gateway.metric("gatehouse_registry_watchers", &[]);
    assert_eq!(watchers().await, 2.0);
    let began = Instant::now();
    for port in 2001.. {
        register(registry, port, &metadata).await;
        assert_eq!(reading.event().await.1.len(), usize::from(port));
        if watchers().await == 1.0 {
            break;
        }
        assert!(began.elapsed() < 3 * PATIENCE, "it is still there");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    drop(stopped);
}

#[tokio::test]
async fn whoever_asks_wrongly_is_told_how_to_ask() {
    let registry = local(port());
    let _gateway = Gateway::start(&configuration(registry));
    let client = Client::new(registry).header("accept", "text/event-stream");
    assert_eq!(client.get("/registry/watch/users").await.code(), "token_missing");
    let client = client.bearer("let-me-watch");
    for (target, code) in [
        ("/registry/watch/", "not_found"),
        ("/registry/watch", "not_found"),
        ("/registry/watch/a%20b", "invalid_member"),
        ("/registry/watch/users?since=1", "invalid_query"),
        ("/registry/watch/users?version=-1", "invalid_query"),
    ] {
        assert_eq!(client.get(target).await.code(), code, "{target}");
    }
    let large = format!("{{\"service_name\":\"{}\"}}", "x".repeat(70_000));
    assert_eq!(client.post("/registry/register", large).await.status, 413);
}
