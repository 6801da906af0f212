//! Long polls and event streams.

use http::HeaderValue;

use super::*;
use crate::discovery::registry::store::MAX_WATCHERS;
use crate::discovery::registry::watch::answer;

const TTL: Duration = Duration::from_secs(30);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time")
}

#[tokio::test]
async fn a_long_poll_answers_at_once_when_the_version_differs_and_else_waits() {
    let registry = Served::start(TTL, None).await;
    let nothing = soon(registry.get("/registry/watch/users")).await;
    assert_eq!(
        nothing.body,
        json!({ "service_name": "users", "version": 0, "metadata": {}, "instances": [] })
    );

    let waiting = registry.get("/registry/watch/users?version=0&timeout=60s");
    let registering = async {
        // Once the poll waits, it shows: its service is subscribed to.
        while registry.store.watchers("users") == 0 {
            tokio::task::yield_now().await;
        }
        registry.post("register", users(1)).await.body["version"].as_u64().expect("a version")
    };
    let (told, version) = soon(async { tokio::join!(waiting, registering) }).await;
    assert_eq!(told.body["version"], version);
    assert_eq!(told.body["instances"][0]["port"], 1);

    let behind = soon(registry.get("/registry/watch/users?version=0&timeout=60s")).await;
    assert_eq!(behind.body, told.body);
    let unchanged =
        soon(registry.get(&format!("/registry/watch/users?version={version}&timeout=50ms"))).await;
    assert_eq!((unchanged.status, &unchanged.body), (StatusCode::OK, &told.body));
}

#[tokio::test]
async fn an_event_stream_begins_with_the_set_and_tells_each_change() {
    let registry = Served::start(TTL, None).await;
    registry.post("register", users(1)).await;
    let open = async |last: Option<&str>| {
        let mut request = request("GET", "/registry/watch/users").header(header::ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = registry.send(request.body(Full::default()).expect("a request")).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        response.into_body()
    };
    let mut events = open(None).await;
    let first = soon(event(&mut events)).await;
    assert_eq!(first.1["instances"][0]["port"], 1);
    registry.post("heartbeat", users(1)).await;
    registry.post("register", users(2)).await;
    let second = soon(event(&mut events)).await;
    assert!(second.0 > first.0);
    assert_eq!(second.1["instances"].as_array().map(Vec::len), Some(2));

    // Who has seen the newest version is told the next one only.
    let mut resumed = open(Some(&second.0.to_string())).await;
    while registry.store.watchers("users") < 2 {
        tokio::task::yield_now().await;
    }
    registry.post("deregister", users(1)).await;
    assert_eq!(soon(event(&mut resumed)).await.1["instances"][0]["port"], 2);
    drop((events, resumed));
    soon(async {
        while registry.store.watchers("users") > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The id and data of the next event.
async fn event(events: &mut Incoming) -> (u64, Value) {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let frame = events.frame().await.expect("not the end").expect("no error");
        text += std::str::from_utf8(&frame.into_data().expect("data")).expect("UTF-8");
    }
    let mut lines = text.lines();
    let id = lines.next().and_then(|line| line.strip_prefix("id: ")).expect("an id");
    assert_eq!(lines.next(), Some("event: instances"));
    let data = lines.next().and_then(|line| line.strip_prefix("data: ")).expect("data");
    (id.parse().expect("a number"), serde_json::from_str(data).expect("JSON"))
}

/// Without sockets: a process has only so many of those.
#[tokio::test]
async fn only_so_many_clients_may_wait() {
    let store = Arc::new(Store::new(TTL));
    let name: Arc<str> = "users".into();
    let mut streams = Vec::new();
    for _ in 0..MAX_WATCHERS {
        streams.push(answer(&store, &name, None, &events_accepted()).await.expect("room"));
    }
    let refused = answer(&store, &name, None, &HeaderMap::new()).await.expect_err("full").into_response();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(store.load().watchers, MAX_WATCHERS as u64);
    streams.pop();
    assert!(answer(&store, &name, None, &HeaderMap::new()).await.is_ok(), "a stream that ended makes room");
}

/// A client that stopped reading, on a paused clock and without a socket.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_the_latest_and_nothing_is_queued_for_it() {
    let store = Arc::new(Store::new(TTL));
    let response = answer(&store, &"users".into(), None, &events_accepted()).await.expect("room");
    let mut events = response.into_body();
    let mut event = async || {
        let mut text = String::new();
        while !text.ends_with("\n\n") {
            let frame = events.frame().await.expect("not the end").expect("no error");
            text += std::str::from_utf8(&frame.into_data().expect("data")).expect("UTF-8");
        }
        text
    };
    assert!(event().await.ends_with("\"instances\":[]}\n\n"));
    for port in 1..=500 {
        store.register(announce("users", port)).expect("room");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let version = store.view("users").version;
    let latest = event().await;
    assert!(latest.starts_with(&format!("id: {version}\n")), "{latest}");
    assert!(latest.contains("\"port\":500,"), "{latest}");
    assert_eq!(event().await, ": nothing new\n\n");
}

#[tokio::test]
async fn all_who_watch_share_one_document() {
    let store = Arc::new(Store::new(TTL));
    store.register(announce("users", 1)).expect("room");
    let (mut one, mut other) =
        (store.subscribe("users").expect("room"), store.subscribe("users").expect("room"));
    assert_eq!(one.look().document().as_ptr(), other.look().document().as_ptr());
}

fn events_accepted() -> HeaderMap {
    HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("text/event-stream"))])
}

/// A silent stream's comment, on a paused clock and without a socket.
#[tokio::test(start_paused = true)]
async fn a_silent_stream_says_that_it_is_alive() {
    let store = Arc::new(Store::new(TTL));
    let response =
        answer(&store, &"users".into(), Some("version=0"), &events_accepted()).await.expect("room");
    let mut body = response.into_body();
    let begun = tokio::time::Instant::now();
    let frame = body.frame().await.expect("not the end").expect("no error");
    assert_eq!(frame.into_data().expect("data").as_ref(), b": nothing new\n\n");
    assert_eq!(begun.elapsed().as_secs(), 5);
    let version = store.register(announce("users", 1)).expect("room").version;
    let frame = body.frame().await.expect("not the end").expect("no error");
    let head = frame.into_data().expect("data");
    assert_eq!(head, format!("id: {version}\nevent: instances\ndata: "));
}
