//! Which route a request takes, and that what was matched is what the origin sees.

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;

use crate::support::{Client, Gateway, Origin, raw};

/// Routes that answer with their own name.
fn naming(routes: &[(&str, &str)]) -> String {
    let mut text = String::from("routes:\n");
    for (name, matches) in routes {
        text += &format!("  - {{ name: {name}, match: {{ {matches} }}, respond: {{ text: {name} }} }}\n");
    }
    text
}

/// Answers with the target that it saw.
async fn echo() -> Origin {
    Origin::start(|seen| Response::new(Full::from(seen.target.clone()))).await
}

fn everything_to(origin: &Origin, more: &str) -> String {
    format!(
        "services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes:\n  - {{ name: all, match: {{ prefix: / }}{more}, forward: {{ service: all }} }}\n",
        origin.url()
    )
}

#[tokio::test]
async fn one_form_for_every_path() {
    let origin = echo().await;
    let gateway = Gateway::start(&everything_to(&origin, ""));
    for (sent, forwarded) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/a/../b", "/b"),
        ("/a/./b/../c", "/a/c"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2E./b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd"),
        ("//a", "/a"),
        ("///a//b///", "/a/b/"),
        ("/a//../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/A/b", "/A/b"),
        ("/%61%62", "/ab"),
        ("/%7Euser/caf%c3%a9", "/~user/caf%C3%A9"),
        ("/%252e%252e/a", "/%252e%252e/a"),
        ("/%252f", "/%252f"),
        ("/a;x=1/b", "/a;x=1/b"),
        ("/a|b", "/a%7Cb"),
        ("/...", "/..."),
        ("/a?x=/../y&z=%2F", "/a?x=/../y&z=%2F"),
        ("/a/../b?", "/b?"),
        ("http://a.example/x/../y?q=1", "/y?q=1"),
        ("http://a.example", "/"),
        ("http://a.example?q=1", "/?q=1"),
    ] {
        assert_eq!(raw::get(gateway.http(), sent, "").await, (200, forwarded.to_owned()), "{sent}");
    }
    let logged = gateway.log_entry(|entry| entry["path"] == "/etc/passwd");
    assert_eq!(logged["route"], "all", "the log has the path that was matched");
}

#[tokio::test]
async fn paths_that_servers_read_differently_are_refused() {
    let origin = echo().await;
    let gateway = Gateway::start(&everything_to(&origin, ""));
    for sent in [
        "/%2F",
        "/%2f",
        "/a%2Fb",
        "/a%2F..%2Fb",
        "/..%2fadmin",
        "/\\",
        "/a\\..\\b",
        "/%5c",
        "/a/%5C../b",
        "/%00",
        "/a%00.html",
        "/a/..;/b",
        "/a/..;x=1/b",
        "/a/.;/b",
        "/a/..%3b/b",
        "/%",
        "/%4",
        "/%zz",
        "/a%2",
        "/caf\u{e9}",
        "/a\tb",
    ] {
        let (status, _) = raw::get(gateway.http(), sent, "").await;
        assert_eq!(status, 400, "{sent:?}");
    }
    assert_eq!(origin.count(), 0);
    // What the parser itself takes ends in a problem that says why.
    for sent in ["/%2F", "/%5c", "/%00", "/a/..;/b", "/%zz"] {
        let (_, body) = raw::get(gateway.http(), sent, "").await;
        assert!(body.contains("\"code\":\"invalid_path\""), "{sent}: {body}");
    }
}

