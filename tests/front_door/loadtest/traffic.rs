//! Traffic made from the gateway's own configuration, sent to that gateway; and from a scenario file.

use crate::loadtest::{loadtest, loadtest_in};
use crate::support::{Gateway, Origin};

const SECRET: &str = "a secret of thirty-two bytes, or so";

/// A configuration with a route of every kind, whose requests go to `origin`.
fn shop(origin: &Origin) -> String {
    format!(
        "services: {{ users: {{ instances: ['{}'] }} }}
authenticators: {{ shop: {{ jwt: {{ issuer: me, audience: [shop], algorithms: [HS256], keys: [{{ secret: '{SECRET}' }}] }} }} }}
rate_limits: {{ few: {{ key: 'claim:sub', rate: 1/h, burst: 2 }} }}
routes:
  - {{ name: user, match: {{ path: '/users/{{id}}', methods: [GET, PUT] }}, forward: {{ service: users }} }}
  - {{ name: search, match: {{ regex: '/v[0-9]+/search', hosts: ['*.example.com'], query: {{ q: {{ present: true }} }} }}, forward: {{ service: users }} }}
  - name: admin
    match: {{ path: /admin, methods: [POST], headers: {{ x-version: '2' }} }}
    authenticate: {{ with: [shop] }}
    authorize: {{ claims: {{ role: [admin] }} }}
    rate_limits: [few]
    forward: {{ service: users }}
  - {{ name: gone, match: {{ prefix: /old }}, respond: {{ status: 410 }} }}
",
        origin.address
    )
    .replace("['127", "['http://127")
}

#[tokio::test]
async fn every_route_of_the_configuration_is_met() {
    let origin = Origin::text("hello").await;
    let gateway = Gateway::start(&shop(&origin));
    let url = format!("http://{}", gateway.http());
    let arguments = [
        "-c",
        "gateway.yaml",
        &url,
        "--requests",
        "50",
        "--connections",
        "2",
        "--param",
        "id=7..8",
        "--json",
    ];
    let ran = loadtest_in(gateway.path(), &arguments).await;
    let told = ran.json();
    assert_eq!((ran.code, &told["requests"]), (0, &50.into()), "{}", ran.err);
    let target = |name: &str| {
        let all = told["targets"].as_array().unwrap();
        all.iter().find(|target| target["name"] == name).unwrap_or_else(|| panic!("{name}: {told}")).clone()
    };
    for name in ["user GET", "user PUT", "search", "gone"] {
        assert_eq!(
            (&target(name)["requests"], &target(name)["errors"]),
            (&10.into(), &0.into()),
            "{name}: {told}"
        );
    }
    // One subject has two requests; the rest are told with their reason.
    let admin = target("admin");
    assert_eq!(
        (&admin["statuses"]["200"], &admin["reasons"]["rate_limited"]),
        (&2.into(), &8.into()),
        "{told}"
    );
    assert_eq!(target("gone")["statuses"]["410"], 10);
    let seen = origin.seen();
    let count = |method: &str, target: &str| {
        seen.iter().filter(|seen| seen.method.as_str() == method && seen.target == target).count()
    };
    assert_eq!(count("GET", "/users/7") + count("GET", "/users/8"), 10);
    assert_eq!(count("POST", "/admin"), 2);
    let search = seen.iter().find(|seen| seen.target == "/v1/search?q=1").expect("it was there");
    assert_eq!(search.method, "GET");
    let put = seen.iter().find(|seen| seen.method == "PUT").expect("it was there");
    assert_eq!((&put.body[..], put.header("content-type")), (&b"{}"[..], Some("application/json")));
    // The table tells routes apart.
    assert!(ran.err.contains("rate_limited×8") && ran.err.contains("410×10"), "{}", ran.err);
}

#[tokio::test]
async fn routes_are_chosen_and_weighed_and_bodies_given() {
    let origin = Origin::text("hello").await;
    let gateway = Gateway::start(&shop(&origin));
    let url = format!("http://{}", gateway.http());
    std::fs::write(
        gateway.file("api.yaml"),
        "openapi: 3.1.0\npaths:\n  /users/{id}:\n    put:\n      parameters: [{ name: id, in: path, example: 42 }]\n      \
         requestBody: { content: { application/json: { example: { name: Ada } } } }\n",
    )
    .unwrap();
    let arguments = [
        "-c",
        "gateway.yaml",
        &url,
        "--route",
        "user",
        "--route",
        "gone",
        "--weight",
        "gone=3",
        "--openapi",
        "api.yaml",
    ];
    let ran = loadtest_in(gateway.path(), &[&arguments[..], &["--requests", "8", "--json"]].concat()).await;
    let told = ran.json();
    assert_eq!(
        (&told["targets"][0]["requests"], &told["targets"][1]["requests"]),
        (&2.into(), &6.into()),
        "{told}"
    );
    assert_eq!(told["targets"][0]["name"], "user PUT /users/{id}");
    let seen = origin.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.target == "/users/42"), "{seen:?}");
    assert_eq!(&seen[0].body[..], br#"{"name":"Ada"}"#);
}

