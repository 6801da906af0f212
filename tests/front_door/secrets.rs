//! Secrets from files and from the environment: they are used, followed as they change, and shown to nobody.

use std::fmt::Write;
use std::process::Command;

use bytes::Bytes;
use http::Method;

use crate::support::gateway::complete;
use crate::support::{Client, Gateway, Origin, eventually, raw};

fn replace(gateway: &Gateway, name: &str, text: &str) {
    let new = gateway.file(&format!("{name}.new"));
    std::fs::write(&new, text).expect("writable");
    std::fs::rename(new, gateway.file(name)).expect("writable");
}

#[tokio::test]
async fn a_secret_in_a_file_is_followed() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    std::fs::write(directory.path().join("token"), "first-token\n").expect("writable");
    let config = "admin: { bind: \"127.0.0.1:0\", token: \"${file:token}\" }\n\
                  routes: [{ name: a, match: { path: /a }, respond: {} }]\n";
    let gateway = Gateway::start_in(directory, config, &[]);
    let status =
        async |token: &str| Client::new(gateway.admin()).bearer(token).get("/api/status").await.status;
    assert_eq!(status("first-token").await, 200);
    assert_eq!(Client::new(gateway.admin()).get("/api/status").await.status, 401);
    replace(&gateway, "token", "second-token\n");
    eventually("the new token holds", || async { (status("second-token").await == 200).then_some(()) }).await;
    assert_eq!(status("first-token").await, 401);
    gateway.wait_for("reloaded gateway.yaml: admin changed");
    // A secret that is away for a moment takes nobody's away.
    std::fs::remove_file(gateway.file("token")).expect("it is there");
    gateway.wait_for("can't read the file \"token\": No such file or directory");
    assert_eq!(status("second-token").await, 200);
    replace(&gateway, "token", "third-token");
    eventually("the file is there again", || async { (status("third-token").await == 200).then_some(()) })
        .await;
}

#[test]
fn check_tells_where_a_file_is_missing() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let text = complete("admin: { bind: \"127.0.0.1:0\", token: \"${file:none}\" }\nroutes: []\n");
    std::fs::write(directory.path().join("gateway.yaml"), &text).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
    let output =
        command.arg("check").current_dir(directory.path()).env("NO_COLOR", "1").output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().position(|line| line.contains("none")).expect("it is there") + 1;
    assert!(!output.status.success() && told.contains("can't read the file \"none\""), "{told}");
    assert!(told.contains(&format!("gateway.yaml:{line}:")), "{told}");
}

/// The places that a secret can be in. Each gets a canary of its own, so that whatever tells one is known.
const PLACES: [&str; 9] =
    ["admin", "registry", "sticky", "jwt", "etcd", "consul", "shared", "request-header", "response-header"];

fn canary(place: &str) -> String {
    format!("canary-{place}-0123456789abcdef0123456789")
}

/// A configuration with a secret in every place, each as `said` says it.
fn with_secrets(origin: &Origin, said: impl Fn(&str) -> String) -> String {
    let [admin, registry, sticky, jwt, etcd, consul, shared, request, response] = PLACES.map(said);
    format!(
        "admin: {{ bind: \"127.0.0.1:0\", token: \"{admin}\" }}\n\
         registry: {{ bind: \"127.0.0.1:0\", token: \"{registry}\" }}\n\
         services:\n\
         \x20 a: {{ instances: [\"{url}\"], sticky: {{ cookie: c, secret: \"{sticky}\" }} }}\n\
         \x20 b: {{ discovery: {{ etcd: {{ endpoints: [\"http://127.0.0.1:9\"], prefix: /b/, username: u, password: \"{etcd}\" }} }} }}\n\
         \x20 c: {{ discovery: {{ consul: {{ address: \"http://127.0.0.1:9\", service: c, token: \"{consul}\" }} }} }}\n\
         \x20 d: {{ discovery: {{ registry: {{ address: \"http://127.0.0.1:9\", token: \"{shared}\" }} }} }}\n\
         authenticators: {{ shop: {{ jwt: {{ algorithms: [HS256], keys: [{{ secret: \"{jwt}\" }}] }} }} }}\n\
         routes:\n\
         \x20 - {{ name: a, match: {{ path: /a }}, request_headers: {{ set: {{ authorization: \"Bearer {request}\" }} }}, forward: {{ service: a }} }}\n\
         \x20 - {{ name: b, match: {{ path: /b }}, authenticate: {{ with: [shop] }}, forward: {{ service: b }} }}\n\
         \x20 - {{ name: c, match: {{ path: /c }}, forward: {{ service: c }} }}\n\
         \x20 - {{ name: d, match: {{ path: /d }}, response_headers: {{ set: {{ set-cookie: \"s={response}\" }} }}, forward: {{ service: d }} }}\n",
        url = origin.url()
    )
}

fn nothing_is_told(where_: &str, text: &str) {
    for place in PLACES {
        assert!(!text.contains(&canary(place)), "{where_} tells the secret of {place}:\n{text}");
    }
}