#[tokio::test]
async fn an_encoded_slash_is_kept_where_a_route_says_so() {
    let origin = echo().await;
    let gateway = Gateway::start(&format!(
        "services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: kept, match: {{ path: \"/files/{{name}}\" }}, encoded_slashes: keep, forward: {{ service: all }} }}\n\
         \x20 - {{ name: moved, match: {{ path: \"/move/{{name}}\" }}, encoded_slashes: keep, forward: {{ service: all, rewrite: \"/to/{{name}}\" }} }}\n\
         \x20 - {{ name: refused, match: {{ prefix: /other }}, forward: {{ service: all }} }}\n",
        origin.url()
    ));
    let get = async |target: &str| raw::get(gateway.http(), target, "").await;
    assert_eq!(get("/files/a%2fb").await, (200, "/files/a%2Fb".into()), "it never separates segments");
    assert_eq!(get("/move/a%2Fb").await, (200, "/to/a%2Fb".into()));
    assert_eq!(get("/files/..%2fb").await.0, 400, "not even there");
    assert_eq!(get("/files/a%2Fb/c").await.0, 400, "no route takes it");
    assert_eq!(get("/other/a%2Fb").await.0, 400);
    assert_eq!(get("/other%2Fa").await.0, 400);
    assert_eq!(get("/nowhere%2Fa").await.0, 400);
}

/// Whatever is built of these pieces, `/secret` is reached by its own route or not at all: by any reading of
/// what the open route's service is sent, it is not `/secret`.
#[tokio::test]
async fn no_way_of_writing_leads_around_a_route() {
    let origin = echo().await;
    let gateway = Gateway::start(&format!(
        "services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: secret, match: {{ prefix: /secret }}, respond: {{ status: 203, text: secret }} }}\n\
         \x20 - {{ name: all, match: {{ prefix: / }}, forward: {{ service: all }} }}\n",
        origin.url()
    ));
    const PIECES: [&str; 14] =
        ["/", "//", "/..", "/.", "/%2e%2e", "%2f", "secret", "s%65cret", "a", ";", "\\", "%5C", "%00", ".."];
    let mut by_route = [0, 0, 0];
    let mut targets = Vec::new();
    for first in PIECES {
        for second in PIECES {
            for third in PIECES {
                targets.push(format!("/{first}{second}{third}"));
                targets.push(format!("/a{first}{second}/secret{third}"));
            }
        }
    }
    let client = raw::KeptAlive::connect(gateway.http()).await;
    for (target, (status, body)) in targets.iter().zip(client.get_all(&targets).await) {
        match status {
            203 => by_route[0] += 1,
            400 => by_route[1] += 1,
            200 => {
                by_route[2] += 1;
                assert!(!reads_as_secret(&body), "{target:?} was forwarded as {body:?}");
            }
            other => panic!("{other} for {target:?}"),
        }
    }
    assert!(by_route.iter().all(|&count| count > 100), "{by_route:?}");
}

/// As the most careless of servers would read it.
fn reads_as_secret(path: &str) -> bool {
    let decoded = path.replace("%2F", "/").replace("%2f", "/").replace("%5C", "/").replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        // A name with a parameter is another name, as docs/routing.md says; a dot segment with one is not.
        match (segment, segment.split(';').next()) {
            ("", _) | (_, Some(".")) => {}
            (_, Some("..")) => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    segments.first() == Some(&"secret")
}

#[tokio::test]
async fn the_most_specific_route_wins_whatever_the_order() {
    let routes = [
        ("prefix-root", "prefix: /"),
        ("regex", "regex: \"/users/[0-9]+\""),
        ("prefix-users", "prefix: /users"),
        ("prefix-users-deep", "prefix: /users/deep"),
        ("user", "path: \"/users/{id}\""),
        ("me", "path: /users/me"),
        ("orders", "path: \"/users/{id}/orders\""),
        ("me-what", "path: \"/users/me/{what}\""),
        ("post", "path: /users/me, methods: [POST]"),
        ("versioned", "path: /users/me, headers: { x-version: \"2\" }"),
        ("versioned-beta", "path: /users/me, headers: { x-version: \"2\" }, query: { beta: \"1\" }"),
        ("two-headers", "path: /users/me, headers: { x-version: \"2\", x-a: b }"),
    ];
    let reversed: Vec<_> = routes.iter().rev().copied().collect();
    for order in [&routes[..], &reversed[..]] {
        let gateway = Gateway::start(&naming(order));
        let plain = Client::new(gateway.http());
        let versioned = plain.clone().header("x-version", "2");
        let both = versioned.clone().header("x-a", "b");
        for (client, method, target, route) in [
            (&plain, Method::GET, "/users/me", "me"),
            (&plain, Method::POST, "/users/me", "post"),
            (&versioned, Method::POST, "/users/me", "post"),
            (&versioned, Method::GET, "/users/me", "versioned"),
            (&versioned, Method::GET, "/users/me?beta=1", "versioned-beta"),
            (&versioned, Method::GET, "/users/me?beta=2", "versioned"),
            (&both, Method::GET, "/users/me?beta=1", "two-headers"),
            (&plain, Method::GET, "/users/7", "user"),
            (&plain, Method::GET, "/users/", "prefix-users"),
            (&plain, Method::GET, "/users", "prefix-users"),
            (&plain, Method::GET, "/usersx", "prefix-root"),
            (&plain, Method::GET, "/Users", "prefix-root"),
            (&plain, Method::GET, "/users/deep", "user"),
            (&plain, Method::GET, "/users/deep/x", "prefix-users-deep"),
            (&plain, Method::GET, "/users/me/orders", "me-what"),
            (&plain, Method::GET, "/users/7/orders", "orders"),
            (&plain, Method::GET, "/users/7/orders/", "prefix-users"),
            (&plain, Method::GET, "/users/%6de", "me"),
        ] {
            let reply = client.send(method.clone(), target, Bytes::new()).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, route), "{method} {target}");
        }
    }
}

