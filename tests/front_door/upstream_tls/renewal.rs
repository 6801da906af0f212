//! Files that change while the gateway serves.

use super::{TRUST, in_front_of, trusting, usual};
use crate::support::tls_origin::{Authority, TlsOrigin, replace, server};
use crate::support::{Client, eventually};

#[tokio::test]
async fn another_trust_is_another_connection_and_a_broken_one_is_none() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let origin = TlsOrigin::text(server(&usual(&old), None, &[]), "well").await;
    let gateway = in_front_of(trusting(&old), &[origin.url()], TRUST);
    let client = Client::new(gateway.http());
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "well");
    }
    assert_eq!(origin.connections(), 1);
    origin.set_config(server(&usual(&new), None, &[]));
    assert_eq!(client.get("/").await.text(), "well", "connections go on with what they began with");
    replace(gateway.path(), "ca.crt", &new.pem);
    gateway.wait_for("reloaded");
    assert_eq!(client.get("/").await.text(), "well");
    assert_eq!(origin.connections(), 2, "the old connection was made with another trust");

    replace(gateway.path(), "ca.crt", "no certificate");
    gateway.wait_for("holds no PEM certificate");
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "well");
    }
    assert_eq!(origin.connections(), 2, "nothing has changed");
}

#[tokio::test]
async fn a_reload_of_other_things_keeps_connections() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::text(server(&usual(&authority), None, &[]), "well").await;
    let gateway = in_front_of(trusting(&authority), &[origin.url()], TRUST);
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.text(), "well");
    let other = crate::support::one_service(&[origin.url()], &format!("{TRUST}, retries: {{ attempts: 1 }}"));
    gateway.reconfigure(&format!("workers: 1\n{other}")).await;
    assert_eq!(client.get("/").await.text(), "well");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_renewed_client_certificate_is_shown_from_then_on() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let origin = TlsOrigin::text(server(&usual(&authority), Some(&clients), &[]), "well").await;
    let directory = trusting(&authority);
    let (old, new) = (clients.issue(&["gateway.internal"]), clients.issue(&["gateway.internal"]));
    old.write(directory.path(), "gateway");
    let tls = "tls: { trust: ca.crt, server_name: users.internal, certificate: gateway.crt, private_key: gateway.key }";
    let gateway = in_front_of(directory, &[origin.url()], tls);
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.text(), "well");
    assert_eq!(origin.last_handshake().client.as_ref(), Some(&old.der));
    new.write(gateway.path(), "gateway");
    gateway.wait_for("reloaded");
    assert_eq!(client.get("/").await.text(), "well");
    let shown = origin.last_handshake();
    assert_eq!(shown.client.as_ref(), Some(&new.der));
    assert!(!shown.resumed, "a session of before would not have shown it");
}

#[tokio::test]
async fn a_service_moves_to_tls_and_back() {
    let authority = Authority::new("ca");
    let secure = TlsOrigin::text(server(&usual(&authority), None, &[]), "secure").await;
    let plain = crate::support::Origin::text("plain").await;
    let gateway = in_front_of(trusting(&authority), &[plain.url()], "");
    let client = Client::new(gateway.http());
    assert_eq!(client.get("/").await.text(), "plain");
    for (url, settings, answer) in [(secure.url(), TRUST, "secure"), (plain.url(), "", "plain")] {
        let next = crate::support::one_service(&[url], settings);
        gateway.reconfigure(&format!("workers: 1\n{next}")).await;
        eventually("the other one answers", || async {
            (client.get("/").await.text() == answer).then_some(())
        })
        .await;
    }
}
