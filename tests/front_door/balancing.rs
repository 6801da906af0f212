//! Which instance a request goes to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::support::tokens::{hs256, secret_authenticator};
use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

async fn three() -> [Origin; 3] {
    [Origin::text("a").await, Origin::text("b").await, Origin::text("c").await]
}

fn urls(origins: &[Origin]) -> Vec<String> {
    origins.iter().map(Origin::url).collect()
}

/// The numbers of requests that the origins saw of `requests`, made one after another.
async fn counts<const N: usize>(gateway: &Gateway, origins: &[Origin; N], requests: usize) -> [usize; N] {
    let client = Client::new(gateway.http());
    for _ in 0..requests {
        assert_eq!(client.get("/").await.status, 200);
    }
    origins.each_ref().map(Origin::count)
}

/// Makes requests on many connections at once, so that some are always in flight.
async fn load(gateway: &Gateway, clients: usize, requests: usize) {
    let client = Client::new(gateway.http());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..requests {
                client.get("/").await;
            }
        });
    }
    tasks.join_all().await;
}

#[track_caller]
fn about(count: usize, wanted: usize, slack: usize) {
    assert!(count.abs_diff(wanted) <= slack, "{count} where {wanted} were expected");
}

#[tokio::test]
async fn round_robin_gives_each_the_same_whatever_its_weight() {
    let origins = three().await;
    let [a, b, c] = [origins[0].url(), origins[1].url(), origins[2].url()];
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ load_balancing: round_robin, \
           instances: [{{ url: \"{a}\", weight: 9 }}, \"{b}\", \"{c}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    ));
    for count in counts(&gateway, &origins, 60).await {
        about(count, 20, 2); // each of the two workers has rounds of its own
    }
}

#[tokio::test]
async fn weighted_gives_each_its_share() {
    let origins = three().await;
    let [a, b, c] = [origins[0].url(), origins[1].url(), origins[2].url()];
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ load_balancing: weighted, \
           instances: [\"{a}\", {{ url: \"{b}\", weight: 2 }}, {{ url: \"{c}\", weight: 5 }}] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    ));
    let [a, b, c] = counts(&gateway, &origins, 160).await;
    about(a, 20, 4);
    about(b, 40, 4);
    about(c, 100, 6);
}

#[tokio::test]
async fn random_is_even_in_the_long_run() {
    let origins = three().await;
    let gateway = Gateway::start(&one_service(&urls(&origins), "load_balancing: random"));
    for count in counts(&gateway, &origins, 300).await {
        about(count, 100, 55); // nearly seven standard deviations
    }
}

#[tokio::test]
async fn least_requests_spares_the_slow_one() {
    let origins = [slow().await, Origin::text("b").await, Origin::text("c").await];
    let gateway = Gateway::start(&one_service(&urls(&origins), "load_balancing: least_requests"));
    load(&gateway, 8, 40).await;
    let [slow, b, c] = origins.each_ref().map(Origin::count);
    assert_eq!(slow + b + c, 320);
    assert!(slow < 70, "the slow instance got {slow} of 320");
}

/// And finds it out of its answers alone: with one request at a time, all instances are idle.
#[tokio::test]
async fn peak_ewma_spares_the_slow_one() {
    let origins = [slow().await, Origin::text("b").await, Origin::text("c").await];
    let gateway = Gateway::start(&one_service(&urls(&origins), "load_balancing: peak_ewma"));
    let [slow, b, c] = counts(&gateway, &origins, 100).await;
    assert_eq!(slow + b + c, 100);
    assert!(slow <= 6, "the slow instance got {slow} of 100");
    let shown = gateway.instance("users", origins[0].address).await.expect("it is there");
    assert!(shown["latency_ms"].as_f64().is_some_and(|latency| latency >= 150.0), "{shown}");
}

/// An instance that hangs has no answer to be timed and no failure to be counted when its clients leave first: what they
/// waited is what tells.
#[tokio::test]
async fn peak_ewma_sees_that_clients_wait_in_vain() {
    let hung = Origin::start_slow(|_| async { std::future::pending().await }).await;
    let origins = [hung, Origin::text("b").await];
    let gateway = Gateway::start(&one_service(&urls(&origins), "load_balancing: peak_ewma"));
    let mut answered = 0;
    for _ in 0..60 {
        let client = Client::new(gateway.http());
        let reply = tokio::time::timeout(Duration::from_millis(300), client.get("/")).await;
        answered += usize::from(reply.is_ok_and(|reply| reply.status == 200));
    }
    let hung = origins[0].count();
    assert!(hung <= 12 && answered >= 45, "{hung} of 60 went to it, {answered} were answered");
}

fn by(key: &str) -> String {
    format!("load_balancing: {{ consistent_hash: {{ key: \"{key}\" }} }}")
}

/// The names of the origins that answered these clients, each of which asks four times.
async fn answers(clients: &[Client], target: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for client in clients {
        let first = client.get(target).await;
        assert_eq!(first.status, 200);
        for _ in 0..3 {
            assert_eq!(client.get(target).await.text(), first.text(), "a key stays with its instance");
        }
        answers.push(first.text());
    }
    answers
}

fn clients(gateway: &Gateway, name: &str, value: impl Fn(usize) -> String) -> Vec<Client> {
    (0..40).map(|number| Client::new(gateway.http()).header(name, &value(number))).collect()
}

#[tokio::test]
async fn a_key_stays_with_its_instance() {
    let origins = three().await;
    for (key, name, before) in [("header:x-user", "x-user", ""), ("cookie:user", "cookie", "a=b; user=")] {
        let gateway = Gateway::start(&one_service(&urls(&origins), &by(key)));
        let clients = clients(&gateway, name, |number| format!("{before}{number}"));
        let known = answers(&clients, "/").await;
        for origin in ["a", "b", "c"] {
            assert!(known.iter().any(|answer| answer == origin), "{key}: {origin} got none of {known:?}");
        }
        gateway
            .reconfigure(&one_service(&urls(&origins), &format!("{}, pool: {{ max_idle: 7 }}", by(key))))
            .await;
        assert_eq!(answers(&clients, "/").await, known, "after a reload");
        let second = Gateway::start(&one_service(&urls(&origins), &by(key)));
        let clients = self::clients(&second, name, |number| format!("{before}{number}"));
        assert_eq!(answers(&clients, "/").await, known, "in another gateway");
    }
}

#[tokio::test]
async fn only_the_keys_of_an_instance_that_left_move() {
    let origins = three().await;
    let all = urls(&origins);
    let gateway = Gateway::start(&one_service(&all, &by("header:x-user")));
    let clients = clients(&gateway, "x-user", |number| number.to_string());
    let before = answers(&clients, "/").await;
    origins[2].kill();
    let dead = answers(&clients, "/").await;
    gateway.reconfigure(&one_service(&all[..2], &by("header:x-user"))).await;
    let gone = answers(&clients, "/").await;
    for (before, after) in before.iter().zip(&gone) {
        assert!(if before == "c" { after != "c" } else { after == before }, "{before} → {after}");
    }
    assert_eq!(dead, gone);
}

#[tokio::test]
async fn the_path_is_a_key_and_so_is_the_client() {
    let origins = three().await;
    let gateway = Gateway::start(&one_service(&urls(&origins), &by("path")));
    let client = [Client::new(gateway.http())];
    let mut seen = Vec::new();
    for number in 0..50 {
        let one = answers(&client, &format!("/{number}")).await;
        assert_eq!(answers(&client, &format!("/{number}?q={number}")).await, one);
        seen.extend(one);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["a", "b", "c"]);

    let gateway =
        Gateway::start(&(one_service(&urls(&origins), &by("ip")) + "trusted_proxies: [127.0.0.0/8]\n"));
    let clients = clients(&gateway, "x-forwarded-for", |number| format!("192.0.2.{number}"));
    let mut seen = answers(&clients, "/").await;
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_claim_is_a_key_whatever_the_token() {
    let origins = three().await;
    let configuration = one_service(&urls(&origins), &by("claim:sub"))
        .replace("forward:", "authenticate: { with: [shop] }, forward:");
    let gateway = Gateway::start(&(secret_authenticator() + &configuration));
    let holder = |sub: usize, id: usize| {
        let token = hs256(json!({ "sub": sub.to_string(), "jti": id.to_string() }));
        Client::new(gateway.http()).bearer(&token)
    };
    let one = answers(&(0..40).map(|sub| holder(sub, 1)).collect::<Vec<_>>(), "/").await;
    let other = answers(&(0..40).map(|sub| holder(sub, 2)).collect::<Vec<_>>(), "/").await;
    assert_eq!(one, other);
    assert!(["a", "b", "c"].iter().all(|origin| one.iter().any(|answer| answer == origin)), "{one:?}");
}

/// Parts of an aggregate go by their own service's key.
#[tokio::test]
async fn parts_have_keys_too() {
    let origins = [Origin::json("\"a\"").await, Origin::json("\"b\"").await, Origin::json("\"c\"").await];
    let urls = urls(&origins).iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ");
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ instances: [{urls}], {} }} }}\n\
         routes: [{{ name: all, match: {{ path: / }}, aggregate: {{ parts: {{ \
           user: {{ service: users, path: /u }}, again: {{ service: users, path: /v }} }} }} }}]\n",
        by("header:x-user")
    ));
    for number in 0..20 {
        let client = Client::new(gateway.http()).header("x-user", &number.to_string());
        let (first, second) = (client.get("/").await.json(), client.get("/").await.json());
        assert_eq!(first, second);
        assert_eq!(first["user"], first["again"]);
    }
}

