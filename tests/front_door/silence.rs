//! An instance that answers nobody while others answer: what the requests come to that wait there, and those after them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http::Method;
use tokio::task::JoinSet;

use crate::support::raw::{RawOrigin, exchange};
use crate::support::{Client, Gateway, Origin, eventually, one_service, origin};

/// Far more than an answer takes, and far less than `timeouts.response`.
const SOON: Duration = Duration::from_secs(6);
const NONE: [u16; 0] = [];

/// Answers while it is not told to hang; then what it was asked is answered once that is over.
async fn hanging() -> (Origin, Arc<AtomicBool>) {
    let hangs = Arc::new(AtomicBool::new(false));
    let told = hangs.clone();
    let origin = Origin::start_slow(move |_| {
        let told = told.clone();
        async move {
            while told.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            origin::status(200)
        }
    })
    .await;
    (origin, hangs)
}

/// Takes connections and never reads from them, as a stopped process does.
async fn stopped() -> RawOrigin {
    RawOrigin::start(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

fn in_turn(origins: &[&Origin], settings: &str) -> Gateway {
    let urls: Vec<String> = origins.iter().map(|origin| origin.url()).collect();
    Gateway::start(&one_service(&urls, &format!("load_balancing: round_robin, {settings}")))
}

/// In one worker, so that of two requests one goes to each of two instances first; and with little time for an answer.
fn in_turn_at(urls: &[String], settings: &str) -> Gateway {
    let settings = format!("load_balancing: round_robin, timeouts: {{ response: 1s }}, {settings}");
    Gateway::start(&format!("workers: 1\n{}", one_service(urls, &settings)))
}

async fn passed_over(gateway: &Gateway, origin: &Origin) -> serde_json::Value {
    gateway.instance("users", origin.address).await.expect("it is there")["passed_over"].clone()
}

/// So many clients, each asking so often: the statuses that are not 200, and the longest that one waited.
async fn load(gateway: &Gateway, method: Method, clients: usize, requests: usize) -> (Vec<u16>, Duration) {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (client, method) = (Client::new(gateway.http()), method.clone());
        tasks.spawn(async move {
            let (mut bad, mut longest) = (Vec::new(), Duration::ZERO);
            for _ in 0..requests {
                let began = Instant::now();
                let status = client.send(method.clone(), "/", Default::default()).await.status;
                longest = longest.max(began.elapsed());
                bad.extend((status != 200).then_some(status));
            }
            (bad, longest)
        });
    }
    let all = tasks.join_all().await;
    let longest = all.iter().map(|(_, longest)| *longest).max().expect("there are clients");
    (all.into_iter().flat_map(|(bad, _)| bad).collect(), longest)
}

#[tokio::test]
async fn what_waits_there_is_sent_elsewhere_and_what_comes_after_goes_elsewhere() {
    let ((silent, hangs), well, too) =
        (hanging().await, Origin::status(200).await, Origin::status(200).await);
    let gateway = in_turn(&[&silent, &well, &too], "");
    assert_eq!(load(&gateway, Method::GET, 4, 10).await.0, NONE);
    hangs.store(true, SeqCst);
    let (bad, longest) = load(&gateway, Method::GET, 8, 30).await;
    assert_eq!(bad, NONE);
    assert!(longest < SOON, "{longest:?}");
    assert_eq!(passed_over(&gateway, &silent).await, "silent");
    let address = format!("instance=\"{}\"", silent.address);
    assert_eq!(gateway.metric("gatehouse_instance_passed_over", &[&address]).await, 1.0);
    gateway.wait_for(&format!("{} answers nothing while others do", silent.address));
    let retries = gateway.metric("gatehouse_upstream_retries_total", &[]).await;
    assert!((1.0..=100.0).contains(&retries), "{retries}");
    hangs.store(false, SeqCst);
    let client = Client::new(gateway.http());
    eventually("it is taken up again", || async {
        client.get("/").await;
        passed_over(&gateway, &silent).await.is_null().then_some(())
    })
    .await;
    gateway.wait_for(&format!("{} answers again", silent.address));
}

/// What may not be sent twice waits where it is, and is answered when the instance goes on. Others don't come after it.
#[tokio::test]
async fn a_post_waits_and_is_not_followed_by_others() {
    let ((silent, hangs), well) = (hanging().await, Origin::status(200).await);
    let gateway = in_turn(&[&silent, &well], "");
    assert_eq!(load(&gateway, Method::POST, 2, 10).await.0, NONE);
    let before = silent.count();
    hangs.store(true, SeqCst);
    let waiting = {
        let client = Client::new(gateway.http());
        let mut all = JoinSet::new();
        let posted = || async { silent.count() > before };
        while !posted().await {
            let client = client.clone();
            all.spawn(async move { client.post("/", "").await.status });
            tokio::task::yield_now().await;
        }
        all
    };
    let client = Client::new(gateway.http());
    eventually("it is passed over", || async {
        let client = client.clone();
        // Each at its own time: one that goes to the silent instance must not keep the others from showing its silence.
        tokio::spawn(async move { client.try_send(Method::POST, "/", Default::default()).await });
        (passed_over(&gateway, &silent).await == "silent").then_some(())
    })
    .await;
    let (stuck, answered) = (silent.count(), well.count());
    let (bad, longest) = load(&gateway, Method::POST, 2, 20).await;
    assert_eq!(bad, NONE);
    assert!(longest < SOON, "{longest:?}");
    assert!(well.count() - answered >= 40 && silent.count() <= stuck + 1, "one may try it");
    assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 0.0);
    hangs.store(false, SeqCst);
    assert!(waiting.join_all().await.iter().all(|status| *status == 200));
}

