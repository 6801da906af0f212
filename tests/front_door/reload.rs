//! Another configuration while requests run: how it is noticed, what it changes, and what it must not.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::support::gateway::complete;
use crate::support::raw::{RawOrigin, read_until};
use crate::support::{Client, Gateway, Origin, Session, eventually, origin};

/// One route, `/v`, that answers with this text.
fn says(text: &str) -> String {
    format!("routes: [{{ name: version, match: {{ path: /v }}, respond: {{ text: {text} }} }}]\n")
}

fn forwards(url: &str) -> String {
    format!(
        "services: {{ s: {{ instances: [\"{url}\"] }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: s }} }}]\n"
    )
}

async fn said(gateway: &Gateway) -> String {
    Client::new(gateway.http()).get("/v").await.text()
}

async fn until_said(gateway: &Gateway, text: &str) {
    eventually(text, || async { (said(gateway).await == text).then_some(()) }).await;
}

/// An origin that answers `slow` paths only when a permit is there.
async fn gated() -> (Origin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = gate.clone();
    let origin = Origin::start_slow(move |seen| {
        let waiting = waiting.clone();
        async move {
            if seen.target.contains("slow") {
                waiting.acquire().await.expect("it is never closed").forget();
            }
            origin::json("{}")
        }
    })
    .await;
    (origin, gate)
}

/// Puts the development certificate beside the configuration, the key first.
fn certificate(gateway: &Gateway, name: &str) {
    let certs = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    for kind in ["key", "crt"] {
        let from = certs.join(format!("localhost.{kind}"));
        std::fs::copy(from, gateway.file(&format!("{name}.{kind}"))).expect("it is in the package");
    }
}

mod noticing {
    use super::*;

    #[tokio::test]
    async fn a_change_is_live_in_under_a_second() {
        let gateway = Gateway::start(&says("zero"));
        let mut fastest = Duration::MAX;
        // A busy machine may hold up one of them.
        for attempt in 0..4 {
            let text = format!("n{attempt}");
            gateway.write(&says(&text));
            let written = Instant::now();
            until_said(&gateway, &text).await;
            fastest = fastest.min(written.elapsed());
        }
        assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    }

    #[tokio::test]
    async fn written_in_place() {
        let gateway = Gateway::start(&says("one"));
        std::fs::write(gateway.file("gateway.yaml"), complete(&says("two"))).expect("writable");
        until_said(&gateway, "two").await;
        assert!(gateway.wait_for("reloaded gateway.yaml").ends_with("route version changed"));
    }

    #[tokio::test]
    async fn behind_a_link_that_is_swapped() {
        // As Kubernetes mounts a ConfigMap.
        let directory = tempfile::tempdir().expect("there is a directory for temporary files");
        let at = |name: &str| directory.path().join(name);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).expect("links exist");
        for version in ["one", "two", "three"] {
            std::fs::create_dir(at(version)).expect("writable");
            std::fs::write(at(version).join("gateway.yaml"), complete(&says(version))).expect("writable");
        }
        link("one", "..data");
        link("..data/gateway.yaml", "gateway.yaml");
        let gateway = Gateway::start_in(directory, &says("one"), &[]);
        for version in ["two", "three"] {
            let swapped = |from: &Path, to: &Path| std::fs::rename(from, to).expect("writable");
            std::os::unix::fs::symlink(version, gateway.file("..data_tmp")).expect("links exist");
            swapped(&gateway.file("..data_tmp"), &gateway.file("..data"));
            until_said(&gateway, version).await;
        }
    }

    #[tokio::test]
    async fn when_a_signal_asks() {
        let gateway = Gateway::start(&says("one"));
        gateway.signal("HUP");
        gateway.wait_for("gateway.yaml: the same configuration as before");
        assert_eq!(gateway.api("/api/status").await["last_reload"]["result"], "unchanged");
        gateway.write(&says("two"));
        gateway.signal("HUP");
        until_said(&gateway, "two").await;
    }

    #[tokio::test]
    async fn when_the_admin_interface_asks() {
        let gateway = Gateway::start(&says("one"));
        let reply = gateway.ask_to_reload().await;
        assert_eq!((reply.status, reply.json()["result"].as_str()), (200, Some("unchanged")));
        gateway.write(&says("two"));
        // The watch may have been faster.
        let reply = gateway.ask_to_reload().await;
        assert_eq!(reply.status, 200);
        assert_eq!(said(&gateway).await, "two");
        gateway.write("routes: [{ name: version, match: { path: /v }, respnd: { text: x } }]\n");
        let reply = gateway.ask_to_reload().await;
        assert_eq!((reply.status, reply.code().as_str()), (422, "configuration_refused"));
        let told = reply.json();
        assert_eq!(told["result"], "refused");
        let problem = &told["problems"][0];
        let text = std::fs::read_to_string(gateway.file("gateway.yaml")).expect("it was written");
        let line = text.lines().position(|line| line.contains("respnd")).expect("it is there");
        let column = text.lines().nth(line).and_then(|line| line.find("respnd")).expect("it is there");
        assert_eq!(
            (problem["line"].as_u64(), problem["column"].as_u64()),
            (Some(line as u64 + 1), Some(column as u64 + 1)),
            "{told}"
        );
        assert!(problem["remedy"].as_str().is_some_and(|remedy| remedy.contains("respond")), "{told}");
        // Asked again, it is as wrong as before.
        assert_eq!(gateway.ask_to_reload().await.status, 422);
        assert_eq!(said(&gateway).await, "two");
    }
}

