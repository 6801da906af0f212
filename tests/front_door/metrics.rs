//! Metrics and identifiers: what was sent is what is counted, and a request can be followed.

use std::collections::BTreeMap;

use crate::support::{Client, Gateway, Origin, Session, eventually, origin, tokens};

fn two_routes(url: &str) -> String {
    format!(
        "services: {{ users: {{ instances: ['{url}'] }} }}\n\
         routes:\n  - {{ name: users, match: {{ prefix: /users }}, forward: {{ service: users }} }}\n  \
         - {{ name: ping, match: {{ path: /ping, methods: [GET] }}, respond: {{ text: pong }} }}\n"
    )
}

async fn text(gateway: &Gateway) -> String {
    Client::new(gateway.admin()).get("/metrics").await.text()
}

#[tokio::test]
async fn what_was_sent_is_what_is_counted() {
    let origin = Origin::start(|seen| match seen.target.contains("missing") {
        true => origin::status(404),
        false => origin::json("{\"id\":1}"),
    })
    .await;
    let gateway = Gateway::start(&two_routes(&origin.url()));
    let client = Client::new(gateway.http());
    for _ in 0..7 {
        client.get("/users/1").await;
    }
    for _ in 0..3 {
        client.post("/users/missing", "12345").await;
    }
    client.get("/ping").await;
    client.get("/nowhere").await;
    client.send(http::Method::DELETE, "/ping", Default::default()).await;
    let instance = format!("instance=\"{}\"", origin.address);
    let expected: &[(&str, &[&str], f64)] = &[
        ("http_requests_total", &[], 13.0),
        ("http_requests_total", &["route=\"users\"", "status=\"200\""], 7.0),
        ("http_requests_total", &["route=\"users\"", "status=\"404\""], 3.0),
        ("http_requests_total", &["route=\"ping\""], 1.0),
        ("http_requests_total", &["route=\"(none)\""], 2.0),
        ("http_errors_total", &["reason=\"route_not_found\""], 1.0),
        ("http_errors_total", &["reason=\"method_not_allowed\""], 1.0),
        ("http_request_duration_seconds_count", &["route=\"users\""], 10.0),
        ("http_request_body_bytes_total", &["route=\"users\""], 15.0),
        ("http_response_body_bytes_total", &["route=\"users\""], 7.0 * 8.0),
        ("gatehouse_upstream_requests_total", &[&instance, "outcome=\"2xx\""], 7.0),
        ("gatehouse_upstream_requests_total", &[&instance, "outcome=\"4xx\""], 3.0),
        ("gatehouse_upstream_duration_seconds_count", &[&instance], 10.0),
        ("gatehouse_service_instances", &["service=\"users\""], 1.0),
        ("gatehouse_breaker_state", &[&instance], 0.0),
        ("gatehouse_instance_healthy", &[&instance], 1.0),
        ("gatehouse_config_generation", &[], 1.0),
        ("gatehouse_workers", &[], 2.0),
        ("gatehouse_draining", &[], 0.0),
    ];
    // An exchange is counted when its last byte is gone, which its client may know a moment before.
    eventually("all are counted", || async {
        (gateway.metric("http_requests_total", &[]).await == 13.0).then_some(())
    })
    .await;
    for (name, labels, value) in expected {
        assert_eq!(gateway.metric(name, labels).await, *value, "{name}{labels:?}\n{}", text(&gateway).await);
    }
    assert_eq!(gateway.metric("http_requests_active", &[]).await, 0.0);
}