#[tokio::test]
async fn requests_without_their_key_are_spread() {
    let origins = three().await;
    let gateway = Gateway::start(&one_service(&urls(&origins), &by("header:x-user")));
    load(&gateway, 8, 30).await;
    for origin in &origins {
        assert!(origin.count() >= 30, "{} of 240", origin.count());
    }
}

/// Everybody asks for the same, and nobody is answered before all have asked. The mean of three is 16, and an instance takes
/// a quarter more, or 8 of each worker: 25 at most, however the connections are divided.
#[tokio::test]
async fn one_key_is_spread_when_it_is_too_much_for_one() {
    let gate = Arc::new(Semaphore::new(0));
    let origins = [held(&gate).await, held(&gate).await, held(&gate).await];
    let gateway = Gateway::start(&one_service(&urls(&origins), &by("path")));
    let client = Client::new(gateway.http());
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..48 {
        let client = client.clone();
        requests.spawn(async move { client.get("/").await.status });
    }
    let all = || async { (origins.iter().map(Origin::count).sum::<usize>() == 48).then_some(()) };
    eventually("all are held", all).await;
    for origin in &origins {
        let count = origin.count();
        assert!((4..=25).contains(&count), "{count} of 48");
    }
    gate.add_permits(48);
    assert!(requests.join_all().await.iter().all(|status| *status == 200));
}

