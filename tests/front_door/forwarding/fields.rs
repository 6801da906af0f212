//! What the fields of a request and its response are on the other side.

use super::*;

#[tokio::test]
async fn fields_of_the_connection_end_here_both_ways() {
    let origin = Origin::start(|_| {
        Response::builder()
            .header("connection", "x-hop, X-Request-ID")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("upgrade", "h2c")
            .header("x-stays", "1")
            .body(Full::from("ok"))
            .expect("constants")
    })
    .await;
    let gateway = to(&origin.url(), "trusted_proxies: []\n");
    let reply = Client::new(gateway.http())
        .header(
            "connection",
            "x-hop, X-Forwarded-For, Via, forwarded, X-Request-Id, traceparent, Host, authorization",
        )
        .header("x-hop", "1")
        .header("keep-alive", "300")
        .header("proxy-connection", "keep-alive")
        .header("proxy-authorization", "Basic eDp5")
        .header("te", "gzip, trailers")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABk")
        .header("authorization", "Basic eDp5")
        .header("proxy", "http://evil.example")
        .header("x-stays", "1")
        .get("/x")
        .await;
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert_eq!(reply.header(name), None, "{reply:?}");
    }
    assert_eq!(reply.header("x-stays"), Some("1"));
    assert!(
        reply.header("x-request-id").is_some(),
        "the gateway's own field is not the service's to take away"
    );
    let seen = origin.only();
    let gone = [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "http2-settings",
        "proxy",
    ];
    for name in gone {
        assert_eq!(seen.header(name), None, "{seen:?}");
    }
    for name in [
        "x-forwarded-for",
        "forwarded",
        "via",
        "x-request-id",
        "traceparent",
        "host",
        "authorization",
        "x-stays",
    ] {
        assert!(seen.header(name).is_some(), "{name} is gone: {seen:?}");
    }
    assert_eq!((seen.header("te"), seen.header("connection")), (Some("trailers"), Some("te")));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn where_a_request_came_from_is_believed_from_trusted_proxies_only() {
    let origin = Origin::text("ok").await;
    let claims = |gateway: &Gateway| {
        Client::new(gateway.http())
            .host("shop.example:8443")
            .header("x-forwarded-for", "198.51.100.7")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "public.example")
            .header("x-real-ip", "198.51.100.7")
            .header("x_forwarded_for", "198.51.100.7")
            .header("via", "1.1 edge")
    };
    let gateway = to(&origin.url(), "trusted_proxies: []\n");
    claims(&gateway).get("/untrusted").await;
    let seen = origin.only();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example:8443"));
    assert_eq!(seen.header("forwarded"), Some("for=127.0.0.1;proto=http;host=\"shop.example:8443\""));
    assert_eq!((seen.header("x-real-ip"), seen.header("x_forwarded_for")), (None, None));
    let via: Vec<_> = seen.headers.get_all("via").iter().collect();
    assert_eq!(via, ["1.1 edge", "1.1 gatehouse"]);
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/untrusted")["client"], "127.0.0.1");

    let gateway = to(&origin.url(), "trusted_proxies: [127.0.0.0/8]\n");
    claims(&gateway).get("/trusted").await;
    let seen = origin.seen().pop().expect("it came");
    assert_eq!(seen.header("x-forwarded-for"), Some("198.51.100.7, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("public.example"));
    assert_eq!(
        seen.header("forwarded"),
        Some(
            "for=198.51.100.7;proto=https;host=public.example, for=127.0.0.1;proto=http;host=\"shop.example:8443\""
        )
    );
    assert_eq!(gateway.log_entry(|entry| entry["path"] == "/trusted")["client"], "198.51.100.7");
}

#[tokio::test]
async fn a_spoofed_address_does_not_get_around_a_limit_by_address() {
    let origin = Origin::text("ok").await;
    let limits = "rate_limits: { few: { key: ip, rate: 1/m, burst: 2 } }\ndefaults: { rate_limits: [few] }\n";
    let gateway = to(&origin.url(), &format!("trusted_proxies: []\n{limits}"));
    let mut statuses = Vec::new();
    for spoofed in ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"] {
        let client = Client::new(gateway.http()).header("x-forwarded-for", spoofed);
        statuses.push(client.header("forwarded", &format!("for={spoofed}")).get("/").await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
    // Behind a trusted proxy, the address that it vouches for counts, not what the client put before it.
    let gateway = to(&origin.url(), &format!("trusted_proxies: [127.0.0.0/8]\n{limits}"));
    let mut statuses = Vec::new();
    for spoofed in ["1.1.1.1, 9.9.9.9", "2.2.2.2, 9.9.9.9", "3.3.3.3, 9.9.9.9", "9.9.9.8"] {
        statuses.push(Client::new(gateway.http()).header("x-forwarded-for", spoofed).get("/").await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 200]);
}

#[tokio::test]
async fn identity_fields_of_the_client_reach_no_service() {
    let origin = Origin::text("ok").await;
    let gateway = to(
        &origin.url(),
        "authenticators: { j: { jwt: { algorithms: [HS256], claim_headers: { sub: x-user-id }, \
         keys: [ { secret: \"0123456789012345678901234567890123\" } ] } } }\n",
    );
    let client = Client::new(gateway.http()).header("x-user-id", "admin").header("X-User-Id", "root");
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(origin.only().header("x-user-id"), None);
}

#[tokio::test]
async fn what_the_gateway_says_is_not_imitated() {
    let origin = RawOrigin::start(|mut stream, _| async move {
        let head = read_head(&mut stream).await;
        let body =
            if head.contains("chunked") { read_until(&mut stream, "\r\n\r\n").await } else { String::new() };
        let seen = head + &body;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{seen}", seen.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let gateway = Gateway::start(&format!(
        "authenticators: {{ j: {{ jwt: {{ algorithms: [HS256], claim_headers: {{ sub: x-user-id }}, \
         keys: [ {{ secret: \"0123456789012345678901234567890123\" }} ] }} }} }}\n\
         services: {{ s: {{ instances: [ \"{}\" ] }} }}\n\
         routes: [ {{ name: all, match: {{ prefix: / }}, \
         request_headers: {{ set: {{ x-tenant: ours }}, remove: [x-internal] }}, forward: {{ service: s }} }} ]\n",
        origin.url(),
    ));
    let head = "Host: a\r\nConnection: close\r\n";
    let fields = "X_Tenant: evil\r\nX_Internal: evil\r\nX-Internal: evil\r\nX_User_Id: evil\r\nX-User_Id: evil\r\n\
                  X_Request_Id: evil\r\nX_Real_Ip: evil\r\nContent_Length: 666\r\nTransfer_Encoding: evil\r\n\
                  X_Harmless: kept\r\n";
    let seen = raw::exchange(gateway.http(), format!("GET / HTTP/1.1\r\n{head}{fields}\r\n")).await;
    assert!(seen.contains("x_harmless: kept\r\n"), "{seen}");
    assert!(seen.contains("x-tenant: ours\r\n"), "{seen}");
    assert!(!seen.contains("evil") && !seen.contains("content_length"), "{seen}");

    // A service may merge a trailer section into the head: what counts there counts here.
    let trailers =
        format!("{fields}X-Tenant: evil\r\nX-User-Id: evil\r\nX-Real-Ip: evil\r\nX-Request-Id: evil\r\n");
    let names: Vec<&str> = trailers.lines().filter_map(|line| line.split(':').next()).collect();
    let request = format!(
        "POST / HTTP/1.1\r\n{head}Trailer: {}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{trailers}\r\n",
        names.join(", ")
    );
    let seen = raw::exchange(gateway.http(), request).await;
    assert!(seen.ends_with("\r\n0\r\nx_harmless: kept\r\n\r\n"), "{seen}");
    assert!(!seen.contains("evil"), "{seen}");
}

#[tokio::test]
async fn paths_and_hosts_are_rewritten_as_the_route_says() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&format!(
        "services: {{ s: {{ instances: [\"{}\"] }} }}\n\
         routes:\n\
         - {{ name: strip, match: {{ prefix: /strip/this }}, forward: {{ service: s, strip_prefix: /strip, host: instance }} }}\n\
         - {{ name: rewrite, match: {{ path: \"/users/{{id}}/x\" }}, forward: {{ service: s, rewrite: \"/internal/{{id}}\", host: fixed.example }} }}\n\
         - {{ name: keep, match: {{ prefix: /keep }}, forward: {{ service: s, host: preserve }} }}\n",
        origin.url()
    ));
    let instance = origin.address.to_string();
    for (target, expected, host) in [
        ("/strip/this/a?b=c&b=d", "/this/a?b=c&b=d", instance.as_str()),
        ("/strip/x/../this/%7Ea//b?x=%2F/../", "/this/~a/b?x=%2F/../", instance.as_str()),
        ("/users/a%20b/x?q", "/internal/a%20b?q", "fixed.example"),
        ("/keep?", "/keep?", "Client.Example:81"),
        ("/keep", "/keep", "Client.Example:81"),
    ] {
        let reply = Client::new(gateway.http()).host("Client.Example:81").get(target).await;
        assert_eq!(reply.status, 200, "{target}");
        let seen = origin.seen().pop().expect("it came");
        assert_eq!((seen.target.as_str(), seen.header("host")), (expected, Some(host)), "{target}");
        assert_eq!(seen.header("x-forwarded-host"), Some("Client.Example:81"));
    }
}
