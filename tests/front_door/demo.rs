//! What a newcomer does with `gatehouse demo`, on ports that the kernel chooses.

use std::path::Path;

use crate::support::{Client, Gateway, eventually};

/// The demo with the package's own configuration, but for the ports.
fn demo() -> Gateway {
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir(directory.path().join("certs")).expect("writable");
    for file in ["localhost.crt", "localhost.key", "jwt.pub"] {
        let to = directory.path().join("certs").join(file);
        std::fs::copy(package.join("certs").join(file), to).expect("it is in the package");
    }
    let mut text = std::fs::read_to_string(package.join("gateway.yaml")).expect("it is in the package");
    for port in ["8000", "8443", "9000", "8500"] {
        text = text.replace(&format!("bind: 127.0.0.1:{port}"), "bind: 127.0.0.1:0");
    }
    assert_eq!(text.matches("bind: 127.0.0.1:0").count(), 4);
    std::fs::write(directory.path().join("copy.yaml"), text).expect("writable");
    Gateway::command(directory, &["demo", "-c", "copy.yaml"], &[])
}

/// The path of the URL in the first line of the demo's text that has `mark`.
fn path_of(line: &str) -> String {
    let url = line.split("http://").nth(1).expect("the line has a URL");
    url[url.find('/').expect("it has a path")..].trim().to_owned()
}

#[tokio::test]
async fn what_it_prints_works() {
    let gateway = demo();
    gateway.wait_for_output("Ctrl-C ends it");
    let token =
        gateway.wait_for_output("export TOKEN=").trim().trim_start_matches("export TOKEN=").to_owned();
    let (knows, nobody) = (Client::new(gateway.http()).bearer(&token), Client::new(gateway.http()));

    let both = path_of(&gateway.wait_for_output("curl -i http"));
    let document = knows.get(&both).await;
    assert_eq!(document.status, 200, "{}", document.text());
    assert_eq!(document.json()["user"]["id"], 1);
    assert!(document.json()["orders"].as_array().is_some_and(|orders| !orders.is_empty()));
    assert_eq!(nobody.get(&both).await.status, 401);
    assert_eq!(nobody.get("/gateway/api/users/1").await.status, 200);
    assert_eq!(nobody.post("/gateway/api/users", "{\"name\":\"Eve\"}").await.status, 401);
    assert_eq!(knows.post("/gateway/api/users", "{\"name\":\"Eve\"}").await.status, 201);

    let stop = gateway.wait_for_output("/stop/user-service-1");
    let board = stop.split("http://").nth(1).and_then(|url| url.split('/').next()).expect("an address");
    let board = Client::new(board.parse().expect("an address"));
    assert_eq!(board.post("/stop/user-service-1", "").await.status, 200);
    for turn in 0..200 {
        let reply = knows.get(&both).await;
        assert_eq!(reply.status, 200, "request {turn}: {}", reply.text());
    }
    assert_eq!(board.post("/start/user-service-1", "").await.status, 200);
    eventually("both are used again", || async {
        let reply = nobody.get("/gateway/api/users/1").await;
        (reply.header("x-served-by") == Some("user-service-1")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_edit_is_live_and_a_slip_is_shown() {
    let mut gateway = demo();
    gateway.wait_for_output("Ctrl-C ends it");
    let file = gateway.file("copy.yaml");
    assert!(gateway.wait_for_output("while this runs").contains("copy.yaml"), "it names the file to edit");
    let text = std::fs::read_to_string(&file).expect("it was written");
    std::fs::write(&file, text.replace("json: { status: ok }", "json: { status: edited }"))
        .expect("writable");
    let client = Client::new(gateway.http());
    eventually("the edit is live", || async {
        (client.get("/ping").await.json()["status"] == "edited").then_some(())
    })
    .await;
    std::fs::write(&file, text.replace("strip_prefix:", "strip_prefx:")).expect("writable");
    gateway.wait_for("did you mean \"strip_prefix\"?");
    assert_eq!(client.get("/ping").await.json()["status"], "edited");
    gateway.signal("INT");
    assert_eq!(gateway.ended().await.code(), Some(0));
}
