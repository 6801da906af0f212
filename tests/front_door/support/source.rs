//! What a source of the service `users` is seen to do while requests go on, which instances answer with `a`.

use std::time::{Duration, Instant};

use super::{Client, Gateway, eventually};

pub async fn answers(client: &Client, text: &str) {
    eventually(text, || async { (client.get("/").await.text() == text).then_some(()) }).await;
}

/// Waits, for longer than it takes to notice a server that hangs, until the source is in this state and its
/// error says this.
pub async fn until(gateway: &Gateway, client: &Client, state: &str, why: &str) -> serde_json::Value {
    let deadline = Instant::now() + Duration::from_secs(45);
    loop {
        let source = gateway.service("users").await["source"].clone();
        if source["state"] == state && source["error"].as_str().unwrap_or_default().contains(why) {
            return source;
        }
        assert!(Instant::now() < deadline, "it never was {state} because of {why:?}: {source}");
        assert_eq!(client.get("/").await.text(), "a", "the last good set serves: {source}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The source has failed, everything says so, and the last good set serves.
pub async fn until_stale(gateway: &Gateway, client: &Client, why: &str) {
    let source = until(gateway, client, "failing", why).await;
    assert!(source["failing_since"].is_string() && source["updated_at"].is_string(), "{source}");
    assert_eq!(gateway.metric("gatehouse_discovery_up", &["service=\"users\""]).await, 0.0);
    gateway.wait_for("service users: its instances can't be asked for, the last known stay");
    eventually("it counts the seconds", || async {
        let stale = gateway.metric("gatehouse_discovery_stale_seconds", &["service=\"users\""]).await;
        (stale >= 1.0).then_some(())
    })
    .await;
    assert_eq!(client.get("/").await.text(), "a");
}

pub async fn until_well(gateway: &Gateway, client: &Client) {
    let source = until(gateway, client, "ok", "").await;
    assert!(source["error"].is_null() && source["failing_since"].is_null(), "{source}");
    gateway.wait_for("service users: its instances can be asked for again");
    assert_eq!(gateway.metric("gatehouse_discovery_up", &["service=\"users\""]).await, 1.0);
    assert_eq!(gateway.metric("gatehouse_discovery_stale_seconds", &["service=\"users\""]).await, 0.0);
}