#[tokio::test]
async fn what_cannot_be_loaded_is_left_out_or_explained() {
    let origin = Origin::text("hello").await;
    let text = shop(&origin)
        .replace("HS256", "ES256")
        .replace(&format!("secret: '{SECRET}'"), "jwks_url: 'http://127.0.0.1:1/k'");
    let directory = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(directory.path().join("gateway.yaml"), text).unwrap();
    write(&format!("listeners: [{{ name: http, bind: '127.0.0.1:0' }}]\n{text}"));
    let url = origin.url();
    let ran = loadtest_in(directory.path(), &["-c", "gateway.yaml", &url, "--requests", "5"]).await;
    assert!(ran.err.contains("route admin is left out: no token can be signed"), "{}", ran.err);
    assert!(ran.out.contains("user PUT") && !ran.out.contains("admin"), "{}", ran.out);
    // Its port is the kernel's choice.
    let ran = loadtest_in(directory.path(), &["-c", "gateway.yaml"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("name a URL"), "{}", ran.err);
    let ran = loadtest_in(directory.path(), &["-c", "gateway.yaml", &url, "--route", "nobody"]).await;
    assert!(ran.code == 2 && ran.err.contains("there is no route \"nobody\""), "{}", ran.err);
    write("listners: 5");
    let ran = loadtest_in(directory.path(), &["-c", "gateway.yaml", &url]).await;
    assert!(ran.code == 1 && ran.err.contains("did you mean \"listeners\"?"), "{}", ran.err);
}

#[tokio::test]
async fn a_scenario_says_what_is_sent_and_when() {
    let origin = Origin::text("hello").await;
    let directory = tempfile::tempdir().unwrap();
    let scenario = format!(
        "target: {}
load: [{{ rate: {{ from: 0, to: 100 }}, for: 400ms }}, {{ rate: 100, for: 200ms }}]
requests:
  - {{ name: read, weight: 3, path: '/things/{{id}}', parameters: {{ id: 'a,b' }} }}
  - {{ name: write, path: /things, json: [1], headers: {{ x-a: b }}, host: shop.example.com }}
",
        origin.url()
    );
    std::fs::write(directory.path().join("scenario.yaml"), scenario).unwrap();
    let ran = loadtest_in(directory.path(), &["--scenario", "scenario.yaml", "--json"]).await;
    let told = ran.json();
    // A ramp of 20 and a step of 20.
    assert_eq!(
        (ran.code, &told["requests"], &told["load"]["constant"]),
        (0, &40.into(), &false.into()),
        "{told}"
    );
    assert_eq!((&told["targets"][0]["requests"], &told["targets"][1]["requests"]), (&30.into(), &10.into()));
    let seen = origin.seen();
    let write = seen.iter().find(|seen| seen.method == "POST").expect("it was there");
    assert_eq!(
        (write.header("host"), write.header("x-a"), &write.body[..]),
        (Some("shop.example.com"), Some("b"), &b"[1]"[..])
    );
    std::fs::write(directory.path().join("scenario.yaml"), "requests: [{ path: /, wieght: 1 }]").unwrap();
    let ran = loadtest_in(directory.path(), &["--scenario", "scenario.yaml", &origin.url()]).await;
    assert!(
        ran.code == 1 && ran.err.contains("scenario.yaml: 1:") && ran.err.contains("wieght"),
        "{}",
        ran.err
    );
}

/// As the document shows it.
#[tokio::test]
async fn the_scenario_in_the_examples_is_one() {
    let origin = Origin::text("hello").await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/scenarios/shop.yaml");
    let ran = loadtest(&["--scenario", file, &origin.url(), "--requests", "20", "--json"]).await;
    assert_eq!((ran.code, &ran.json()["errors"]), (0, &0.into()), "{}", ran.err);
    assert_eq!(origin.seen().iter().filter(|seen| seen.method == "POST").count(), 2);
}
