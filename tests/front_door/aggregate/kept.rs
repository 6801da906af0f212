//! The last good answers of parts.

use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use serde_json::json;

use super::without_times;
use crate::support::tokens::{SECRET, hs256};
use crate::support::{Client, Gateway, Origin, Reply, eventually, origin};

const NO_BREAKER: &str =
    "retries: { attempts: 0 }, circuit_breaker: { consecutive_failures: 1000000, failure_ratio: off }";

/// What the origin of a test does until it is told otherwise.
#[derive(Clone, Default)]
struct Mood(Arc<Mutex<(u16, OwnFields)>>);

/// Names and values.
type OwnFields = Vec<(String, String)>;

impl Mood {
    fn set(&self, status: u16) {
        self.0.lock().expect("nobody panics with it").0 = status;
    }

    /// From now on answers have this field, and no other.
    fn say(&self, name: &str, value: &str) {
        self.0.lock().expect("nobody panics with it").1 = vec![(name.to_owned(), value.to_owned())];
    }
}

/// Answers with the target and who asks; `/ok` always; with the status 0 in HTML, with 1 not as JSON but as what broke off.
async fn moody() -> (Origin, Mood) {
    let mood = Mood::default();
    mood.set(200);
    let current = mood.clone();
    let origin = Origin::start(move |seen| {
        let (status, fields) = current.0.lock().expect("nobody panics with it").clone();
        let who: Vec<&str> = ["authorization", "cookie", "x-api-key", "x-user-id"]
            .into_iter()
            .filter_map(|name| seen.header(name))
            .collect();
        let text = json!({ "target": seen.target, "who": who.join(" ") }).to_string();
        let (status, text) = match status {
            _ if seen.target == "/ok" => (200, text),
            0 => (200, "<html>".to_owned()),
            1 => (200, "{\"half\":".to_owned()),
            status => (status, text),
        };
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(name, value);
        }
        response.body(Full::from(text)).expect("constants")
    })
    .await;
    (origin, mood)
}

fn gateway(origin: &str, parts: &str) -> Gateway {
    Gateway::start(&configuration(origin, parts))
}

fn configuration(origin: &str, parts: &str) -> String {
    format!(
        "services: {{ parts: {{ instances: [\"{origin}\"], {NO_BREAKER} }} }}\n\
         authenticators: {{ shop: {{ jwt: {{ algorithms: [HS256], keys: [{{ secret: \"{SECRET}\" }}], claim_headers: {{ sub: x-user-id }} }} }} }}\n\
         routes:\n- name: all\n  match: {{ path: \"/all/{{id}}\" }}\n  aggregate: {{ parts: {{ {parts} }} }}\n\
         - name: mine\n  match: {{ path: \"/mine/{{id}}\" }}\n  authenticate: {{ with: [shop] }}\n  aggregate: {{ parts: {{ {parts} }} }}\n"
    )
}