#[tokio::test]
async fn hosts_are_matched_in_one_form() {
    let gateway = Gateway::start(&naming(&[
        ("exact", "path: /, hosts: [api.example.com]"),
        ("wild", "path: /, hosts: [\"*.example.com\"]"),
        ("wilder", "path: /, hosts: [\"*.deep.example.com\"]"),
        ("six", "path: /, hosts: [\"[::1]\"]"),
        ("four", "path: /, hosts: [127.0.0.1]"),
        ("any-host-prefix", "prefix: /"),
        ("wild-exact-path", "path: /only, hosts: [\"*.example.com\"]"),
    ]));
    for (host, target, route) in [
        ("api.example.com", "/", "exact"),
        ("API.Example.COM", "/", "exact"),
        ("api.example.com:8080", "/", "exact"),
        ("api.example.com.", "/", "exact"),
        ("api.example.com.:1", "/", "exact"),
        ("www.example.com", "/", "wild"),
        ("a.b.example.com", "/", "wild"),
        ("a.deep.example.com", "/", "wilder"),
        ("deep.example.com", "/", "wild"),
        ("example.com", "/", "any-host-prefix"),
        ("xexample.com", "/", "any-host-prefix"),
        ("api.example.com.evil.com", "/", "any-host-prefix"),
        ("[::1]", "/", "six"),
        ("[0:0::0:1]:80", "/", "six"),
        ("127.0.0.1:9", "/", "four"),
        ("api.example.com", "/only", "wild-exact-path"),
        ("api.example.com", "/else", "any-host-prefix"),
    ] {
        for client in [Client::new(gateway.http()), Client::new(gateway.http()).http2()] {
            let reply = client.host(host).get(target).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, route), "{host} {target}");
        }
    }
}

#[tokio::test]
async fn bad_hosts_are_refused() {
    let gateway = Gateway::start(&naming(&[("all", "prefix: /")]));
    for lines in [
        "",
        "host:\r\n",
        "host: a.example\r\nhost: a.example\r\n",
        "host: a.example\r\nHost: b.example\r\n",
        "host: a.example, b.example\r\n",
        "host: user@a.example\r\n",
        "host: a..example\r\n",
        "host: .example\r\n",
        "host: a.example:port\r\n",
        "host: a.example:99999\r\n",
        "host: a/b\r\n",
        "host: [::1\r\n",
        "host: %61.example\r\n",
        "host: *.example\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
        let answer = raw::exchange(gateway.http(), request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lines:?}: {answer}");
        assert!(answer.contains("\"code\":\"invalid_host\""), "{lines:?}: {answer}");
    }
    let other = "GET http://b.example/ HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
    assert!(raw::exchange(gateway.http(), other).await.contains("invalid_host"), "two hosts in one request");
    let old = raw::exchange(gateway.http(), "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.") && old.contains(" 200 "), "HTTP/1.0 needs no host: {old}");
}