#[tokio::test]
async fn requests_on_their_way_are_active() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let waiting = gate.clone();
    let origin = Origin::start_slow(move |_| {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.expect("it is never closed").forget();
            origin::status(200)
        }
    })
    .await;
    let gateway = Gateway::start(&two_routes(&origin.url()));
    let mut session = Session::open(gateway.http()).await;
    let watch = async {
        eventually("it is there", || async { (origin.count() == 1).then_some(()) }).await;
        assert_eq!(gateway.metric("http_requests_active", &["route=\"users\""]).await, 1.0);
        assert_eq!(gateway.metric("gatehouse_upstream_active", &["service=\"users\""]).await, 1.0);
        gate.add_permits(1);
    };
    let (_, ()) = tokio::join!(session.get("/users"), watch);
    eventually("it is over", || async {
        (gateway.metric("http_requests_active", &["route=\"users\""]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_scrape_has_what_its_scraper_was_answered_before() {
    let gateway = Gateway::start(&two_routes("http://127.0.0.1:1"));
    let mut session = Session::open(gateway.http()).await;
    // Workers count in batches: wherever in one a scrape comes, it takes all of it.
    for sent in 1..=100u32 {
        session.get("/ping").await;
        assert_eq!(gateway.metric("http_requests_total", &["route=\"ping\""]).await, f64::from(sent));
    }
    assert_eq!(gateway.metric("http_requests_active", &[]).await, 0.0);
}

#[tokio::test]
async fn histograms_and_names_are_as_scrapers_want_them() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&two_routes(&origin.url()));
    for _ in 0..5 {
        Client::new(gateway.http()).get("/users").await;
    }
    let text = text(&gateway).await;
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut typed = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().expect("a name").to_owned();
            assert!(typed.insert(name), "{line} comes twice");
        }
        if line.starts_with('#') || !line.contains("_bucket{") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (before, after) = series.split_once("le=\"").expect("a bucket has a bound");
        let (bound, rest) = after.split_once('"').expect("it is quoted");
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
        let value = value.parse().expect("a number");
        buckets.entry(format!("{before}{rest}")).or_default().push((bound, value));
    }
    assert!(!buckets.is_empty());
    for (series, buckets) in &buckets {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{series}: {buckets:?}");
        let (last, all) = buckets.last().expect("there is one");
        assert_eq!(*last, f64::INFINITY, "{series}");
        let name = series.split('{').next().and_then(|name| name.strip_suffix("_bucket")).expect("a name");
        let route =
            series.split('{').nth(1).map(|labels| labels.trim_end_matches([',', '}'])).expect("labels");
        let labels: Vec<&str> = route.split(',').filter(|label| !label.is_empty()).collect();
        assert_eq!(gateway.metric(&format!("{name}_count"), &labels).await, *all, "{series}");
    }
    for name in documented() {
        let known = typed.contains(&name) || typed.contains(name.trim_end_matches("_total"));
        // Some need a limit or a token that nobody has used here.
        let shown_later =
            ["retries_refused", "fallbacks", "concurrency", "hedges"].iter().any(|part| name.contains(part));
        assert!(known || shown_later, "{name} is documented and not shown:\n{text}");
    }
    let open = Client::new(gateway.admin()).header("accept", "application/openmetrics-text; version=1.0.0");
    let reply = open.get("/metrics").await;
    assert!(reply.header("content-type").is_some_and(|of| of.starts_with("application/openmetrics-text")));
    assert!(reply.text().ends_with("# EOF\n"));
}