/// The document without times and ages, of which there must be as many as are told.
fn document(reply: &Reply, ages: usize) -> String {
    let text = without_times(reply);
    let age = regex::Regex::new(r#""age_s":[0-9]{1,2},"#).expect("a good pattern");
    assert_eq!(age.find_iter(&text).count(), ages, "{text}");
    age.replace_all(&text, "").into_owned()
}

const A: &str = "a: { service: parts, path: \"/a/{id}\", stale_if_error: 10m, fallback: { none: true } }";

#[tokio::test]
async fn the_last_good_answer_stands_in_before_the_fallback_does() {
    let (origin, mood) = moody().await;
    let gateway = gateway(&origin.url(), A);
    let client = Client::new(gateway.http());
    let good = r#"{"a":{"target":"/a/1","who":""}}"#;
    assert_eq!(client.get("/all/1").await.text(), good);
    for (status, reason, told) in [
        (503, "part_failed", 503),
        (500, "part_failed", 500),
        (0, "part_not_json", 502),
        (1, "part_not_json", 502),
    ] {
        mood.set(status);
        let reply = client.get("/all/1").await;
        let errors = format!(r#","_errors":[{{"part":"a","reason":"{reason}","status":{told}}}]}}"#);
        assert_eq!(document(&reply, 1), good.replace("}}", "}") + &errors);
        assert_eq!(reply.header("gatehouse-missing-parts"), Some("a"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        // Nothing is known of another.
        let other = client.get("/all/2").await;
        assert_eq!(document(&other, 0), r#"{"a":{"none":true}"#.to_owned() + &errors);
    }
    origin.kill();
    eventually("the port is closed", || async {
        tokio::net::TcpStream::connect(origin.address).await.is_err().then_some(())
    })
    .await;
    let gone = client.get("/all/1").await.json();
    assert_eq!(
        (&gone["a"]["target"], &gone["_errors"][0]["reason"]),
        (&json!("/a/1"), &json!("connect_failure"))
    );
    assert_eq!(gateway.metric("gatehouse_stale_responses_total", &["service=\"parts\""]).await, 5.0);
    assert_eq!(gateway.metric("gatehouse_stale_answers", &["route=\"all\"", "part=\"a\""]).await, 1.0);
    let kept = gateway.service("parts").await["stale"][0].clone();
    assert_eq!((&kept["route"], &kept["part"], &kept["answers"]), (&json!("all"), &json!("a"), &json!(1)));
    let plan = &gateway.api("/api/routes").await["routes"][0]["action"]["aggregate"]["parts"][0];
    assert_eq!(plan["stale_if_error_ms"], 600_000);
}

#[tokio::test]
async fn what_a_service_says_is_not_overruled() {
    let (origin, mood) = moody().await;
    let parts =
        "a: { service: parts, path: \"/a/{id}\", stale_if_error: 10m, fallback: 7, select: \"$.target\" }";
    let gateway = gateway(&origin.url(), parts);
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/all/1").await.text(), r#"{"a":"/a/1"}"#);
    for status in [401, 403, 429, 302] {
        mood.set(status);
        let told =
            format!(r#"{{"a":7,"_errors":[{{"part":"a","reason":"part_failed","status":{status}}}]}}"#);
        assert_eq!(document(&client.get("/all/1").await, 0), told);
    }
    // Still there.
    mood.set(503);
    assert_eq!(client.get("/all/1").await.json()["a"], "/a/1");
    // What is gone isn't given any more.
    mood.set(404);
    let told = r#"{"a":7,"_errors":[{"part":"a","reason":"part_not_found","status":404}]}"#;
    assert_eq!(document(&client.get("/all/1").await, 0), told);
    mood.set(503);
    assert_eq!(client.get("/all/1").await.json()["a"], 7);
    // Nor is kept what may not be.
    for (name, value) in [
        ("cache-control", "no-store"),
        ("cache-control", "private"),
        ("cache-control", "max-age=0, must-revalidate"),
        ("set-cookie", "a=b"),
        ("vary", "*"),
    ] {
        mood.set(200);
        mood.say(name, value);
        assert_eq!(client.get("/all/2").await.json()["a"], "/a/2");
        mood.set(503);
        assert_eq!(client.get("/all/2").await.json()["a"], 7, "{name}: {value}");
    }
}

#[tokio::test]
async fn an_answer_is_given_to_nobody_who_asks_as_somebody_else() {
    let (origin, mood) = moody().await;
    let gateway = gateway(&origin.url(), A);
    let client = || Client::new(gateway.http());
    let clients = || {
        [
            client(),
            client().header("authorization", "Basic YTpi"),
            client().header("authorization", "Basic YTpj"),
            client().header("cookie", "s=1"),
            client().header("cookie", "s=2"),
            client().header("x-api-key", "one"),
            client().header("x-api-key", "two"),
            client().host("other.example"),
        ]
    };
    for turn in 0..8 {
        let path = format!("/all/{turn}");
        mood.set(200);
        let good = clients()[turn].get(&path).await.json()["a"].clone();
        mood.set(503);
        for (place, other) in clients().iter().enumerate() {
            let given = other.get(&path).await.json()["a"].clone();
            assert_eq!(
                given,
                if place == turn { good.clone() } else { json!({ "none": true }) },
                "{turn} {place}"
            );
        }
        // What says nothing of who asks makes no difference.
        let again = client().header("user-agent", "other").header("x-forwarded-for", "10.0.0.1");
        let again = again.header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let given = again.get(&path).await.json()["a"].clone();
        assert_eq!(given, if turn == 0 { good } else { json!({ "none": true }) }, "{turn}");
    }
    // What is everybody's is given to everybody.
    mood.set(200);
    mood.say("cache-control", "public");
    let [nobody, one, .., elsewhere] = clients();
    let good = one.get("/all/9").await.json()["a"].clone();
    mood.set(503);
    for other in clients().iter().take(7) {
        assert_eq!(other.get("/all/9").await.json()["a"], good);
    }
    assert_eq!(elsewhere.get("/all/9").await.json()["a"], json!({ "none": true }));
    // Unless it depends on what that one has sent.
    mood.set(200);
    mood.say("vary", "x-lang");
    let of = |client: &Client, lang: &str| client.clone().header("x-lang", lang);
    assert_eq!(of(&nobody, "de").get("/all/10").await.status, 200);
    mood.set(503);
    assert_eq!(of(&nobody, "de").get("/all/10").await.json()["a"]["target"], "/a/10");
    assert_eq!(of(&nobody, "en").get("/all/10").await.json()["a"], json!({ "none": true }));
}

#[tokio::test]
async fn claims_tell_whose_an_answer_is() {
    let (origin, mood) = moody().await;
    let parts = "a: { service: parts, path: \"/a/{id}\", stale_if_error: 10m, forward_headers: [] }";
    let gateway = gateway(&origin.url(), parts);
    let of = |sub: &str, number: u64| {
        Client::new(gateway.http()).bearer(&hs256(json!({ "sub": sub, "jti": number.to_string() })))
    };
    let good = of("ada", 1).get("/mine/1").await.json()["a"].clone();
    assert_eq!(good["who"], "ada");
    mood.set(503);
    // Another token of the same client, of which the service is told the same.
    assert_eq!(of("ada", 2).get("/mine/1").await.json()["a"], good);
    assert_eq!(of("bob", 1).get("/mine/1").await.json()["a"], json!(null));
    assert_eq!(Client::new(gateway.http()).get("/mine/1").await.status, 401);
    // Everybody's, but for what depends on who asks.
    mood.set(200);
    mood.say("cache-control", "public");
    assert_eq!(of("ada", 1).get("/mine/2").await.status, 200);
    mood.set(503);
    assert_eq!(of("bob", 1).get("/mine/2").await.json()["a"]["who"], "ada");
    mood.set(200);
    mood.say("vary", "x-user-id");
    assert_eq!(of("ada", 1).get("/mine/3").await.status, 200);
    mood.set(503);
    assert_eq!(of("ada", 2).get("/mine/3").await.json()["a"]["who"], "ada");
    assert_eq!(of("bob", 1).get("/mine/3").await.json()["a"], json!(null));
}

#[tokio::test]
async fn what_the_part_itself_sends_tells_requests_apart() {
    let (origin, mood) = moody().await;
    let parts = "user: { service: parts, path: /ok, hidden: true }, \
                 a: { service: parts, path: /a, stale_if_error: 10m, headers: { x-tenant: \"{id}\" } }, \
                 b: { service: parts, path: \"/b?x={id}\", stale_if_error: 10m, after: [a], fallback: { part: c } }, \
                 c: { service: parts, path: /ok, hidden: true }";
    let gateway = gateway(&origin.url(), parts);
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/all/1").await.status, 200);
    mood.set(503);
    let before = origin.count();
    let same = client.get("/all/1").await.json();
    assert_eq!((&same["a"]["target"], &same["b"]["target"]), (&json!("/a"), &json!("/b?x=1")));
    // The part that would stand in next is not asked.
    assert_eq!(origin.count() - before, 3);
    let other = client.get("/all/2").await.json();
    assert_eq!((&other["a"], &other["b"]["target"]), (&json!(null), &json!("/ok")));
}

#[tokio::test]
async fn elements_have_answers_of_their_own() {
    let mood = Mood::default();
    let current = mood.clone();
    let origin = Origin::start(move |seen| {
        let status = current.0.lock().expect("nobody panics with it").0;
        match seen.target.as_str() {
            "/orders" if status == 1 => origin::json(r#"[{"p":1},{"p":3},{"p":2}]"#),
            "/orders" => origin::json(r#"[{"p":1},{"p":2}]"#),
            _ if status == 1 => origin::status(503),
            batch if batch.starts_with("/many") => origin::json(r#"[{"id":1,"m":1},{"id":2,"m":2}]"#),
            one => origin::json(json!(one).to_string()),
        }
    })
    .await;
    let parts = "orders: { service: parts, path: /orders, stale_if_error: 10m }, \
                 each: { service: parts, path: \"/p/{item.p}\", for_each: \"$.orders[*]\", stale_if_error: 10m, fallback: 0 }, \
                 many: { service: parts, path: /many, for_each: \"$.orders[?@.p < 3]\", batch: { parameter: i, value: p, key: id }, \
                 stale_if_error: 10m, allow: [m] }";
    let gateway = gateway(&origin.url(), parts);
    let client = Client::new(gateway.http());
    let good = client.get("/all/1").await.text();
    assert_eq!(good, r#"{"orders":[{"p":1},{"p":2}],"each":["/p/1","/p/2"],"many":[{"m":1},{"m":2}]}"#);
    mood.set(1);
    assert_eq!(
        document(&client.get("/all/1").await, 2),
        r#"{"orders":[{"p":1},{"p":3},{"p":2}],"each":["/p/1",0,"/p/2"],"many":[{"m":1},{"m":2}],"_errors":[{"items":[0,1,2],"part":"each","reason":"part_failed","status":503},{"items":[0,1],"part":"many","reason":"part_failed","status":503}]}"#
    );
}

#[tokio::test]
async fn kept_answers_outlive_reloads_as_long_as_they_are_what_would_be_answered() {
    let (origin, mood) = moody().await;
    let gateway = gateway(&origin.url(), A);
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/all/1").await.status, 200);
    mood.set(503);
    let (url, more) = (origin.url(), ", b: { static: 1 }");
    gateway
        .reconfigure(&configuration(&url, &(A.replace("10m", "{ for: 1h, max_size: 1MiB }") + more)))
        .await;
    assert_eq!(client.get("/all/1").await.json()["a"]["target"], "/a/1");
    gateway.reconfigure(&configuration(&url, &A.replace("10m", "10m, select: $.target"))).await;
    assert_eq!(client.get("/all/1").await.json()["a"], json!({ "none": true }));
}

#[tokio::test]
async fn a_head_request_and_one_of_before_have_the_same() {
    let (origin, mood) = moody().await;
    let gateway = gateway(&origin.url(), A);
    let client = Client::new(gateway.http());
    assert_eq!(client.send(Method::HEAD, "/all/1", Bytes::new()).await.status, 200);
    mood.set(503);
    assert_eq!(client.get("/all/1").await.json()["a"]["target"], "/a/1");
}