/// Its breaker opened because it said nothing, and does not keep it waiting once it says something.
#[tokio::test]
async fn its_breaker_lets_a_request_through_as_soon_as_it_answers() {
    let ((silent, hangs), well, too) =
        (hanging().await, Origin::status(200).await, Origin::status(200).await);
    let gateway = in_turn(
        &[&silent, &well, &too],
        "circuit_breaker: { consecutive_failures: 2, open_for: 10m, max_open_for: 10m }",
    );
    let breaker = async || {
        let shown = gateway.instance("users", silent.address).await.expect("it is there");
        shown["breaker"]["state"].clone()
    };
    assert_eq!(load(&gateway, Method::GET, 4, 10).await.0, NONE);
    hangs.store(true, SeqCst);
    let (mut posts, client) = (JoinSet::new(), Client::new(gateway.http()));
    while !silent.seen().iter().any(|seen| seen.method == Method::POST) {
        let client = client.clone();
        posts.spawn(async move { client.post("/", "").await.status });
        tokio::task::yield_now().await;
    }
    eventually("its breaker is open", || async {
        assert_eq!(load(&gateway, Method::GET, 8, 3).await.0, NONE);
        (breaker().await == "open").then_some(())
    })
    .await;
    hangs.store(false, SeqCst);
    assert!(posts.join_all().await.iter().all(|status| *status == 200));
    eventually("its breaker is closed", || async {
        client.get("/").await;
        (breaker().await == "closed").then_some(())
    })
    .await;
}

/// One slow answer among quick ones of the same instance says nothing about it.
#[tokio::test]
async fn an_instance_that_answers_others_is_not_silent() {
    let slow_and_quick = || {
        Origin::start_slow(|seen| async move {
            if seen.target == "/slow" {
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
            origin::status(200)
        })
    };
    let (one, other) = (slow_and_quick().await, slow_and_quick().await);
    let gateway = in_turn(&[&one, &other], "");
    let over = Arc::new(AtomicBool::new(false));
    let quick = {
        let (client, over) = (Client::new(gateway.http()), over.clone());
        tokio::spawn(async move {
            while !over.load(SeqCst) {
                assert_eq!(client.get("/quick").await.status, 200);
            }
        })
    };
    let client = Client::new(gateway.http());
    for _ in 0..3 {
        assert_eq!(client.get("/slow").await.status, 200);
        assert!(passed_over(&gateway, &one).await.is_null() && passed_over(&gateway, &other).await.is_null());
    }
    over.store(true, SeqCst);
    quick.await.expect("all were answered");
    assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 0.0);
}

/// There is nobody to compare it with: after twice the time, another is asked.
#[tokio::test]
async fn a_client_alone_is_answered_as_well() {
    let ((silent, hangs), well) = (hanging().await, Origin::status(200).await);
    let gateway = in_turn(&[&silent, &well], "timeouts: { silence: 200ms }");
    assert_eq!(load(&gateway, Method::GET, 1, 10).await.0, NONE);
    hangs.store(true, SeqCst);
    let (bad, longest) = load(&gateway, Method::GET, 1, 10).await;
    assert_eq!(bad, NONE);
    assert!(longest >= Duration::from_millis(400) && longest < SOON, "{longest:?}");
    assert_eq!(passed_over(&gateway, &silent).await, "silent", "the answer of the other has shown it");
}

/// What was kept of it is enough for two. One of two requests goes to the instance first that says nothing.
#[tokio::test]
async fn a_request_with_a_body_is_sent_elsewhere_whole() {
    let bytes = |length: usize| (0..length).map(|byte| byte as u8).collect::<Vec<_>>();
    for (method, length, settings) in [
        (Method::PUT, 1, ""),
        (Method::PUT, 1024, ""),
        (Method::DELETE, 64 * 1024, ""),
        (Method::POST, 1024, "retries: { methods: [POST] }"),
    ] {
        let (well, stopped) = (Origin::text("well").await, stopped().await);
        let gateway = in_turn_at(&[stopped.url(), well.url()], settings);
        let client = Client::new(gateway.http());
        for _ in 0..2 {
            let reply = client.send(method.clone(), "/", bytes(length).into()).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "well"), "{method} {length}");
        }
        let seen = well.seen();
        assert!(seen.len() == 2 && seen.iter().all(|seen| seen.body == bytes(length)), "{method} {length}");
        assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 1.0);
    }
}