#[tokio::test]
async fn predicates_hold_for_all_that_was_sent() {
    let gateway = Gateway::start(&naming(&[
        ("exact", "path: /h, headers: { x-kind: a }"),
        ("regex", "path: /h, headers: { x-kind: { regex: \"b+\" } }"),
        ("present", "path: /h, headers: { x-any: { present: true } }"),
        ("absent", "path: /h, headers: { x-kind: { present: false }, x-no: { present: false } }"),
        ("query", "path: /q, query: { k: \"a b\" }"),
        ("query-regex", "path: /q, query: { k: { regex: \"[0-9]+\" } }"),
        ("query-present", "path: /q, query: { flag: { present: true } }"),
        ("fallback", "prefix: /"),
    ]));
    let get = async |target: &str, fields: &str| raw::get(gateway.http(), target, fields).await.1;
    for (fields, route) in [
        ("x-kind: a\r\n", "exact"),
        ("X-KIND:   a  \r\n", "exact"),
        ("x-kind: a\r\nx-kind: evil\r\n", "fallback"),
        ("x-kind: evil\r\nx-kind: a\r\n", "fallback"),
        ("x-kind: A\r\n", "fallback"),
        ("x-kind: bbb\r\n", "regex"),
        ("x-kind: bbba\r\n", "fallback"),
        ("x-any:\r\nx-kind: z\r\n", "present"),
        ("", "absent"),
        ("x-no: 1\r\n", "fallback"),
    ] {
        assert_eq!(get("/h", fields).await, route, "{fields:?}");
    }
    for (query, route) in [
        ("k=a%20b", "query"),
        ("k=a+b", "query"),
        ("%6b=a+b", "query"),
        ("x=1&k=a+b", "query"),
        ("k=a+b&k=no", "query"),
        ("k=no&k=a+b", "fallback"),
        ("k=42", "query-regex"),
        ("k=42x", "fallback"),
        ("flag", "query-present"),
        ("flag=", "query-present"),
        ("Flag", "fallback"),
        ("k=a;b", "fallback"),
    ] {
        assert_eq!(get(&format!("/q?{query}"), "").await, route, "{query:?}");
    }
}