/// Answers each request when the gate lets one through.
async fn held(gate: &Arc<Semaphore>) -> Origin {
    let gate = gate.clone();
    Origin::start_slow(move |_| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.expect("nobody closes it").forget();
            origin::status(200)
        }
    })
    .await
}

#[tokio::test]
async fn with_slow_start_one_that_joins_gets_its_share_by_and_by() {
    let origins = three().await;
    let all = urls(&origins);
    let configuration =
        |instances: &[String]| one_service(instances, "load_balancing: round_robin, slow_start: 10m");
    let gateway = Gateway::start(&configuration(&all[..2]));
    eventually("the start is over", || async {
        let status = gateway.api("/api/status").await;
        (status["uptime_seconds"].as_u64() >= Some(3)).then_some(())
    })
    .await;
    gateway.reconfigure(&configuration(&all)).await;
    let percent = async |origin: &Origin| {
        let shown = gateway.instance("users", origin.address).await.expect("it is there");
        shown["slow_start_percent"].clone()
    };
    eventually("it has joined", || async { (percent(&origins[2]).await == 10).then_some(()) }).await;
    assert_eq!((percent(&origins[0]).await, percent(&origins[1]).await), (json!(null), json!(null)));
    let [a, b, new] = counts(&gateway, &origins, 150).await;
    assert!(new <= 20, "{new} of 150, of which 5 are to be expected");
    about(a, b, 20);
    // The only one that is left gets everything.
    origins[0].kill();
    origins[1].kill();
    assert_eq!(counts(&gateway, &origins, 30).await[2], new + 30);
}

async fn slow() -> Origin {
    Origin::start_slow(|_| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Response::new(Full::new(Bytes::from_static(b"slow")))
    })
    .await
}

#[tokio::test]
async fn the_share_of_a_dead_instance_is_divided() {
    for rule in ["round_robin", "weighted", "random", "least_requests", "peak_ewma"] {
        let origins = three().await;
        let gateway = Gateway::start(&one_service(&urls(&origins), &format!("load_balancing: {rule}")));
        origins[1].kill();
        let [a, dead, c] = counts(&gateway, &origins, 120).await;
        assert_eq!((dead, a + c), (0, 120), "{rule}");
        match rule {
            "round_robin" | "weighted" => about(a, 60, 8),
            // One late answer, and an instance is spared for a while, rightly.
            "peak_ewma" => {}
            _ => about(a, 60, 40),
        }
    }
}

#[tokio::test]
async fn an_instance_that_fails_fast_attracts_nothing() {
    for rule in ["least_requests", "random", "round_robin", "peak_ewma"] {
        let slow_and_well = |_| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            origin::status(200)
        };
        let failing = Origin::status(500).await;
        let well = [Origin::start_slow(slow_and_well).await, Origin::start_slow(slow_and_well).await];
        let urls = [failing.url(), well[0].url(), well[1].url()];
        // A 500 is no failure for this breaker, so nothing but the rule keeps requests away.
        let gateway = Gateway::start(&one_service(&urls, &format!("load_balancing: {rule}")));
        load(&gateway, 8, 30).await;
        let share = failing.count();
        assert!(share <= 240 * 45 / 100, "{rule}: the failing instance got {share} of 240");
        if rule == "least_requests" {
            assert!(share <= 240 / 3, "{rule}: the failing instance got {share} of 240");
        }
        if rule == "peak_ewma" {
            assert!(share <= 240 / 10, "{rule}: the failing instance got {share} of 240");
        }
    }
}
