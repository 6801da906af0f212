//! The heartbeat client against a real registry that comes, goes and forgets.

use std::sync::Mutex;

use tokio::net::TcpSocket;

use super::*;
use crate::config::Secret;
use crate::discovery::registry::client::{Client, ClientError, Event};

const TTL: Duration = Duration::from_secs(3);

fn url(address: SocketAddr) -> http::Uri {
    format!("http://{address}").parse().expect("a URL")
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn it_stays_registered_comes_back_after_a_loss_and_leaves_when_it_stops() {
    // A port that is ours and refuses connections until it is listened on.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("bound");
    let client = Client::new(&url(address), &announce("users", 7), None).expect("valid");
    let events: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let told = events.clone();
    let running = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        client
            .run_until(stopped, |event| told.lock().unwrap().push(matches!(event, Event::Registered)))
            .await;
    });
    until("nobody noticed that the registry isn't there yet", || *events.lock().unwrap() == [false]).await;

    let registry = Served::on(socket.listen(16).expect("listening"), TTL, None);
    let registered = || registry.store.view("users").instances.len() == 1;
    until("it did not register", registered).await;
    let version = registry.store.view("users").version;
    for _ in 0..2 {
        let age = || registry.store.list()[0].instances.first().map(|(_, silence)| *silence);
        let before = Mutex::new(age());
        until("no heartbeat came", || {
            let now = age();
            std::mem::replace(&mut *before.lock().unwrap(), now) > now
        })
        .await;
    }
    assert!(registered());
    assert_eq!(registry.store.view("users").version, version, "heartbeats kept it in");

    registry.store.deregister(&announce("users", 7).key).expect("known");
    until("it did not register again", registered).await;
    until("it did not tell so", || *events.lock().unwrap() == [false, true, true]).await;

    stop.send(()).expect("running");
    running.await.expect("it ends");
    assert!(!registered(), "it deregistered");
}

#[tokio::test]
async fn it_sends_its_token_and_says_what_it_was_told() {
    let registry = Served::start(TTL, Some("tops3cret")).await;
    let announcement = announce("users", 7);
    let url = url(registry.address);
    let right = Client::new(&url, &announcement, Some(&Secret::new("tops3cret"))).expect("valid");
    assert_eq!(right.register().await.expect("allowed"), TTL);
    assert_eq!(right.heartbeat().await.expect("known"), TTL);
    right.deregister().await.expect("known");
    right.deregister().await.expect("already gone is gone");
    assert!(matches!(right.heartbeat().await, Err(ClientError::Unknown)));

    let wrong = Client::new(&url, &announcement, Some(&Secret::new("guess"))).expect("valid");
    let error = wrong.register().await.expect_err("refused").to_string();
    assert_eq!(error, "the registry answered 401 Unauthorized: this is not the registry's token");
}

#[tokio::test]
async fn what_can_be_no_registry_is_refused_or_survived() {
    let announcement = announce("users", 7);
    for url in [
        "https://127.0.0.1:8500",
        "127.0.0.1:8500",
        "/registry",
        "http://127.0.0.1:8500/registry",
        "http://a/?b",
    ] {
        let made = Client::new(&url.parse().expect("a URI"), &announcement, None);
        assert!(matches!(made, Err(ClientError::Url(_))), "{url}");
    }
    let bad = Secret::new("two\nlines");
    let made = Client::new(&"http://a".parse().expect("a URI"), &announcement, Some(&bad));
    assert!(matches!(made, Err(ClientError::Token)));

    // A server of something else: not JSON, and too much of it.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(crate::http::small_server::serve(listener, |_, request| async move {
        let size = if request.uri().path().ends_with("register") { 10 } else { 100_000 };
        crate::http::small_server::text(StatusCode::OK, "x".repeat(size))
    }));
    let client = Client::new(&url(address), &announcement, None).expect("valid");
    assert!(matches!(client.register().await, Err(ClientError::Unreadable(_))));
    assert!(matches!(client.heartbeat().await, Err(ClientError::Answer(_))));
    server.abort();
}
