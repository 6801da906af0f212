//! Another configuration while requests run: how it is noticed, what it changes, and what it must not.

mod listeners;
mod living_on;

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
