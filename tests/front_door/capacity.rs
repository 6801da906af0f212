//! What happens when the machine has less than is asked for.

use std::process::{Command, Stdio};

use tokio::task::JoinSet;

use crate::support::gateway::complete;
use crate::support::{Client, Gateway, Origin, one_service};

/// Each request needs a connection to an instance too: clients must not take all that there is.
#[tokio::test]
async fn few_file_descriptors_make_clients_wait_and_fail_nobody() {
    let origin = Origin::text("x").await;
    let directory = tempfile::tempdir().expect("there is a directory for temporary files");
    let configuration = complete(&one_service(&[origin.url()], "retries: { attempts: 0 }"));
    std::fs::write(directory.path().join("gateway.yaml"), configuration).expect("writable");
    let mut command = Command::new("sh");
    let run = format!("ulimit -n 64; exec {} run --drain-timeout 5s", env!("CARGO_BIN_EXE_gatehouse"));
    command.args(["-c", &run]).current_dir(directory.path());
    let mut gateway = Gateway::of(directory, command, Stdio::piped());
    let address = gateway.http();
    let mut clients = JoinSet::new();
    for _ in 0..150 {
        clients.spawn(async move { Client::new(address).get("/").await.status });
    }
    while let Some(status) = clients.join_next().await {
        assert_eq!(status.expect("it was answered"), 200);
    }
    assert_eq!(gateway.metric("gatehouse_breaker_state", &[]).await, 0.0);
    assert!(!gateway.messages().contains("can't accept"), "{}", gateway.messages());
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await.code(), Some(0));
}