mod mistakes {
    use super::*;

    #[tokio::test]
    async fn the_old_configuration_serves_and_the_mistake_is_shown() {
        let gateway = Gateway::start(&says("one"));
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
        let cases = [
            ("routes: [{ name: version\n".to_owned(), "routes"),
            ("routes: []\nlisteners2: 1\n".to_owned(), "unknown key"),
            (
                "routes: []\nlisteners: [{ name: http, bind: '127.0.0.1:0', tls: { certificates: \
                 [{ certificate: no.crt, private_key: no.key }] } }]\n"
                    .to_owned(),
                "no.crt",
            ),
            (
                format!(
                    "routes: []\nlisteners: [{{ name: http, bind: '{}' }}]\n",
                    taken.local_addr().expect("it is bound")
                ),
                "another process has this port",
            ),
            (
                "routes: [{ name: x, match: { path: / }, forward: { service: nobody } }]\n".to_owned(),
                "nobody",
            ),
        ];
        for (text, expected) in &cases {
            gateway.write(text);
            gateway.wait_for(expected);
            eventually("the refusal is in the status", || async {
                let last = gateway.api("/api/status").await["last_reload"].clone();
                let here = last["problems"].to_string().contains(expected);
                let mentioned = last["problems"][0]["line"].as_u64().is_some();
                (last["result"] == "refused" && mentioned && (here || *expected == "routes")).then_some(())
            })
            .await;
            assert_eq!(said(&gateway).await, "one", "{text}");
        }
        gateway.wait_for("^^^");
        gateway.wait_for("is refused, and the configuration before goes on serving:");
        assert_eq!(gateway.metric("gatehouse_config_last_reload_successful", &[]).await, 0.0);
        gateway.reconfigure(&says("two")).await;
        assert_eq!(said(&gateway).await, "two");
        assert_eq!(gateway.metric("gatehouse_config_last_reload_successful", &[]).await, 1.0);
    }

    #[tokio::test]
    async fn taking_the_mistake_back_is_no_change() {
        let gateway = Gateway::start(&says("one"));
        gateway.write("nonsense: 1\n");
        gateway.wait_for("goes on serving");
        gateway.write(&says("one"));
        gateway.wait_for("the same configuration as before");
        let status = gateway.api("/api/status").await;
        assert_eq!(
            (&status["last_reload"]["result"], &status["generation"]),
            (&"unchanged".into(), &1.into())
        );
        assert_eq!(gateway.metric("gatehouse_config_last_reload_successful", &[]).await, 1.0);
    }

    #[tokio::test]
    async fn a_cure_outside_of_the_main_file_is_noticed() {
        let gateway = Gateway::start(&says("one"));
        gateway.write(
            "listeners: [{ name: http, bind: '127.0.0.1:0', tls: { certificates: \
             [{ certificate: later.crt, private_key: later.key }] } }]\nroutes: []\n",
        );
        gateway.wait_for("goes on serving");
        assert_eq!(said(&gateway).await, "one");
        certificate(&gateway, "later");
        // More than once when it looks while the files are being written.
        eventually("it serves TLS", || async { (gateway.generation().await >= 2).then_some(()) }).await;
        assert_eq!(gateway.api("/api/status").await["listeners"][0]["tls"], true);
    }

    #[tokio::test]
    async fn a_deleted_file_changes_nothing() {
        let gateway = Gateway::start(&says("one"));
        std::fs::remove_file(gateway.file("gateway.yaml")).expect("it is there");
        gateway.wait_for("goes on serving");
        assert_eq!(said(&gateway).await, "one");
        gateway.reconfigure(&says("two")).await;
        assert_eq!(said(&gateway).await, "two");
    }
}

mod listeners {
    use super::*;

