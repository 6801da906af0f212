//! The one deadline of all parts: what services are told of it, and what each part may do within it.

use std::time::Duration;

use crate::support::{Client, Gateway, Origin, origin};

const TELLS: &str = "circuit_breaker: { consecutive_failures: 1000000, failure_ratio: off }, \
                     timeouts: { response: 60s, header: x-timeout-ms, silence: off }";

fn gateway(origins: &[&Origin], service: &str, aggregate: &str) -> Gateway {
    let urls: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.url())).collect();
    Gateway::start(&format!(
        "workers: 1\nservices: {{ parts: {{ instances: [{}], {service} }} }}\n\
         routes:\n- name: all\n  match: {{ path: \"/all/{{id}}\" }}\n  aggregate: {{ {aggregate} }}\n\
         - name: one\n  match: {{ prefix: /one }}\n  forward: {{ service: parts, timeouts: {{ total: 30s }} }}\n\
         - name: plain\n  match: {{ prefix: /plain }}\n  forward: {{ service: parts }}\n",
        urls.join(", ")
    ))
}

/// What the origin was told with the requests for this target, in their order.
fn told(origin: &Origin, target: &str, name: &str) -> Vec<u64> {
    let seen = origin.seen();
    let of_target = seen.iter().filter(|seen| seen.target == target);
    let values = of_target.map(|seen| {
        let values: Vec<_> = seen.headers.get_all(name).iter().collect();
        let [only] = values[..] else { panic!("{target} was told {values:?}") };
        let text = only.to_str().expect("it is text").trim_end_matches('m');
        text.parse().unwrap_or_else(|_| panic!("{target} was told {only:?}"))
    });
    values.collect()
}

#[tokio::test]
async fn services_are_told_what_is_left() {
    let origin = Origin::start_slow(|seen| async move {
        match seen.target.as_str() {
            "/slow" => tokio::time::sleep(Duration::from_millis(40)).await,
            "/busy" => {
                tokio::time::sleep(Duration::from_millis(40)).await;
                return origin::status(503);
            }
            _ => {}
        }
        origin::json("1")
    })
    .await;
    let gateway = gateway(
        &[&origin],
        &format!("{TELLS}, retries: {{ attempts: 1, budget: 100%, backoff: {{ base: 1ms, max: 1ms }} }}"),
        "timeout: 20s, parts: { a: { service: parts, path: /slow }, b: { service: parts, path: /b, after: [a] }, \
         c: { service: parts, path: /c, timeout: 5s }, d: { service: parts, path: /busy } }",
    );
    // What the client says of its own is another thing.
    let client = Client::new(gateway.http()).header("x-timeout-ms", "7");
    assert_eq!(client.get("/all/1").await.status, 200);
    let [first] = told(&origin, "/slow", "x-timeout-ms")[..] else { panic!() };
    let [then] = told(&origin, "/b", "x-timeout-ms")[..] else { panic!() };
    assert!((1..=20_000).contains(&first) && then >= 1, "{first} {then}");
    assert!(then + 40 <= first, "{then} ms after {first} ms, and 40 ms between them");
    let [own] = told(&origin, "/c", "x-timeout-ms")[..] else { panic!() };
    assert!((1..=5_000).contains(&own), "{own}");
    // Each attempt is told anew.
    let [attempt, again] = told(&origin, "/busy", "x-timeout-ms")[..] else { panic!() };
    assert!(again + 40 <= attempt, "{again} ms after {attempt} ms, and 40 ms between them");
    // A forwarded request as well, as far as it has a bound.
    for (path, most) in [("/one", 30_000), ("/plain", 60_000)] {
        assert_eq!(client.get(path).await.status, 200);
        let [left] = told(&origin, path, "x-timeout-ms")[..] else { panic!() };
        assert!((1..=most).contains(&left) && left != 7, "{path} {left}");
    }
}

