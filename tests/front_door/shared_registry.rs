//! `discovery: { registry: { address: … } }`: one registry for several gateways, which is killed, stopped and
//! replaced while requests go on.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use http::{Method, Response};
use serde_json::json;
use tokio::task::AbortHandle;

use crate::support::companion::{local, port};
use crate::support::prompt::Promptness;
use crate::support::source::{answers, until, until_stale, until_well};
use crate::support::{Client, Gateway, Origin, eventually};

const ROUTES: &str = "routes: [{ name: all, match: { prefix: / }, forward: { service: users } }]\n";

/// A gateway that has the registry, and follows it in-process.
fn keeper(registry: SocketAddr, more: &str) -> String {
    format!(
        "registry: {{ bind: \"{registry}\", {more} }}\n\
         services: {{ users: {{ discovery: {{ registry: {{}} }} }} }}\n{ROUTES}"
    )
}

/// One that follows it from elsewhere.
fn follower(registry: SocketAddr, more: &str) -> String {
    let source = format!("{{ address: \"http://{registry}\"{more} }}");
    format!("services: {{ users: {{ discovery: {{ registry: {source} }} }} }}\n{ROUTES}")
}

async fn tell(registry: &Client, what: &str, instance: SocketAddr) -> Option<u16> {
    let body = json!({ "service_name": "users", "host": instance.ip(), "port": instance.port() });
    let path = format!("/registry/{what}");
    Some(registry.try_send(Method::POST, &path, body.to_string().into()).await.ok()?.status)
}

/// Keeps an instance registered until dropped.
struct Announced(AbortHandle);