#[tokio::test]
async fn a_method_that_no_route_takes_is_answered_with_those_that_would() {
    let gateway = Gateway::start(&naming(&[
        ("read", "path: /x, methods: [GET]"),
        ("write", "path: /x, methods: [PUT, DELETE]"),
        ("special", "path: /x, methods: [PATCH], headers: { x-a: b }"),
        ("open", "path: /open, methods: [GET]"),
        ("any", "prefix: /open"),
    ]));
    let client = Client::new(gateway.http());
    let reply = client.post("/x", "").await;
    assert_eq!((reply.status, reply.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(sorted(reply.header("allow")), ["DELETE", "GET", "HEAD", "PUT"]);
    let reply = client.clone().header("x-a", "b").post("/x", "").await;
    assert_eq!(sorted(reply.header("allow")), ["DELETE", "GET", "HEAD", "PATCH", "PUT"]);
    assert_eq!(client.send(Method::PATCH, "/x", Bytes::new()).await.status, 405);
    assert_eq!(client.post("/open", "").await.text(), "any", "a less specific route comes before a 405");
    for method in [Method::TRACE, Method::from_bytes(b"BREW").unwrap()] {
        let reply = client.send(method.clone(), "/x", Bytes::new()).await;
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.header("allow").is_some_and(|allow| allow.contains("GET")), "{method}");
    }
    let options = client.send(Method::OPTIONS, "/x", Bytes::new()).await;
    assert_eq!(options.status, 405);
    assert!(options.header("allow").is_some());
}

fn sorted(list: Option<&str>) -> Vec<&str> {
    let mut names: Vec<_> = list.unwrap_or_default().split(", ").collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn head_takes_the_route_of_get() {
    let origin = Origin::text("hello").await;
    let gateway = Gateway::start(&format!(
        "services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: read, match: {{ path: /x, methods: [GET] }}, forward: {{ service: all }} }}\n\
         \x20 - {{ name: own, match: {{ path: /own }}, respond: {{ text: hello }} }}\n",
        origin.url()
    ));
    let http1 = Client::new(gateway.http());
    for client in [http1.clone(), http1.clone().http2()] {
        for (target, status) in [("/x", 200), ("/own", 200), ("/nowhere", 404)] {
            let reply = client.send(Method::HEAD, target, Bytes::new()).await;
            assert_eq!((reply.status, reply.body.len()), (status, 0), "{target}");
        }
    }
    for target in ["/x", "/own"] {
        let reply = http1.send(Method::HEAD, target, Bytes::new()).await;
        assert_eq!(reply.header("content-length"), Some("5"), "as GET would say: {target}");
    }
    assert!(origin.seen().iter().all(|seen| seen.method == Method::HEAD));
}

#[tokio::test]
async fn unrouted_requests_pass_through_the_defaults() {
    let gateway = Gateway::start(
        "rate_limits: { few: { key: ip, rate: 1/h, burst: 3 } }\n\
         defaults:\n\
         \x20 rate_limits: [few]\n\
         \x20 request_id: { header: x-correlation }\n\
         \x20 response_headers: { set: { x-frame-options: deny } }\n\
         \x20 max_body: 10B\n\
         routes: [{ name: one, match: { path: /one, methods: [PUT] }, respond: {} }]\n",
    );
    let client = Client::new(gateway.http()).header("x-correlation", "mine-1");
    for (number, target, status, code) in [
        (1, "/nowhere", 404, "route_not_found"),
        (2, "/one", 405, "method_not_allowed"),
        (3, "/nowhere", 404, "route_not_found"),
        (4, "/nowhere", 429, "rate_limited"),
    ] {
        let reply = client.get(target).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{number}");
        assert_eq!(reply.header("x-frame-options"), Some("deny"), "{number}");
        assert_eq!(reply.header("x-correlation"), Some(reply.json()["request_id"].as_str().unwrap()));
        assert!(reply.header("ratelimit").is_some_and(|field| field.starts_with("\"few\";r=")), "{number}");
        assert_eq!(reply.header("retry-after").is_some(), status == 429, "{number}");
    }
    let too_large = client.post("/nowhere", vec![b'x'; 11]).await;
    assert_eq!(too_large.status, 413);
}

#[tokio::test]
async fn prefixes_are_stripped_and_paths_rewritten() {
    let origin = echo().await;
    let url = origin.url();
    let gateway = Gateway::start(&format!(
        "services: {{ all: {{ instances: [\"{url}\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: strip, match: {{ prefix: /gateway }}, forward: {{ service: all, strip_prefix: /gateway }} }}\n\
         \x20 - {{ name: rewrite, match: {{ path: \"/u/{{id}}/{{what}}\" }}, forward: {{ service: all, rewrite: \"/internal/{{what}}/{{id}}\" }} }}\n"
    ));
    for (sent, seen) in [
        ("/gateway", "/"),
        ("/gateway/", "/"),
        ("/gateway//", "/"),
        ("/gateway/a/b?x=1", "/a/b?x=1"),
        ("/gateway?x=1", "/?x=1"),
        ("/gateway/gateway/a", "/gateway/a"),
        ("/gateway/../gateway/a", "/a"),
        ("/u/7/orders", "/internal/orders/7"),
        ("/u/7/orders?page=2", "/internal/orders/7?page=2"),
        ("/u/a&b=c/x", "/internal/x/a&b=c"),
        ("/u/a%3Fb%23c/x", "/internal/x/a%3Fb%23c"),
        ("/u/a+b/x", "/internal/x/a+b"),
    ] {
        assert_eq!(raw::get(gateway.http(), sent, "").await, (200, seen.to_owned()), "{sent}");
    }
}

#[tokio::test]
async fn routes_that_only_the_file_order_tells_apart_are_warned_about() {
    let gateway = Gateway::start(&naming(&[("first", "path: /x"), ("second", "path: /x")]));
    assert_eq!(Client::new(gateway.http()).get("/x").await.text(), "first");
    let said = gateway.messages();
    assert!(said.contains("second") && said.contains("first"), "{said}");
}