/// The metrics that docs/observability.md promises.
fn documented() -> Vec<String> {
    let document = include_str!("../../docs/observability.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let metric =
        |name: &&str| ["http_", "gatehouse_", "process_"].iter().any(|start| name.starts_with(start));
    let names: Vec<String> = rows.filter(metric).map(str::to_owned).collect();
    assert!(names.len() > 30, "{names:?}");
    names
}

#[tokio::test]
async fn counters_live_on_over_reloads() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&two_routes(&origin.url()));
    let client = Client::new(gateway.http());
    client.get("/users").await;
    gateway.reconfigure(&two_routes(&origin.url()).replace("text: pong", "text: ping")).await;
    client.get("/users").await;
    eventually("both are counted", || async {
        (gateway.metric("http_requests_total", &["route=\"users\""]).await == 2.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("gatehouse_config_reloads_total", &["result=\"applied\""]).await, 1.0);
    assert_eq!(gateway.metric("gatehouse_config_generation", &[]).await, 2.0);
}

#[tokio::test]
async fn a_trace_and_a_request_id_are_passed_on_or_made() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&two_routes(&origin.url()));
    let reply = Client::new(gateway.http())
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("tracestate", "vendor=x")
        .header("x-request-id", "mine-1")
        .get("/users")
        .await;
    assert_eq!(reply.header("x-request-id"), Some("mine-1"));
    let seen = origin.only();
    assert_eq!((seen.header("x-request-id"), seen.header("tracestate")), (Some("mine-1"), Some("vendor=x")));
    let parts: Vec<_> = seen.header("traceparent").expect("it is passed on").split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", "0af7651916cd43dd8448eb211c80319c", "01"));
    assert_ne!(parts[2], "b7ad6b7169203331", "a span of the gateway's own");
    let entry = gateway.log_entry(|entry| entry["request_id"] == "mine-1");
    assert_eq!(entry["trace_id"], "0af7651916cd43dd8448eb211c80319c");

    let reply = Client::new(gateway.http()).header("traceparent", "nonsense").get("/users").await;
    let id = reply.header("x-request-id").expect("one is made").to_owned();
    let seen = origin.seen().pop().expect("it came");
    assert_eq!(seen.header("x-request-id"), Some(&*id));
    let made = seen.header("traceparent").expect("one is made").to_owned();
    let entry = gateway.log_entry(|entry| entry["request_id"] == *id);
    assert_eq!(made.split('-').nth(1), entry["trace_id"].as_str());

    // The gateway's own replies have one as well, in the field and in the document.
    let reply = Client::new(gateway.http()).header("x-request-id", "mine-2").get("/nowhere").await;
    assert_eq!(
        (reply.header("x-request-id"), &reply.json()["request_id"]),
        (Some("mine-2"), &"mine-2".into())
    );
}

#[tokio::test]
async fn what_stands_beside_the_requests_is_counted_too() {
    let origin = Origin::text("x").await;
    let gateway = Gateway::start(&format!(
        "workers: 1\nservices: {{ users: {{ instances: ['{}'] }} }}\n{}\
         rate_limits: {{ each: {{ key: \"header:x-key\", rate: 1/h, burst: 10 }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, rate_limits: [each], authenticate: {{ with: [shop] }}, \
         forward: {{ service: users }} }}]\n",
        origin.url(),
        tokens::secret_authenticator()
    ));
    let token = tokens::hs256(serde_json::json!({}));
    for key in ["a", "a", "b"] {
        let client = Client::new(gateway.http()).bearer(&token).header("x-key", key);
        assert_eq!(client.get("/").await.status, 200);
    }
    let session = Session::open(gateway.http()).await;
    let expected: &[(&str, &[&str], f64)] = &[
        ("gatehouse_connections_accepted_total", &["listener=\"http\""], 4.0),
        ("gatehouse_connections_active", &["listener=\"http\""], 1.0),
        ("gatehouse_token_cache_misses_total", &[], 1.0),
        ("gatehouse_token_cache_hits_total", &[], 2.0),
        ("gatehouse_token_cache_entries", &[], 1.0),
        ("gatehouse_rate_limit_keys", &["limit=\"each\""], 2.0),
        ("gatehouse_build_info", &[concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")], 1.0),
    ];
    for (name, labels, value) in expected {
        eventually(name, || async { (gateway.metric(name, labels).await == *value).then_some(()) }).await;
    }
    drop(session);
    eventually("nobody is connected", || async {
        (gateway.metric("gatehouse_connections_active", &[]).await == 0.0).then_some(())
    })
    .await;
    assert!(gateway.metric("http_upstream_seconds_total", &["route=\"all\""]).await > 0.0);
    let (now, minute) = (tokens::now() as f64, 60.0);
    for name in ["gatehouse_config_applied_timestamp_seconds", "process_start_time_seconds"] {
        let value = gateway.metric(name, &[]).await;
        assert!((now - value).abs() < minute, "{name} {value}");
    }
    for name in ["process_resident_memory_bytes", "process_open_fds"] {
        assert!(gateway.metric(name, &[]).await > 1.0, "{name}");
    }
}
