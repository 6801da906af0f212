//! Listeners come, go, change and move while connections live on.

use super::*;

fn listening(listeners: &[(&str, &str)], rest: &str) -> String {
    let listeners = listeners.iter().map(|(name, bind)| format!("{{ name: {name}, bind: '{bind}' }}"));
    format!("listeners: [{}]\n{rest}", listeners.collect::<Vec<_>>().join(", "))
}

async fn is_refused(address: SocketAddr) {
    eventually("the address is left", || async { Session::try_open(address).await.is_err().then_some(()) })
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