    fn listening(listeners: &[(&str, &str)], rest: &str) -> String {
        let listeners = listeners.iter().map(|(name, bind)| format!("{{ name: {name}, bind: '{bind}' }}"));
        format!("listeners: [{}]\n{rest}", listeners.collect::<Vec<_>>().join(", "))
    }

    async fn is_refused(address: SocketAddr) {
        eventually("the address is left", || async {
            Session::try_open(address).await.is_err().then_some(())
        })
        .await;
    }

    #[tokio::test]
    async fn come_and_go() {
        let (origin, gate) = gated().await;
        let routes = forwards(&origin.url());
        let gateway = Gateway::start(&listening(&[("a", "127.0.0.1:0"), ("b", "127.0.0.1:0")], &routes));
        let (a, b) = (gateway.address("a"), gateway.address("b"));
        let mut stays = Session::open(a).await;
        stays.get("/quick").await;
        let mut leaves = Session::open(b).await;
        let slow = async { leaves.get("/slow").await };
        let change = async {
            eventually("the slow one is there", || async { (origin.count() == 2).then_some(()) }).await;
            gateway.reconfigure(&listening(&[("a", "127.0.0.1:0"), ("c", "127.0.0.1:0")], &routes)).await;
            is_refused(b).await;
            assert_eq!(Client::new(gateway.address("c")).get("/quick").await.status, 200);
            gate.add_permits(1);
        };
        let (reply, ()) = tokio::join!(slow, change);
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        leaves.closed().await;
        assert_eq!(stays.get("/quick").await.status, 200);
        assert!(stays.is_open());
        assert!(gateway.wait_for("reloaded").contains("listener c added, listener b removed"));
    }

    #[tokio::test]
    async fn an_idle_connection_to_one_that_goes_hears_of_it_or_is_closed() {
        let gateway = Gateway::start(&listening(&[("a", "127.0.0.1:0"), ("b", "127.0.0.1:0")], &says("x")));
        let (mut asks, mut rests) =
            (Session::open(gateway.address("b")).await, Session::open(gateway.address("b")).await);
        asks.get("/v").await;
        rests.get("/v").await;
        let left = listening(&[("a", "127.0.0.1:0")], &says("x"));
        tokio::join!(asks.until_told_to_close("/v"), gateway.reconfigure(&left));
        rests.closed().await;
    }

    #[tokio::test]
    async fn another_name_or_a_wider_address_keeps_the_port_open() {
        let gateway = Gateway::start(&listening(&[("http", "127.0.0.1:0")], &says("one")));
        let address = gateway.http();
        let port = address.port();
        let mut session = Session::open(address).await;
        session.get("/v").await;
        gateway.reconfigure(&listening(&[("web", &address.to_string())], &says("two"))).await;
        assert_eq!(session.get("/v").await.text(), "two");
        assert_eq!(Client::new(address).get("/v").await.text(), "two");
        gateway.log_entry(|entry| entry["listener"] == "web");
        gateway.reconfigure(&listening(&[("web", &format!("0.0.0.0:{port}"))], &says("three"))).await;
        eventually("the wider address serves", || async {
            (Client::new(address).get("/v").await.text() == "three").then_some(())
        })
        .await;
        assert_eq!(gateway.address("web").to_string(), format!("0.0.0.0:{port}"));
    }

    #[tokio::test]
    async fn tls_comes_to_an_address_that_is_open() {
        let gateway = Gateway::start(&listening(&[("http", "127.0.0.1:0")], &says("one")));
        let address = gateway.http();
        let mut session = Session::open(address).await;
        session.get("/v").await;
        certificate(&gateway, "a");
        gateway
            .reconfigure(&format!(
                "listeners: [{{ name: http, bind: '{address}', tls: {{ certificates: \
                 [{{ certificate: a.crt, private_key: a.key }}] }} }}]\n{}",
                says("two")
            ))
            .await;
        // What was begun goes on as it was.
        assert_eq!(session.get("/v").await.text(), "two");
        assert!(Client::new(address).try_send(http::Method::GET, "/v", Default::default()).await.is_err());
        assert_eq!(gateway.api("/api/status").await["listeners"][0]["tls"], true);
    }