/// All that the process says to whoever asks it, and to its log.
async fn everything(gateway: &Gateway) -> String {
    let admin = Client::new(gateway.admin()).bearer(&canary("admin"));
    let mut all = String::new();
    for path in
        ["/health", "/ready", "/metrics", "/api/status", "/api/services", "/api/routes", "/api/nowhere"]
    {
        let reply = admin.get(path).await;
        let _ = writeln!(all, "{path} {:?}\n{}", reply.headers, reply.text());
        let reply = Client::new(gateway.admin()).bearer("wrong").get(path).await;
        let _ = writeln!(all, "{path} {:?}\n{}", reply.headers, reply.text());
    }
    let registry = Client::new(gateway.address("registry"));
    for client in [registry.clone(), registry.clone().bearer("wrong"), registry.bearer(&canary("registry"))] {
        let reply = client.get("/registry/services").await;
        let _ = writeln!(all, "registry {:?}\n{}", reply.headers, reply.text());
    }
    let http = Client::new(gateway.http());
    for path in ["/a", "/b", "/c", "/nowhere"] {
        let reply = http.clone().bearer("a.b.c").get(path).await;
        let _ = writeln!(all, "{path} {:?}\n{}", reply.headers, reply.text());
    }
    all + &gateway.messages() + &gateway.log_lines().join("\n")
}

#[tokio::test]
async fn no_output_tells_a_secret() {
    let origin = Origin::text("ok").await;
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    for place in PLACES {
        std::fs::write(directory.path().join(place), format!("{}\n", canary(place))).expect("writable");
    }
    for said in [|place: &str| format!("${{file:{place}}}"), |place: &str| canary(place)] {
        let text = with_secrets(&origin, said);
        let own = tempfile::tempdir().expect("there is a directory for temporary files");
        for place in PLACES {
            std::fs::copy(directory.path().join(place), own.path().join(place)).expect("writable");
        }
        let gateway = Gateway::start_in(own, &text, &[]);
        nothing_is_told("the gateway", &everything(&gateway).await);
        let seen = origin.seen().pop().expect("a request came through");
        assert_eq!(seen.headers["authorization"], format!("Bearer {}", canary("request-header")));
        // Nor does one whose next configuration is wrong in each of the places.
        for (right, wrong) in [
            ("token: \"", "tokn: \""),
            ("secret: \"", "secret: { x: \""),
            ("algorithms: [HS256]", "algorithms: [RS256]"),
            ("password: \"", "pasword: \""),
            ("authorization: \"Bearer ", "authorization: \"a\\nb "),
        ] {
            gateway.write(&text.replace(right, wrong));
            let admin = Client::new(gateway.admin()).bearer(&canary("admin"));
            let reply = admin.send(Method::POST, "/api/reload", Bytes::new()).await;
            assert_eq!(reply.status, 422, "{wrong}: {}", reply.text());
            nothing_is_told(wrong, &reply.text());
            let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
            command.args(["check", "--json"]).current_dir(gateway.path());
            let output = command.output().expect("it runs");
            nothing_is_told("check --json", &String::from_utf8_lossy(&output.stdout));
            let mut command = Command::new(env!("CARGO_BIN_EXE_gatehouse"));
            let output = command.arg("check").current_dir(gateway.path()).output().expect("it runs");
            nothing_is_told("check", &String::from_utf8_lossy(&output.stderr));
        }
        nothing_is_told("the gateway", &everything(&gateway).await);
    }
}

#[tokio::test]
async fn pages_of_other_origins_change_nothing() {
    let gateway = Gateway::start(
        "registry: { bind: \"127.0.0.1:0\" }\nroutes: [{ name: a, match: { path: /a }, respond: {} }]\n",
    );
    let (admin, registry) = (Client::new(gateway.admin()), Client::new(gateway.address("registry")));
    let announcement = r#"{"service_name":"s","host":"127.0.0.1","port":1}"#;
    let page = |client: &Client| client.clone().header("origin", "https://evil.example");
    for client in [page(&admin), admin.clone().header("sec-fetch-site", "cross-site")] {
        assert_eq!(client.post("/api/reload", "").await.code(), "cross_site");
    }
    // What a page can send without being asked about it.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let reply =
            page(&registry).header("content-type", kind).post("/registry/register", announcement).await;
        assert_eq!((reply.status, reply.code().as_str()), (415, "unsupported_media_type"), "{kind}");
    }
    for (client, path) in [(&admin, "/api/reload"), (&registry, "/registry/register")] {
        // And what it would have to ask first: nobody says yes.
        let asked = page(client)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
            .send(Method::OPTIONS, path, Bytes::new())
            .await;
        let got = page(client).get(path).await;
        for reply in [asked, got] {
            assert!(reply.status >= 400, "{path}: {reply:?}");
            let is_permission = |name: &http::HeaderName| name.as_str().starts_with("access-control-");
            assert!(!reply.headers.keys().any(is_permission), "{path}: {reply:?}");
        }
        // A name that was made to lead here (DNS rebinding).
        let reply = client.clone().host("evil.example").get("/registry/services").await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "host_not_allowed"), "{path}");
        let request =
            "POST /api/reload HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
        let address = if path == "/api/reload" { gateway.admin() } else { gateway.address("registry") };
        let answer = raw::exchange(address, request.to_owned()).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{path}: {answer}");
    }
    let listed = registry.get("/registry/services").await.json();
    assert_eq!(listed["services"], serde_json::json!({}));
    for path in ["/registry/register", "/registry/heartbeat", "/registry/deregister"] {
        assert_eq!(registry.get(path).await.status, 405, "{path}");
    }
    assert_eq!(admin.get("/api/reload").await.status, 405);
    assert_eq!(gateway.generation().await, 1);
}