impl Announced {
    async fn start(registry: SocketAddr, instance: SocketAddr) -> Announced {
        let task = tokio::spawn(async move {
            let registry = Client::new(registry);
            loop {
                if tell(&registry, "heartbeat", instance).await != Some(200) {
                    tell(&registry, "register", instance).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Announced(task.abort_handle())
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The registry's gateway, one that follows it, and an instance that both have found.
struct Shared {
    registry: SocketAddr,
    keeper: Gateway,
    gateway: Gateway,
    client: Client,
    _origin: Origin,
    announced: Announced,
}

impl Shared {
    async fn start(more: &str) -> Shared {
        let registry = local(port());
        let keeper = Gateway::start(&keeper(registry, more));
        let origin = Origin::text("a").await;
        let announced = Announced::start(registry, origin.address).await;
        let gateway = Gateway::start(&follower(registry, ""));
        let client = Client::new(gateway.http());
        answers(&client, "a").await;
        Shared { registry, keeper, gateway, client, _origin: origin, announced }
    }

    /// From now on another instance is there instead.
    async fn follows(mut self) {
        let second = Origin::text("second").await;
        let registry = Client::new(self.registry);
        self.announced = Announced::start(self.registry, second.address).await;
        tell(&registry, "deregister", self._origin.address).await;
        answers(&self.client, "second").await;
    }
}

#[tokio::test]
async fn a_change_reaches_other_gateways_in_less_than_100_ms() {
    let address = local(port());
    let _keeper = Gateway::start(&keeper(address, "token: tell-me-all"));
    let gateways = [0, 1].map(|_| Gateway::start(&follower(address, ", token: tell-me-all")));
    let clients = gateways.each_ref().map(|gateway| Client::new(gateway.http()));
    let registry = Client::new(address).bearer("tell-me-all");
    let (a, b) = (Origin::text("a").await, Origin::text("b").await);
    let mut promptness = Promptness::default();
    for turn in 0..10 {
        let (new, old, name) = if turn % 2 == 0 { (&b, &a, "b") } else { (&a, &b, "a") };
        assert_eq!(tell(&registry, "register", new.address).await, Some(200));
        tell(&registry, "deregister", old.address).await;
        let follows = async |client: &Client| client.get("/").await.text() == name;
        promptness.until(async || follows(&clients[0]).await && follows(&clients[1]).await).await;
    }
    promptness.assert_within(Duration::from_millis(100));
    let source = gateways[0].service("users").await["source"].clone();
    assert_eq!((&source["kind"], &source["of"]), (&"registry".into(), &format!("http://{address}").into()));
    tell(&registry, "deregister", a.address).await;
    eventually("an explicit end", || async { (clients[0].get("/").await.status == 503).then_some(()) }).await;
    assert_eq!(gateways[0].service("users").await["source"]["state"], "ok");
    assert!(!gateways[0].messages().contains("tell-me-all"));
}

#[tokio::test]
async fn a_killed_registry_leaves_the_last_good_set_and_is_followed_again() {
    let mut shared = Shared::start("").await;
    shared.keeper.signal("KILL");
    shared.keeper.ended().await;
    until_stale(&shared.gateway, &shared.client, "refused").await;
    // With an empty memory: nobody is believed to have left until all had the time to come back.
    shared.keeper = Gateway::start(&keeper(shared.registry, ""));
    until_well(&shared.gateway, &shared.client).await;
    shared.follows().await;
}

#[tokio::test]
async fn a_registry_that_keeps_its_state_is_believed_at_once_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("registry.json");
    let more = format!("state_file: {}", file.display());
    let mut shared = Shared::start(&more).await;
    eventually("it is kept", || async {
        std::fs::read_to_string(&file).ok()?.contains("\"port\"").then_some(())
    })
    .await;
    shared.keeper.signal("KILL");
    shared.keeper.ended().await;
    until_stale(&shared.gateway, &shared.client, "refused").await;
    shared.keeper = Gateway::start(&keeper(shared.registry, &more));
    until_well(&shared.gateway, &shared.client).await;
    assert!(!shared.gateway.messages().contains("names less than half"), "{}", shared.gateway.messages());
}

#[tokio::test]
async fn a_registry_that_hangs_is_noticed_and_takes_nobody_for_dead_for_that() {
    let shared = Shared::start("heartbeat_ttl: 3s").await;
    shared.keeper.signal("STOP");
    // Takes longer than the TTL.
    until_stale(&shared.gateway, &shared.client, "no answer within").await;
    shared.keeper.signal("CONT");
    until_well(&shared.gateway, &shared.client).await;
    assert!(!shared.keeper.messages().contains("1 → 0 instances"), "{}", shared.keeper.messages());
    assert!(!shared.gateway.messages().contains("names less than half"), "{}", shared.gateway.messages());
    shared.follows().await;
}

#[tokio::test]
async fn garbage_in_place_of_the_registry_changes_nothing() {
    let mut shared = Shared::start("").await;
    let stream = "text/event-stream";
    for (content_type, garbage, why) in [
        ("text/html", "<html>It works!</html>", "it is no stream of events"),
        (stream, "", "it ended the watch"),
        (stream, "event: instances\ndata: <html>\n\n", "its answer can't be understood"),
        (stream, "event: instances\ndata: {\"service_name\":\"users\"}\n\n", "missing field `instances`"),
        (
            stream,
            "event: instances\ndata: {\"service_name\":\"x\",\"instances\":[]}\n\n",
            "about the service x",
        ),
        (
            stream,
            "event: instances\ndata: {\"service_name\":\"users\",\"instances\":[{\"host\":\"a b\",\"port\":1}]}\n\n",
            "the instance a b:1 can't be used",
        ),
    ] {
        shared.keeper.signal("KILL");
        shared.keeper.ended().await;
        let liar = Origin::start_at(shared.registry, move |_| {
            let reply = Response::builder().header("content-type", content_type);
            reply.body(garbage.into()).expect("constants")
        })
        .await;
        until_stale(&shared.gateway, &shared.client, why).await;
        drop(liar);
        eventually("its port is free", || async { TcpListener::bind(shared.registry).ok() }).await;
        shared.keeper = Gateway::start(&keeper(shared.registry, ""));
        until_well(&shared.gateway, &shared.client).await;
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_yet_holds_up_nothing() {
    let registry = local(port());
    let gateway = Gateway::start(&follower(registry, ""));
    let client = Client::new(gateway.http());
    gateway.wait_for("service users: its instances can't be asked for");
    assert_eq!(client.get("/").await.code(), "no_instance");
    let _keeper = Gateway::start(&keeper(registry, ""));
    let origin = Origin::text("a").await;
    let _announced = Announced::start(registry, origin.address).await;
    answers(&client, "a").await;
}

#[tokio::test]
async fn a_wrong_token_is_a_failure_that_names_the_cure_and_not_the_token() {
    let registry = local(port());
    let _keeper = Gateway::start(&keeper(registry, "token: the-right-one"));
    let origin = Origin::text("a").await;
    tell(&Client::new(registry).bearer("the-right-one"), "register", origin.address).await;
    let gateway = Gateway::start(&follower(registry, ", token: the-right-one"));
    let client = Client::new(gateway.http());
    answers(&client, "a").await;
    gateway.reconfigure(&follower(registry, ", token: the-wrong-one")).await;
    until(&gateway, &client, "failing", "401 Unauthorized: this is not the registry's token").await;
    gateway.reconfigure(&follower(registry, "")).await;
    until(&gateway, &client, "failing", "send the registry's token as \"Authorization: Bearer …\"").await;
    let told = format!("{}{}", gateway.messages(), gateway.api("/api/services").await);
    assert!(!told.contains("the-right-one") && !told.contains("the-wrong-one"), "{told}");
}

#[tokio::test]
async fn ten_thousand_instances_are_a_set() {
    let registry = local(port());
    // Nobody sends heartbeats while the others register.
    let _keeper = Gateway::start(&keeper(registry, "heartbeat_ttl: 10m"));
    let gateway = Gateway::start(&follower(registry, ""));
    let client = Client::new(registry);
    let register = |number: usize| {
        let client = &client;
        let address = SocketAddr::from(([127, 1, (number / 250) as u8, (number % 250) as u8], 9));
        async move { assert_eq!(tell(client, "register", address).await, Some(200)) }
    };
    for first in (0..9_999).step_by(200) {
        futures_util::future::join_all((first..(first + 200).min(9_999)).map(register)).await;
    }
    let count = || gateway.metric("gatehouse_service_instances", &["service=\"users\""]);
    eventually("all are there", || async { (count().await == 9_999.0).then_some(()) }).await;
    register(9_999).await;
    eventually("one more", || async { (count().await == 10_000.0).then_some(()) }).await;
}
