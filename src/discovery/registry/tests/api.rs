//! Requests and answers, and everything that is refused.

use proptest::prelude::*;

use super::*;
use crate::discovery::registry::api::Api;

const TTL: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_life_of_an_instance() {
    let registry = Served::start(TTL, None).await;
    assert_eq!(registry.get("/registry/discover/users").await.status, 404);
    assert_eq!(registry.post("heartbeat", users(1)).await.body["code"], "instance_unknown");

    let first = registry.post("register", users(1)).await;
    assert_eq!((first.status, &first.body["created"]), (StatusCode::OK, &json!(true)));
    assert_eq!(first.body["heartbeat_ttl_ms"], 30_000);
    assert_eq!(registry.post("register", users(1)).await.body["created"], false);
    let second = json!({ "service_name": "users", "host": "127.0.0.1", "port": 2, "weight": 2, "zone": "a", "metadata": { "v": 1 } });
    registry.post("register", second.clone()).await;
    assert_eq!(registry.post("heartbeat", users(1)).await.body["status"], "alive");

    let turns =
        [registry.get("/registry/discover/users").await, registry.get("/registry/discover/users").await];
    assert_eq!(turns[0].body["url"], "http://127.0.0.1:1");
    assert_eq!((&turns[1].body["port"], &turns[1].body["metadata"]), (&json!(2), &json!({ "v": 1 })));

    let listed = registry.get("/registry/services").await.body;
    let instances = listed["services"]["users"]["instances"].as_array().expect("a list").clone();
    assert_eq!(instances.len(), 2);
    assert!(instances[0]["last_heartbeat_ms_ago"].as_u64().is_some_and(|age| age < 30_000), "{listed}");

    assert_eq!(registry.post("deregister", users(1)).await.status, 200);
    assert_eq!(registry.post("deregister", users(1)).await.status, 404);
    assert_eq!(registry.get("/registry/discover/users").await.body["port"], 2);
}

#[tokio::test]
async fn a_silent_instance_is_gone() {
    let registry = Served::start(Duration::from_millis(100), None).await;
    registry.post("register", users(1)).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while registry.get("/registry/discover/users").await.status != 404 {
        assert!(tokio::time::Instant::now() < deadline, "it is still there");
    }
    let beat = registry.post("heartbeat", users(1)).await;
    assert_eq!(beat.status, 404);
    assert_eq!(
        beat.body["detail"],
        "users at 127.0.0.1:1 is not registered, or its last heartbeat is too long ago: register it again"
    );
}

#[tokio::test]
async fn refusals_are_problem_documents() {
    let registry = Served::start(TTL, None).await;
    let long = "a".repeat(129);
    for (method, path, status, code) in [
        ("GET", "/", 404, "not_found"),
        ("GET", "/registry/", 404, "not_found"),
        ("GET", "/registry/discover/", 404, "not_found"),
        ("GET", "/registry/discover/a/b", 400, "invalid_member"),
        ("GET", "/registry/discover/%2e%2e", 400, "invalid_member"),
        ("GET", &format!("/registry/watch/{long}"), 400, "invalid_member"),
        ("GET", "/registry/discover/users", 404, "no_instance"),
        ("GET", "/registry/register", 405, "method_not_allowed"),
        ("DELETE", "/registry/services", 405, "method_not_allowed"),
        ("POST", "/registry/discover/users", 405, "method_not_allowed"),
        ("OPTIONS", "/registry/register", 405, "method_not_allowed"),
        ("POST", "/registry/register", 400, "invalid_json"),
        ("GET", "/registry/watch/users?version=x", 400, "invalid_query"),
        ("GET", "/registry/watch/users?timeout=6m", 400, "invalid_query"),
        ("GET", "/registry/watch/users?timeout=99999999999999999999s", 400, "invalid_query"),
        ("GET", "/registry/watch/users?since=1", 400, "invalid_query"),
    ] {
        let answer = registry.answer(request(method, path).body(Full::default()).expect("a request")).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.body["code"], code, "{method} {path}");
        assert_eq!(answer.body["status"], status, "{method} {path}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(answer.headers.contains_key(header::ALLOW), status == 405);
    }
    assert_eq!(registry.get("/registry/register").await.headers[header::ALLOW], "POST");
}