    #[tokio::test]
    async fn the_admin_interface_moves_and_gets_a_token() {
        let gateway = Gateway::start(&says("one"));
        let before = gateway.admin();
        let with_token = format!("admin: {{ bind: '{before}', token: sesame }}\n{}", says("one"));
        gateway.write(&with_token);
        eventually("the token is asked for", || async {
            (Client::new(before).get("/api/status").await.status == 401).then_some(())
        })
        .await;
        let knows = Client::new(before).bearer("sesame");
        eventually("the token is taken", || async {
            let reply = knows.get("/api/status").await;
            (reply.status == 200 && reply.json()["generation"] == 2).then_some(())
        })
        .await;
        // Whoever asks for the move over the old address is still answered there.
        std::fs::write(
            gateway.file("gateway.yaml"),
            complete(&format!("admin: {{ bind: '127.0.0.1:0', token: sesame }}\n{}", says("one"))),
        )
        .expect("writable");
        assert_eq!(knows.post("/api/reload", "").await.status, 200);
        eventually("the new address serves", || async { (gateway.admin() != before).then_some(()) }).await;
        let knows = Client::new(gateway.admin()).bearer("sesame");
        assert_eq!(knows.get("/api/status").await.status, 200);
        is_refused(before).await;
    }
}

mod living_on {
    use super::*;

    #[tokio::test]
    async fn a_request_ends_under_the_configuration_that_it_began_with() {
        let (origin, gate) = gated().await;
        let version = |n: u32| {
            format!(
                "{}defaults: {{ response_headers: {{ set: {{ x-version: '{n}' }} }} }}\n",
                forwards(&origin.url())
            )
        };
        let gateway = Gateway::start(&version(1));
        let mut session = Session::open(gateway.http()).await;
        let change = async {
            eventually("it has begun", || async { (origin.count() == 1).then_some(()) }).await;
            gateway.reconfigure(&version(2)).await;
            assert_eq!(Client::new(gateway.http()).get("/").await.header("x-version"), Some("2"));
            gate.add_permits(1);
        };
        let (reply, ()) = tokio::join!(session.get("/slow"), change);
        assert_eq!((reply.status, reply.header("x-version")), (200, Some("1")));
        assert_eq!(reply.header("connection"), None);
        let local = session.local;
        let reply = session.get("/").await;
        assert_eq!((reply.header("x-version"), session.local), (Some("2"), local));
    }

