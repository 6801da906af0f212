//! A real etcd, of one member.

use std::net::SocketAddr;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::Client;
use super::companion::{Companion, local, port};

pub struct Etcd {
    pub address: SocketAddr,
    pub process: Companion,
    directory: tempfile::TempDir,
    client: Client,
}

impl Etcd {
    pub async fn start() -> Etcd {
        let directory = tempfile::tempdir().expect("there is a directory for temporary files");
        let (address, peer) = (local(port()), local(port()));
        let (url, peer) = (format!("http://{address}"), format!("http://{peer}"));
        let mut command = Command::new("etcd");
        command.args(["--name", "test", "--data-dir"]).arg(directory.path().join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("test={peer}"), "--logger", "zap"]);
        let process = Companion::start(command, address, ("/v3/kv/range", r#"{"key":"AA=="}"#)).await;
        Etcd { address, process, directory, client: Client::new(address) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forgets everything. It must not run.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.directory.path().join("data")).expect("it was there");
    }

    pub async fn ask(&self, path: &str, question: Value) -> Value {
        let reply = self.client.post(path, question.to_string()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    pub async fn put(&self, key: &str, value: &str) {
        self.ask("/v3/kv/put", put(key, value)).await;
    }

    /// The key lives as long as its lease, which nobody renews.
    pub async fn put_for_seconds(&self, key: &str, value: &str, seconds: u32) {
        let lease = self.ask("/v3/lease/grant", json!({ "TTL": seconds.to_string() })).await;
        let mut question = put(key, value);
        question["lease"] = lease["ID"].clone();
        self.ask("/v3/kv/put", question).await;
    }

    pub async fn delete(&self, key: &str) {
        self.ask("/v3/kv/deleterange", json!({ "key": BASE64.encode(key) })).await;
    }

    /// Many at once; etcd takes 128 in one transaction.
    pub async fn put_all(&self, entries: impl Iterator<Item = (String, String)>) {
        let entries: Vec<Value> =
            entries.map(|(key, value)| json!({ "request_put": put(&key, &value) })).collect();
        for some in entries.chunks(128) {
            self.ask("/v3/kv/txn", json!({ "success": some })).await;
        }
    }

    /// Forgets what was before now.
    pub async fn compact(&self) {
        let header = self.ask("/v3/kv/range", json!({ "key": "AA==" })).await;
        let revision = header["header"]["revision"].clone();
        self.ask("/v3/kv/compaction", json!({ "revision": revision, "physical": true })).await;
    }

    /// How many watches were ever opened, and how many ranges were read.
    pub async fn watches_and_ranges(&self) -> (u64, u64) {
        let text = self.client.get("/metrics").await.text();
        let started = |method: &str| {
            let method = format!("grpc_method=\"{method}\"");
            let line = text
                .lines()
                .find(|line| line.starts_with("grpc_server_started_total") && line.contains(&method));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
        };
        (started("Watch"), started("Range"))
    }
}

fn put(key: &str, value: &str) -> Value {
    json!({ "key": BASE64.encode(key), "value": BASE64.encode(value) })
}
