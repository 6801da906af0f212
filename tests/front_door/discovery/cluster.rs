//! An etcd of three members, of which some die, hang and come back.

use crate::support::source::{answers, until_stale, until_well};
use crate::support::{Client, Etcd, Gateway, Origin};

async fn found() -> ([Etcd; 3], Origin, Gateway, Client) {
    let etcd = Etcd::cluster().await;
    let origin = Origin::text("a").await;
    etcd[0].put("/users/a", &origin.url()).await;
    let endpoints = etcd.each_ref().map(|member| format!("\"{}\"", member.url())).join(", ");
    let gateway = Gateway::start(&format!(
        "services: {{ users: {{ discovery: {{ etcd: {{ endpoints: [{endpoints}], prefix: /users/ }} }} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    ));
    let client = Client::new(gateway.http());
    answers(&client, "a").await;
    (etcd, origin, gateway, client)
}

#[tokio::test]
async fn a_member_that_dies_is_replaced_by_another_without_a_word() {
    let ([mut first, second, third], _origin, gateway, client) = found().await;
    // The first is the one that is followed.
    first.process.kill();
    let moved = Origin::text("moved").await;
    // Whoever led, another has to by now.
    let put = async |member: &Etcd, origin: &Origin| member.put_soon("/users/a", &origin.url()).await;
    put(&third, &moved).await;
    answers(&client, "moved").await;
    first.process.restart().await;
    second.process.signal("STOP");
    let again = Origin::text("again").await;
    put(&first, &again).await;
    // If that one was followed, it takes ten seconds to notice.
    answers(&client, "again").await;
    assert_eq!(gateway.service("users").await["source"]["state"], "ok");
    second.process.signal("CONT");
    assert!(!gateway.messages().contains("can't be asked for"), "{}", gateway.messages());
}

/// The last one is there and answers, but may not speak for the others.
#[tokio::test]
async fn a_member_that_has_lost_the_others_is_no_source() {
    let ([mut first, mut second, third], _origin, gateway, client) = found().await;
    second.process.kill();
    first.process.kill();
    until_stale(&gateway, &client, "").await;
    // Two are started at once, since neither answers before it has found another.
    tokio::join!(first.process.restart(), second.process.restart());
    until_well(&gateway, &client).await;
    let moved = Origin::text("moved").await;
    third.put_soon("/users/a", &moved.url()).await;
    answers(&client, "moved").await;
}
