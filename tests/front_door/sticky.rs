//! Clients that stay with an instance by a cookie.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};

use crate::support::client::Reply;
use crate::support::{Client, Gateway, Origin, one_service, origin};

const STICKY: &str = "load_balancing: random, sticky: { cookie: at }";
const SECRET: &str = "load_balancing: random, sticky: { cookie: at, secret: a-long-enough-secret }";

async fn five() -> Vec<Origin> {
    let mut origins = Vec::new();
    for text in ["a", "b", "c", "d", "e"] {
        origins.push(Origin::text(text).await);
    }
    origins
}

fn urls(origins: &[Origin]) -> Vec<String> {
    origins.iter().map(Origin::url).collect()
}

/// The cookie that a response sets, as the client sends it back.
fn cookie(reply: &Reply) -> Option<String> {
    let set = reply.header("set-cookie")?;
    let (pair, attributes) = set.split_once("; ").expect("there are attributes");
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    let code = pair.strip_prefix("at=").expect("it has the name that it was given");
    assert!(code.len() == 32 && code.bytes().all(|byte| byte.is_ascii_hexdigit()), "{code}");
    Some(pair.to_owned())
}

/// Asks until an instance has answered, and returns who that was and a client that stays there.
async fn settle(gateway: &Gateway) -> (String, Client) {
    let first = Client::new(gateway.http()).get("/").await;
    let cookie = cookie(&first).expect("a new client gets a cookie");
    (first.text(), Client::new(gateway.http()).header("cookie", &format!("x=1; {cookie}")))
}

async fn stays(client: &Client, with: &str) {
    for _ in 0..10 {
        let reply = client.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, with));
        assert_eq!(reply.header("set-cookie"), None, "it knows already");
    }
}

/// A client waits for a connection to its instance, and goes to another before it gets an error.
#[tokio::test]
async fn a_client_whose_instance_has_no_connection_left_goes_elsewhere_in_the_end() {
    let mut origins = Vec::new();
    for text in ["a", "b"] {
        origins.push(
            Origin::start_slow(move |seen| async move {
                if seen.target == "/hangs" {
                    std::future::pending::<()>().await;
                }
                http::Response::new(http_body_util::Full::from(text))
            })
            .await,
        );
    }
    let settings =
        format!("{STICKY}, pool: {{ max_connections: 1 }}, timeouts: {{ connect: 300ms, response: 60s }}");
    let gateway = Gateway::start(&format!("workers: 1\n{}", one_service(&urls(&origins), &settings)));
    let (one, client) = settle(&gateway).await;
    let other = if one == "a" { "b" } else { "a" };
    let hanging = client.clone();
    let hung =
        tokio::spawn(async move { hanging.try_send(http::Method::GET, "/hangs", Default::default()).await });
    crate::support::eventually("it hangs", || async {
        origins.iter().flat_map(Origin::seen).any(|seen| seen.target == "/hangs").then_some(())
    })
    .await;
    let began = std::time::Instant::now();
    let reply = client.get("/").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, other));
    assert!(began.elapsed() >= std::time::Duration::from_millis(300), "it has not waited for its own");
    hung.abort();
}

#[tokio::test]
async fn a_client_stays_with_the_instance_that_answered_first() {
    let origins = five().await;
    let gateway = Gateway::start(&one_service(&urls(&origins), STICKY));
    let (one, client) = settle(&gateway).await;
    stays(&client, &one).await;
    let mut seen = Vec::new();
    for _ in 0..60 {
        seen.push(settle(&gateway).await.0);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5, "without a cookie, the rule decides");

    // Other settings, other instances in another order: the client stays.
    let mut fewer = origins.iter().filter(|origin| origin.address != of(&origins, &one).address);
    let mut some: Vec<String> = fewer.by_ref().take(2).map(Origin::url).collect();
    some.push(of(&origins, &one).url());
    gateway.reconfigure(&one_service(&some, &format!("{STICKY}, pool: {{ max_idle: 9 }}"))).await;
    stays(&client, &one).await;
}

fn of<'o>(origins: &'o [Origin], text: &str) -> &'o Origin {
    let place = ["a", "b", "c", "d", "e"].iter().position(|name| *name == text).expect("it is one of them");
    &origins[place]
}

#[tokio::test]
async fn what_nobody_signed_is_no_cookie() {
    let origins = five().await;
    let gateway = Gateway::start(&one_service(&urls(&origins), STICKY));
    let address = origins[0].address.to_string();
    for forged in ["", "0", &"0".repeat(32), &"f".repeat(32), &address, &"9".repeat(5000), "\"\""] {
        let client = Client::new(gateway.http()).header("cookie", &format!("at={forged}"));
        let reply = client.get("/").await;
        assert_eq!(reply.status, 200);
        assert!(cookie(&reply).is_some(), "{forged} was taken for a cookie");
    }
}

#[tokio::test]
async fn a_client_whose_instance_is_gone_goes_on_with_another() {
    let origins = five().await;
    let gateway = Gateway::start(&one_service(&urls(&origins), STICKY));
    let (one, client) = settle(&gateway).await;
    of(&origins, &one).kill();
    let reply = client.get("/").await;
    assert_eq!(reply.status, 200);
    let (other, moved) = (reply.text(), cookie(&reply).expect("it is told where it is now"));
    assert_ne!(other, one);
    stays(&Client::new(gateway.http()).header("cookie", &moved), &other).await;
}

#[tokio::test]
async fn nobody_is_to_stay_with_an_instance_that_fails() {
    let status = Arc::new(AtomicU16::new(500));
    let current = status.clone();
    let origin = Origin::start(move |_| origin::status(current.load(SeqCst))).await;
    let gateway = Gateway::start(&one_service(&[origin.url()], STICKY));
    let client = Client::new(gateway.http());
    assert_eq!(cookie(&client.get("/").await), None);
    status.store(404, SeqCst);
    assert!(cookie(&client.get("/").await).is_some());
}

#[tokio::test]
async fn with_a_secret_all_gateways_know_the_cookie() {
    let origins = five().await;
    let gateway = Gateway::start(&one_service(&urls(&origins), SECRET));
    let set = Client::new(gateway.http()).get("/").await;
    let (with, pair) = (set.text(), cookie(&set).expect("a new client gets a cookie"));
    let second = Gateway::start(&one_service(&urls(&origins), SECRET));
    stays(&Client::new(second.http()).header("cookie", &pair), &with).await;
    let third = Gateway::start(&one_service(&urls(&origins), STICKY));
    let reply = Client::new(third.http()).header("cookie", &pair).get("/").await;
    assert!(cookie(&reply).is_some(), "its key is its own");

    // The key changes with the secret, and changes back.
    gateway.reconfigure(&one_service(&urls(&origins), &SECRET.replace("a-long", "another-long"))).await;
    assert!(cookie(&Client::new(gateway.http()).header("cookie", &pair).get("/").await).is_some());
    let (now, client) = settle(&gateway).await;
    stays(&client, &now).await;
    gateway.reconfigure(&one_service(&urls(&origins), SECRET)).await;
    stays(&Client::new(gateway.http()).header("cookie", &pair), &with).await;
}