    #[tokio::test]
    async fn connections_to_instances() {
        let origin = RawOrigin::start(|mut stream, number| async move {
            use tokio::io::AsyncWriteExt;
            while read_until(&mut stream, "\r\n\r\n").await.ends_with("\r\n\r\n") {
                let answer =
                    format!("HTTP/1.1 200 OK\r\nx-connection: {number}\r\ncontent-length: 0\r\n\r\n");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        })
        .await;
        // One worker has one pool.
        let version = |name: &str| format!("workers: 1\n{}", forwards(&origin.url()).replace("all", name));
        let gateway = Gateway::start(&version("one"));
        let client = Client::new(gateway.http());
        assert_eq!(client.get("/").await.header("x-connection"), Some("1"));
        for name in ["two", "three"] {
            gateway.reconfigure(&version(name)).await;
            assert_eq!(client.get("/").await.header("x-connection"), Some("1"));
        }
    }

    #[tokio::test]
    async fn open_streams() {
        let origin = RawOrigin::start(|mut stream, _| async move {
            use tokio::io::AsyncWriteExt;
            let request = read_until(&mut stream, "\r\n\r\n").await;
            assert!(request.contains("upgrade: echo"), "{request}");
            let _ = stream
                .write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
                )
                .await;
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
        .await;
        let gateway = Gateway::start(&forwards(&origin.url()));
        let mut tunnel = echo_tunnel(gateway.http()).await;
        gateway.reconfigure(&says("none of it left")).await;
        assert_eq!(echoed(&mut tunnel, "after the reload\n").await, "after the reload\n");
    }

    #[tokio::test]
    async fn rate_limits_breakers_and_health() {
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
        let broken = Arc::new(AtomicBool::new(true));
        let fails = broken.clone();
        let origin = Origin::start(move |seen| match &*seen.target {
            "/health" => origin::status(500),
            _ if fails.load(Relaxed) => origin::status(503),
            _ => origin::status(200),
        })
        .await;
        let configuration = |route: &str| {
            let url = origin.url();
            format!(
                "services:\n  broken: {{ instances: ['{url}'], circuit_breaker: {{ consecutive_failures: 2, \
                 open_for: 10m }}, retries: {{ attempts: 0 }} }}\n  ill: {{ instances: ['{url}'], \
                 health_check: {{ path: /health, interval: 50ms, unhealthy_after: 2 }} }}\n\
                 rate_limits: {{ three: {{ key: route, rate: 1/m, burst: 3 }} }}\n\
                 routes:\n  - {{ name: limited, match: {{ path: /limited }}, rate_limits: [three], respond: \
                 {{ text: x }} }}\n  - {{ name: {route}, match: {{ path: /broken }}, forward: {{ service: broken }} }}\n  \
                 - {{ name: ill, match: {{ path: /ill }}, forward: {{ service: ill }} }}\n"
            )
        };
        let gateway = Gateway::start(&configuration("one"));
        let client = Client::new(gateway.http());
        for status in [200, 200] {
            assert_eq!(client.get("/limited").await.status, status);
        }
        for _ in 0..2 {
            assert_eq!(client.get("/broken").await.status, 503);
        }
        assert_eq!(client.get("/broken").await.code(), "circuit_open");
        eventually("health checks have failed", || async {
            (client.get("/ill").await.status == 503).then_some(())
        })
        .await;
        broken.store(false, Relaxed);
        for name in ["two", "three"] {
            gateway.reconfigure(&configuration(name)).await;
            assert_eq!(client.get("/broken").await.code(), "circuit_open");
            assert_eq!(client.get("/ill").await.code(), "no_instance");
        }
        let statuses = [client.get("/limited").await.status, client.get("/limited").await.status];
        assert_eq!(statuses, [200, 429]);
        let services = gateway.api("/api/services").await;
        assert_eq!(services["services"][0]["instances"][0]["breaker"]["state"], "open");
    }
}

#[tokio::test]
async fn what_changed_is_told_by_name() {
    let gateway = Gateway::start(
        "services: { a: { instances: ['http://127.0.0.1:1'] }, b: { instances: ['http://127.0.0.1:2'] } }\n\
         routes: [{ name: x, match: { path: /x }, forward: { service: a } }]\n",
    );
    gateway.write(
        "workers: 1\nservices: { a: { instances: ['http://127.0.0.1:9'] }, c: { instances: ['http://127.0.0.1:2'] } }\n\
         rate_limits: { r: { key: ip, rate: 1/s } }\n\
         routes: [{ name: y, match: { path: /y }, forward: { service: a } }]\n",
    );
    let told = gateway.wait_for("reloaded gateway.yaml: ");
    for change in [
        "workers changed: takes effect at the next start",
        "service a changed",
        "service b removed",
        "service c added",
        "rate limit r added",
        "route x removed",
        "route y added",
    ] {
        assert!(told.contains(change), "{change}: {told}");
    }
    assert!(!told.contains("listener"), "{told}");
    let last = &gateway.api("/api/status").await["last_reload"];
    assert_eq!(last["result"], "applied");
    assert!(last["changes"].as_array().is_some_and(|changes| changes.len() == 7), "{last}");
    // Lines that move are no change.
    gateway.write(
        "\n\n\nworkers: 1\nservices: { a: { instances: ['http://127.0.0.1:9'] }, c: { instances: ['http://127.0.0.1:2'] } }\n\
         rate_limits: { r: { key: ip, rate: 1/s } }\n\
         routes: [{ name: y, match: { path: /y }, respond: { text: y } }]\n",
    );
    let told = gateway.wait_for("route y changed");
    assert!(told.ends_with("gateway.yaml: route y changed"), "{told}");
}

#[tokio::test]
async fn five_thousand_routes_under_load() {
    let many = |text: &str| {
        let routes = (0..5_000).map(|n| {
            format!("- {{ name: r{n}, match: {{ prefix: /area{n}/api }}, respond: {{ text: {text} }} }}\n")
        });
        format!("routes:\n{}", routes.collect::<String>())
    };
    let gateway = Gateway::start(&many("one"));
    let mut session = Session::open(gateway.http()).await;
    let asking = async {
        let mut answers = 0;
        loop {
            let reply = session.get("/area4999/api/x").await;
            assert_eq!(reply.status, 200);
            answers += 1;
            if reply.text() == "two" {
                return answers;
            }
        }
    };
    let (answers, ()) = tokio::join!(asking, async { gateway.write(&many("two")) });
    assert!(answers > 10, "requests went on meanwhile: {answers}");
}

/// A connection that is an `echo` tunnel by now.
pub async fn echo_tunnel(address: SocketAddr) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt;
    let mut tunnel = tokio::net::TcpStream::connect(address).await.expect("the gateway accepts");
    tunnel
        .write_all(b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        .await
        .expect("the gateway reads");
    let head = read_until(&mut tunnel, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(echoed(&mut tunnel, "hello\n").await, "hello\n");
    tunnel
}

pub async fn echoed(tunnel: &mut tokio::net::TcpStream, line: &str) -> String {
    use tokio::io::AsyncWriteExt;
    tunnel.write_all(line.as_bytes()).await.expect("the tunnel is open");
    read_until(tunnel, "\n").await
}