#[tokio::test]
async fn nobody_is_told_unless_it_is_asked_for() {
    let origin = Origin::json("1").await;
    let gateway = gateway(&[&origin], "", "parts: { a: { service: parts, path: /a } }");
    let client = Client::new(gateway.http()).header("x-timeout-ms", "7").header("grpc-timeout", "5S");
    assert_eq!((client.get("/all/1").await.status, client.get("/one").await.status), (200, 200));
    for seen in origin.seen() {
        assert_eq!((seen.header("x-timeout-ms"), seen.header("grpc-timeout")), (Some("7"), Some("5S")));
    }
}

#[tokio::test]
async fn grpc_has_a_form_of_its_own_in_which_the_client_may_want_less() {
    let origin = Origin::json("1").await;
    let service = TELLS.replace("x-timeout-ms", "grpc-timeout");
    let gateway = gateway(&[&origin], &service, "timeout: 20s, parts: { a: { service: parts, path: /a } }");
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/all/1").await.status, 200);
    let text = origin.only().header("grpc-timeout").expect("it is told").to_owned();
    assert!(text.ends_with('m') && text.len() <= 9, "{text}");
    assert!((1..=20_000).contains(&told(&origin, "/a", "grpc-timeout")[0]));
    for (own, told_of) in [("3S", Some(3000)), ("250m", Some(250)), ("99999999H", None), ("1h", None)] {
        let before = origin.count();
        assert_eq!(Client::new(gateway.http()).header("grpc-timeout", own).get("/one").await.status, 200);
        let left = told(&origin, "/one", "grpc-timeout")[before - 1];
        match told_of {
            Some(exact) => assert_eq!(left, exact),
            None => assert!((1..=30_000).contains(&left), "{left}"),
        }
    }
}

#[tokio::test]
async fn each_part_has_retries_and_a_second_attempt_of_its_own() {
    let busy = Origin::status(503).await;
    let service = "retries: { attempts: 2, budget: 100%, backoff: { base: 1ms, max: 1ms } }, \
                   circuit_breaker: { consecutive_failures: 1000000, failure_ratio: off }, timeouts: { response: 60s, silence: off }";
    let parts = "a: { service: parts, path: /a }, b: { service: parts, path: /b, retries: { attempts: 0 } }, \
                 c: { service: parts, path: /c, retries: { attempts: 1 } }, \
                 d: { service: parts, path: /d, retries: { on: [connect_failure] } }";
    let gateway_of_busy = gateway(&[&busy], service, &format!("parts: {{ {parts} }}"));
    assert_eq!(Client::new(gateway_of_busy.http()).get("/all/1").await.status, 200);
    let asked = |target: &str| busy.seen().iter().filter(|seen| seen.target == target).count();
    assert_eq!((asked("/a"), asked("/b"), asked("/c"), asked("/d")), (3, 1, 2, 1));
    let plan = gateway_of_busy.api("/api/routes").await["routes"][0]["action"]["aggregate"]["parts"].clone();
    assert_eq!(
        (&plan[0]["overrides"], &plan[1]["overrides"]),
        (&serde_json::Value::Null, &serde_json::json!(["retries"]))
    );

    let hanging = Origin::start_slow(|_| std::future::pending()).await;
    let well = Origin::json("1").await;
    let both = gateway(
        &[&hanging, &well],
        &format!("{service}, load_balancing: round_robin"),
        "timeout: 60s, parts: { a: { service: parts, path: /a, hedging: { after: 20ms, budget: 100% } }, \
         b: { service: parts, path: /b, after: [a], hedging: { after: 20ms, budget: 100% } } }",
    );
    let reply = Client::new(both.http()).get("/all/1").await;
    assert_eq!(reply.text(), r#"{"a":1,"b":1}"#);
    // One of the two was at the hanging one first, unless the other took its time, and then it was hedged for that.
    assert!(both.metric("gatehouse_hedges_total", &["service=\"parts\""]).await >= 1.0);
}
