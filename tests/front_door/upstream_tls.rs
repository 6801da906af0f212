//! Instances over TLS: whom the gateway trusts, what it shows, and what becomes of requests when it comes to no agreement.

mod bodies;
mod failures;
mod health;
mod renewal;
mod sources;

use crate::support::tls_origin::{Authority, Issued, TlsOrigin, replace, server};
use crate::support::{Client, Gateway, Session};

/// A directory with the certificate of the authority in `ca.crt`.
fn trusting(authority: &Authority) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    replace(directory.path(), "ca.crt", &authority.pem);
    directory
}

/// A gateway of one worker in front of `users`, with these settings of it.
fn in_front_of(directory: tempfile::TempDir, instances: &[String], settings: &str) -> Gateway {
    let configuration = format!("workers: 1\n{}", crate::support::one_service(instances, settings));
    Gateway::start_in(directory, &configuration, &[])
}

/// A certificate for the name that `TRUST` wants.
fn usual(authority: &Authority) -> Issued {
    authority.issue(&["users.internal"])
}

const TRUST: &str = "tls: { trust: ca.crt, server_name: users.internal }";

#[tokio::test]
async fn requests_go_over_one_connection_that_is_kept() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::text(server(&usual(&authority), None, &["http/1.1"]), "well").await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
    let mut session = Session::open(gateway.http()).await;
    for _ in 0..20 {
        let reply = session.get("/users/1").await;
        assert_eq!((reply.status, &reply.text()[..]), (200, "well"));
    }
    assert_eq!(origin.connections(), 1);
    let handshake = origin.last_handshake();
    assert_eq!(handshake.server_name.as_deref(), Some("users.internal"));
    assert_eq!(handshake.protocol.as_deref(), Some("http/1.1"));
    assert!(handshake.client.is_none());
    let seen = origin.seen();
    assert_eq!((seen.len(), &seen[0].target[..]), (20, "/users/1"));
    assert_eq!(gateway.service("users").await["tls"], true);
}

#[tokio::test]
async fn without_a_name_the_host_of_the_instance_counts() {
    let authority = Authority::new("ca");
    let config = server(&authority.issue(&["127.0.0.1"]), None, &[]);
    let origin = TlsOrigin::text(config, "well").await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], "tls: { trust: ca.crt }");
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
    assert_eq!(origin.last_handshake().server_name, None, "an address is no server name (RFC 6066)");
}

#[tokio::test]
async fn an_instance_is_shown_who_asks() {
    let authority = Authority::new("ca");
    let clients = Authority::new("clients");
    let origin = TlsOrigin::text(server(&usual(&authority), Some(&clients), &[]), "well").await;
    let directory = trusting(&authority);
    let own = clients.issue(&["gateway.internal"]);
    own.write(directory.path(), "gateway");
    let settings = "tls: { trust: ca.crt, server_name: users.internal, certificate: gateway.crt, private_key: gateway.key }";
    let gateway = in_front_of(directory, &[origin.url()], settings);
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
    assert_eq!(origin.last_handshake().client, Some(own.der.clone()));
}

#[tokio::test]
async fn sessions_are_resumed_on_new_connections() {
    let authority = Authority::new("ca");
    let closing = |_: &crate::support::origin::Seen| {
        let head = http::Response::builder().header("connection", "close");
        head.body("well".into()).expect("constants")
    };
    let origin = TlsOrigin::answering(server(&usual(&authority), None, &[]), closing).await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
    for _ in 0..4 {
        assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
    }
    let resumed: Vec<bool> = origin.handshakes().iter().map(|handshake| handshake.resumed).collect();
    assert_eq!(resumed, [false, true, true, true]);
}