#[tokio::test]
async fn a_chunked_body_is_sent_elsewhere_whole() {
    let (well, stopped) = (Origin::text("well").await, stopped().await);
    let gateway = in_turn_at(&[stopped.url(), well.url()], "");
    let head = "PUT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n";
    let request = format!("{head}5\r\nbegun\r\n6\r\n ended\r\n0\r\nx-sum: 1\r\n\r\n");
    for _ in 0..2 {
        let reply = exchange(gateway.http(), &request).await;
        assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("well"), "{reply}");
    }
    for seen in well.seen() {
        assert_eq!(seen.body, "begun ended");
        assert!(seen.trailers.is_some_and(|trailers| trailers["x-sum"] == "1"));
    }
    assert_eq!(gateway.metric("gatehouse_upstream_retries_total", &[]).await, 1.0);
}

#[tokio::test]
async fn what_may_not_be_sent_twice_or_is_not_kept_is_left_where_it_is() {
    for (method, length, settings) in [
        (Method::PUT, 64 * 1024 + 1, ""),
        (Method::PUT, 101, "retries: { keep_body: 100B }"),
        (Method::PUT, 1, "retries: { keep_body: 0 }"),
        (Method::POST, 1, ""),
        (Method::PATCH, 1, ""),
    ] {
        let (well, stopped) = (Origin::text("well").await, stopped().await);
        let gateway = in_turn_at(&[stopped.url(), well.url()], settings);
        let client = Client::new(gateway.http());
        let ask = async || client.send(method.clone(), "/", vec![b'x'; length].into()).await.status;
        let mut statuses = [ask().await, ask().await];
        statuses.sort_unstable();
        assert_eq!((statuses, well.count()), ([200, 504], 1), "{method} {length} {settings}");
    }
}

/// Nobody has ever answered: half of the time for an answer is what there is to go by.
#[tokio::test]
async fn half_of_the_time_is_enough_for_the_first() {
    let (one, other) = (Origin::status(200).await, Origin::status(200).await);
    let (silent, hangs) = hanging().await;
    hangs.store(true, SeqCst);
    let gateway = in_turn(&[&silent, &one, &other], "timeouts: { response: 1s }");
    let (bad, longest) = load(&gateway, Method::GET, 1, 6).await;
    assert_eq!(bad, NONE);
    assert!(longest >= Duration::from_millis(450), "{longest:?}");
}

#[tokio::test]
async fn what_says_otherwise_is_left_where_it_is() {
    for settings in [
        "timeouts: { response: 1s, silence: off }",
        "timeouts: { response: 1s, silence: 100ms }, retries: { attempts: 0 }",
        "timeouts: { response: 1s, silence: 100ms }, retries: { budget: 0% }",
        "timeouts: { response: 1s, silence: 100ms }, retries: { methods: [HEAD] }",
    ] {
        let ((silent, hangs), well) = (hanging().await, Origin::status(200).await);
        hangs.store(true, SeqCst);
        let gateway = in_turn(&[&silent, &well], settings);
        let client = Client::new(gateway.http());
        let mut bad = Vec::new();
        while bad.is_empty() {
            let reply = client.get("/").await;
            bad.extend((reply.status != 200).then(|| reply.code()));
        }
        assert_eq!((bad, silent.count()), (vec!["response_timeout".to_owned()], 1), "{settings}");
    }
}

/// What is the use of cutting an attempt short, if not to make another?
#[tokio::test]
async fn an_attempt_that_is_cut_short_is_followed_by_another() {
    let ((silent, hangs), well) = (hanging().await, Origin::status(200).await);
    hangs.store(true, SeqCst);
    let gateway =
        in_turn(&[&silent, &well], "timeouts: { silence: off }, retries: { per_attempt_timeout: 100ms }");
    let (bad, longest) = load(&gateway, Method::GET, 1, 6).await;
    assert_eq!(bad, NONE);
    assert!(longest >= Duration::from_millis(100) && silent.count() > 0);
}

/// Beside an attempt that waits in vain, one that finds nobody uses up no retry either.
#[tokio::test]
async fn neither_the_silent_nor_those_that_are_not_there_use_up_the_retries() {
    let ((silent, hangs), bad, good) =
        (hanging().await, Origin::status(502).await, Origin::status(200).await);
    let (breaks_off, absent) = (RawOrigin::answering("").await, Origin::status(200).await);
    let urls = [silent.url(), bad.url(), breaks_off.url(), absent.url(), good.url()];
    let instances: Vec<String> =
        (0..).zip(&urls).map(|(n, url)| format!("{{ url: '{url}', priority: {n} }}")).collect();
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ timeouts: {{ silence: 100ms }}, retries: {{ attempts: 2, budget: 100% }}, instances: [{}] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n",
        instances.join(", ")
    ));
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(silent.count(), 1, "the first of the order is asked");
    absent.kill();
    hangs.store(true, SeqCst);
    let began = Instant::now();
    assert_eq!(client.get("/").await.status, 200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!((silent.count(), bad.count(), breaks_off.connections(), good.count()), (2, 1, 1, 1));
}
