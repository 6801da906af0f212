//! Which addresses may call.

use std::fmt::Write;
use std::fs;

use super::*;
use crate::support::eventually;

/// What a client at this address, behind a trusted proxy, gets.
async fn from(gateway: &Gateway, target: &str, address: &str) -> (u16, Option<String>) {
    let reply = Client::new(gateway.http()).header("x-forwarded-for", address).get(target).await;
    (reply.status, (reply.status >= 400).then(|| reply.code()))
}

fn denied() -> (u16, Option<String>) {
    (403, Some("ip_denied".to_owned()))
}

#[tokio::test]
async fn the_longest_prefix_decides_and_all_filters_must_agree() {
    let origin = Origin::text("ok").await;
    let gateway = Gateway::start(&format!(
        "trusted_proxies: [127.0.0.0/8]\n\
         defaults: {{ ip_filter: {{ deny: [203.0.113.0/24, 10.9.0.0/16] }} }}\n\
         services: {{ all: {{ instances: [\"{}\"] }} }}\n\
         routes:\n\
         \x20 - {{ name: open, match: {{ path: /open }}, forward: {{ service: all }} }}\n\
         \x20 - name: inner\n\
         \x20   match: {{ path: /inner }}\n\
         \x20   ip_filter: {{ allow: [10.0.0.0/8, 10.6.6.7, \"2001:db8::/32\"], deny: [10.6.6.0/24, \"2001:db8:1::/48\"] }}\n\
         \x20   forward: {{ service: all }}\n",
        origin.url()
    ));
    let ok = (200, None);
    for (target, address, expected) in [
        ("/open", "192.0.2.1", ok.clone()),
        ("/open", "203.0.113.9", denied()),
        ("/open", "::ffff:203.0.113.9", denied()),
        ("/nowhere", "203.0.113.9", denied()),
        ("/inner", "10.1.2.3", ok.clone()),
        ("/inner", "::ffff:10.1.2.3", ok.clone()),
        ("/inner", "10.6.6.6", denied()),
        ("/inner", "10.6.6.7", ok.clone()),
        ("/inner", "10.9.1.1", denied()),
        ("/inner", "192.0.2.1", denied()),
        ("/inner", "127.0.0.1", denied()),
        ("/inner", "2001:db8::1", ok.clone()),
        ("/inner", "2001:db8:1::1", denied()),
        ("/inner", "::1", denied()),
    ] {
        assert_eq!(from(&gateway, target, address).await, expected, "{address} at {target}");
    }
    assert_eq!(origin.count(), 5);
    assert_eq!(gateway.log_entry(|entry| entry["status"] == 403)["reason"], "ip_denied");
}

#[tokio::test]
async fn nobody_talks_themselves_in() {
    let config =
        "routes: [{ name: a, match: { path: /a }, ip_filter: { allow: [10.0.0.0/8] }, respond: {} }]\n";
    let gateway = Gateway::start(config);
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("client-ip", "10.0.0.1"),
        ("x-client-ip", "10.0.0.1"),
        ("true-client-ip", "10.0.0.1"),
    ] {
        let client = Client::new(gateway.http()).header(name, value);
        assert_eq!(client.get("/a").await.code(), "ip_denied", "{name}");
        assert_eq!(client.http2().get("/a").await.code(), "ip_denied", "{name}");
    }
}

#[tokio::test]
async fn a_preflight_is_filtered_too() {
    let gateway = Gateway::start(
        "routes: [{ name: a, match: { path: /a }, ip_filter: { deny: [127.0.0.0/8] }, \
         cors: { origins: [\"*\"] }, respond: {} }]\n",
    );
    let client = Client::new(gateway.http())
        .header("origin", "https://a.example")
        .header("access-control-request-method", "GET");
    let reply = client.send(http::Method::OPTIONS, "/a", Bytes::new()).await;
    assert_eq!((reply.status, reply.code().as_str()), (403, "ip_denied"));
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "the page may read why");
}

