//! The heartbeat clients of docs/registry.md, run as they stand there: they register, stay, come back after a loss
//! of the registry, and leave.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::documents::blocks;
use crate::support::companion::{local, port};
use crate::support::{Client, Gateway, Origin, PATIENCE, eventually};

const TTL: Duration = Duration::from_secs(6);

/// Ended with the test, however that ends.
struct Script(Child);

impl Script {
    fn start(interpreter: &str, text: &str, environment: &[(&str, String)]) -> Script {
        let mut command = Command::new(interpreter);
        command.arg("-c").arg(text).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Script(
            command.spawn().unwrap_or_else(|error| panic!("{interpreter}: {error}: ./test.sh installs it")),
        )
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it is our child").is_none()
    }

    fn ask_to_end(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(sent.expect("kill is everywhere").success());
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn is_registered(registry: &Client) -> bool {
    let reply = registry.get("/registry/services/order-service").await;
    reply.status == 200 && reply.json()["instances"].as_array().is_some_and(|list| !list.is_empty())
}

async fn lives_as_documented(kind: &str, interpreter: &str) {
    let page = blocks(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/registry.md"));
    let blocks: Vec<_> = page.into_iter().filter(|block| block.kind == kind).collect();
    let [block] = &blocks[..] else { panic!("one client in {kind}, not {}", blocks.len()) };
    let origin = Origin::text("found").await;
    let text = block.text.replace("8002", &origin.address.port().to_string());
    assert_ne!(text, block.text, "it names its port");

    let address = local(port());
    let configuration = format!(
        "registry: {{ bind: \"{address}\", heartbeat_ttl: {}s, token: let-me-in-here }}\n\
         services: {{ order-service: {{ discovery: {{ registry: {{}} }} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: order-service }} }}]\n",
        TTL.as_secs()
    );
    let mut gateway = Gateway::start(&configuration);
    let registry = Client::new(address).bearer("let-me-in-here");
    let environment = [
        ("REGISTRY", format!("http://{address}")),
        ("TOKEN", "let-me-in-here".to_owned()),
        ("INTERVAL", "1".to_owned()),
    ];
    let mut script = Script::start(interpreter, &text, &environment);
    let client = Client::new(gateway.http());
    eventually("it registers", || async { (client.get("/").await.text() == "found").then_some(()) }).await;
    let began = Instant::now();
    while began.elapsed() < TTL + Duration::from_secs(2) {
        assert!(is_registered(&registry).await, "heartbeats keep it in");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    gateway.signal("KILL");
    gateway.ended().await;
    drop(gateway);
    let gateway = Gateway::start(&configuration);
    let client = Client::new(gateway.http());
    eventually("it comes back", || async { (client.get("/").await.text() == "found").then_some(()) }).await;

    let began = Instant::now();
    script.ask_to_end();
    while script.is_running() {
        assert!(began.elapsed() < PATIENCE, "it does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!is_registered(&registry).await, "it says that it leaves");
    assert!(began.elapsed() < TTL - Duration::from_secs(2), "and is not only forgotten");
}

#[tokio::test]
async fn the_client_in_bash_does_as_documented() {
    lives_as_documented("bash", "bash").await;
}

#[tokio::test]
async fn the_client_in_python_does_as_documented() {
    lives_as_documented("python", "python3").await;
}
