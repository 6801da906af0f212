//! How a service comes to be spoken to over TLS: URLs, the block, discovery; and what the system trusts.

use super::{TRUST, in_front_of, trusting, usual};
use crate::support::tls_origin::{Authority, TlsOrigin, replace, server};
use crate::support::{Client, Gateway, eventually, gateway::complete, one_service};

fn discovered(settings: &str) -> String {
    format!(
        "services: {{ users: {{ discovery: {{ file: {{ path: users.yaml }} }}, {settings} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    )
}

#[tokio::test]
async fn the_block_makes_discovered_instances_secure() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::text(server(&usual(&authority), None, &[]), "well").await;
    let directory = trusting(&authority);
    replace(directory.path(), "users.yaml", &format!("- {}\n- http://127.0.0.1:9\n", origin.url()));
    let gateway = Gateway::start_in(directory, &discovered(TRUST), &[]);
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
    // What is said to be plain is no instance of it.
    let wrong = "127.0.0.1:9 is left out: it is http, and the service has `tls`";
    gateway.wait_for(wrong);
    let service = gateway.service("users").await;
    assert_eq!(service["instances"].as_array().map(Vec::len), Some(1));
    assert_eq!(service["source"]["state"], "failing");
    replace(gateway.path(), "users.yaml", &format!("- {}\n", origin.url()));
    eventually("nothing is wrong any more", || async {
        (gateway.service("users").await["source"]["state"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_discovered_instance_is_not_secure_by_itself() {
    let authority = Authority::new("ca");
    let plain = crate::support::Origin::text("plain").await;
    let directory = trusting(&authority);
    replace(directory.path(), "users.yaml", &format!("- https://127.0.0.1:9\n- {}\n", plain.url()));
    let gateway = Gateway::start_in(directory, &discovered("retries: { attempts: 0 }"), &[]);
    gateway.wait_for("127.0.0.1:9 is left out: it is https, and the service has no `tls`");
    for _ in 0..4 {
        assert_eq!(Client::new(gateway.http()).get("/").await.text(), "plain");
    }
}

#[tokio::test]
async fn without_trust_it_is_what_the_system_trusts() {
    let authority = Authority::new("ca");
    let origin = TlsOrigin::text(server(&authority.issue(&["127.0.0.1"]), None, &[]), "well").await;
    let directory = trusting(&authority);
    let roots = directory.path().join("ca.crt");
    let environment = [("SSL_CERT_FILE", roots.to_str().expect("ASCII")), ("SSL_CERT_DIR", "")];
    // A URL is enough.
    let gateway = Gateway::spawn(directory, &one_service(&[origin.url()], ""), &[], &environment);
    gateway.wait_for("serving ");
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
}

#[tokio::test]
async fn a_system_that_trusts_nobody_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    replace(directory.path(), "none.crt", "");
    let roots = directory.path().join("none.crt");
    let environment = [("SSL_CERT_FILE", roots.to_str().expect("ASCII")), ("SSL_CERT_DIR", "")];
    let configuration = one_service(&["https://127.0.0.1:9".to_owned()], "");
    let mut gateway = Gateway::spawn(directory, &configuration, &[], &environment);
    gateway.wait_for("this system trusts no certificates");
    gateway.wait_for("name a file of them with `trust`");
    assert_eq!(gateway.wait_for_end().code(), Some(1));
}

#[tokio::test]
async fn whoever_answers_is_trusted_only_when_asked_for_and_then_warned_of() {
    let stranger = Authority::new("stranger");
    let origin = TlsOrigin::text(server(&stranger.issue(&["elsewhere"]), None, &[]), "well").await;
    let directory = tempfile::tempdir().expect("a directory");
    let gateway = in_front_of(directory, &[origin.url()], "tls: { verify: false }");
    gateway.wait_for("the certificates of instances are not checked");
    assert_eq!(Client::new(gateway.http()).get("/").await.text(), "well");
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_told_with_its_place() {
    let authority = Authority::new("ca");
    let client = authority.issue(&["gateway.internal"]);
    for (tls, expected) in [
        ("trust: missing.crt", "can't read the certificate"),
        ("trust: gateway.key", "holds no PEM certificate"),
        ("trust: broken.crt", "holds a certificate that can't be used"),
        ("certificate: gateway.crt, private_key: gateway.crt", "holds no unencrypted PEM private key"),
        (
            "certificate: ca.crt, private_key: gateway.key",
            "the private key does not belong to the certificate",
        ),
    ] {
        let directory = trusting(&authority);
        client.write(directory.path(), "gateway");
        replace(
            directory.path(),
            "broken.crt",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        let service =
            one_service(&["https://127.0.0.1:9".into()], &format!("tls: {{ verify: true, {tls} }}"));
        std::fs::write(directory.path().join("gateway.yaml"), complete(&service)).expect("writable");
        let mut checked = Gateway::command(directory, &["check"], &[]);
        assert_eq!(checked.wait_for_end().code(), Some(1), "{tls}");
        checked.wait_for(expected);
        checked.wait_for("gateway.yaml:");
    }
}