const LISTED: &str = "trusted_proxies: [127.0.0.0/8]\n\
     routes: [{ name: a, match: { path: /a }, ip_filter: { deny: [{ file: deny.txt }] }, respond: {} }]\n";

fn replace(gateway: &Gateway, text: &str) {
    fs::write(gateway.file("deny.new"), text).expect("writable");
    fs::rename(gateway.file("deny.new"), gateway.file("deny.txt")).expect("writable");
}

fn start_with(list: &str) -> Gateway {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    fs::write(directory.path().join("deny.txt"), list).expect("writable");
    Gateway::start_in(directory, LISTED, &[])
}

async fn until_denied(gateway: &Gateway, address: &str) {
    eventually(address, || async { (from(gateway, "/a", address).await == denied()).then_some(()) }).await;
}

#[tokio::test]
async fn a_list_is_followed_and_a_bad_line_keeps_the_one_before() {
    let gateway = start_with("# these\n192.0.2.0/24\n");
    assert_eq!(from(&gateway, "/a", "192.0.2.1").await, denied());
    assert_eq!(from(&gateway, "/a", "198.51.100.1").await.0, 200);
    replace(&gateway, "198.51.100.0/24 # those\r\n");
    until_denied(&gateway, "198.51.100.1").await;
    assert_eq!(from(&gateway, "/a", "192.0.2.1").await.0, 200);

    replace(&gateway, "203.0.113.0/24\n\n198.51.100.0/33\n");
    gateway.wait_for("deny.txt, line 3: \"198.51.100.0/33\" is not a network");
    gateway.wait_for("goes on serving");
    assert_eq!(from(&gateway, "/a", "198.51.100.1").await, denied());
    assert_eq!(from(&gateway, "/a", "203.0.113.1").await.0, 200, "nothing of the bad list counts");
    eventually("the status has it", || async {
        let last = gateway.api("/api/status").await["last_reload"].clone();
        let problem = last["problems"][0]["message"].as_str().unwrap_or_default().contains("line 3");
        (last["result"] == "refused" && problem).then_some(())
    })
    .await;

    replace(&gateway, "203.0.113.0/24\n");
    until_denied(&gateway, "203.0.113.1").await;
    fs::remove_file(gateway.file("deny.txt")).expect("it is there");
    gateway.wait_for("can't read the networks in ");
    assert_eq!(from(&gateway, "/a", "203.0.113.1").await, denied());
}

#[tokio::test]
async fn a_list_may_be_long() {
    // Every second /24 of 11.0.0.0/8 and beyond: 100,000 networks of which none touches another.
    let list = (0..100_000_u32).fold(String::new(), |mut list, n| {
        let _ = writeln!(list, "{}/24", std::net::Ipv4Addr::from(0x0b00_0000 + n * 512));
        list
    });
    let gateway = start_with(&list);
    assert_eq!(from(&gateway, "/a", "11.0.0.1").await, denied());
    assert_eq!(from(&gateway, "/a", "11.0.1.1").await.0, 200);
    assert_eq!(from(&gateway, "/a", "13.255.254.255").await, denied());
    assert_eq!(from(&gateway, "/a", "13.255.255.0").await.0, 200);
}

#[tokio::test]
async fn check_tells_of_a_bad_list() {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let config = crate::support::gateway::complete(LISTED);
    fs::write(directory.path().join("gateway.yaml"), config).expect("writable");
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatehouse"));
        let output = command.arg("check").current_dir(directory.path()).env("NO_COLOR", "1").output();
        let output = output.expect("it runs");
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&told).into_owned())
    };
    let (code, told) = check();
    assert!(code == Some(1) && told.contains("can't read the networks in "), "{told}");
    fs::write(directory.path().join("deny.txt"), "10.0.0.0/8\nexample.com # no\n").expect("writable");
    let (code, told) = check();
    assert!(code == Some(1) && told.contains("deny.txt, line 2: \"example.com\" is not a network"), "{told}");
    fs::write(directory.path().join("deny.txt"), "10.0.0.0/8\n").expect("writable");
    let (code, told) = check();
    assert_eq!(code, Some(0), "{told}");
}