#[tokio::test]
async fn a_browser_on_this_machine_gets_nowhere() {
    let registry = Served::start(TTL, None).await;
    let status = async |host: &str, content_type: &str| {
        let request = Request::post("/registry/register").header(header::HOST, host);
        let request =
            request.header(header::CONTENT_TYPE, content_type).header(header::ORIGIN, "http://evil.example");
        registry.answer(request.body(users(1).to_string().into()).expect("a request")).await.status.as_u16()
    };
    let json = "application/json";
    for host in ["localhost", "LOCALHOST:8500", "127.0.0.1:8500", "[::1]:8500", "[::1]", "10.0.0.1"] {
        assert_eq!(status(host, json).await, 200, "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8500",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "a@localhost",
    ] {
        assert_eq!(status(host, json).await, 403, "{host}");
    }
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
        "text/plain; application/json",
    ] {
        assert_eq!(status("localhost", content_type).await, 415, "{content_type}");
    }
    assert_eq!(status("localhost", "Application/JSON; charset=utf-8").await, 200);
}

#[tokio::test]
async fn who_is_no_page_need_not_declare_json() {
    let registry = Served::start(TTL, None).await;
    for content_type in [None, Some("application/x-www-form-urlencoded")] {
        let mut request = Request::post("/registry/register").header(header::HOST, "localhost");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let answer = registry.answer(request.body(users(1).to_string().into()).expect("a request")).await;
        assert_eq!(answer.status, 200, "{content_type:?}");
    }
}

#[tokio::test]
async fn with_a_token_nothing_goes_without_it() {
    let registry = Served::start(TTL, Some("tops3cret")).await;
    let answer = async |authorization: Option<&str>| {
        let mut request = request("GET", "/registry/services");
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        registry.answer(request.body(Full::default()).expect("a request")).await
    };
    let missing = answer(None).await;
    assert_eq!((missing.status.as_u16(), &missing.body["code"]), (401, &json!("token_missing")));
    assert_eq!(missing.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"registry\"");
    for wrong in
        ["Bearer tops3cre", "Bearer tops3cret2", "Bearer ", "Bearer", "Basic tops3cret", "é", "Bearer é"]
    {
        let answer = answer(Some(wrong)).await;
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(!answer.body.to_string().contains("tops3cret"));
    }
    assert_eq!(answer(Some("bearer tops3cret")).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let registry = Served::start(TTL, None).await;
    let body = Bytes::from(" ".repeat(65 * 1024));
    let request = request("POST", "/registry/register").header(header::CONTENT_TYPE, "application/json");
    let response = registry.send(request.body(Full::new(body)).expect("a request")).await;
    assert_eq!(response.status(), 413);
}

/// Announcements that are nearly right: each member may be missing, of any type, or well.
fn nearly() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..70_000_u32).prop_map(Value::from),
        ".{0,80}".prop_map(Value::from),
        "[a-z0-9.:-]{0,20}".prop_map(Value::from),
    ];
    let value = scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let name = prop_oneof![
        4 => proptest::sample::select(vec!["service_name", "host", "port", "weight", "zone", "metadata"])
            .prop_map(str::to_owned),
        1 => ".{0,12}",
    ];
    proptest::collection::vec((name, value), 0..8).prop_map(|members| {
        let members: Vec<String> =
            members.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn answered_in_json(body: Vec<u8>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let api = Api::new(Arc::new(Store::new(TTL)), Arc::default(), true);
        for verb in ["register", "heartbeat", "deregister"] {
            let request = Request::post(format!("/registry/{verb}"));
            let request = request.header(header::CONTENT_TYPE, "application/json");
            let response = api.respond(request.body(Bytes::from(body.clone())).expect("a request")).await;
            let status = response.status();
            let document = response.into_body().collect().await.expect("a body").to_bytes();
            let document: Value = serde_json::from_slice(&document).expect("JSON");
            prop_assert!(document["code"].is_string() != status.is_success(), "{status} {document}");
            prop_assert!(status.is_success() || status == 400 || status == 404, "{status}");
        }
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_bytes_get_an_answer_in_json(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        answered_in_json(body)?;
    }

    #[test]
    fn nearly_right_bodies_get_an_answer_in_json(body in nearly()) {
        answered_in_json(body.into_bytes())?;
    }
}
