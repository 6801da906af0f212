//! A real etcd, mostly of one member.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::companion::{Companion, local, port};
use super::{Client, eventually};

/// One that is yet to be started.
struct Member {
    name: &'static str,
    address: SocketAddr,
    peer: SocketAddr,
}

impl Member {
    fn new(name: &'static str) -> Member {
        Member { name, address: local(port()), peer: local(port()) }
    }

    fn place(&self) -> String {
        format!("{}=http://{}", self.name, self.peer)
    }
}

pub struct Etcd {
    pub address: SocketAddr,
    pub process: Companion,
    directory: tempfile::TempDir,
    client: Client,
}

impl Etcd {
    pub async fn start() -> Etcd {
        Self::start_as(&Member::new("test"), "", &[]).await
    }

    /// As `start`, and at another port over TLS with this certificate: its address there.
    pub async fn start_secure(certificate: &Path, key: &Path) -> (Etcd, SocketAddr) {
        let address = local(port());
        let files = [OsStr::new("--cert-file"), certificate.as_ref(), OsStr::new("--key-file"), key.as_ref()];
        (Self::start_as(&Member::new("test"), &format!(",https://{address}"), &files).await, address)
    }

    /// Three members of one cluster.
    pub async fn cluster() -> [Etcd; 3] {
        let members = ["one", "two", "three"].map(Member::new);
        let all = members.each_ref().map(Member::place).join(",");
        let arguments = [OsStr::new("--initial-cluster"), OsStr::new(&all)];
        let [one, two, three] = members.each_ref().map(|member| Self::start_as(member, "", &arguments));
        // None of them answers before most of them are there.
        tokio::join!(one, two, three).into()
    }

    async fn start_as(member: &Member, more_urls: &str, arguments: &[&OsStr]) -> Etcd {
        let directory = tempfile::tempdir().expect("there is a directory for temporary files");
        let (url, peer) = (format!("http://{}", member.address), format!("http://{}", member.peer));
        let mut command = Command::new("etcd");
        command.args(["--name", member.name, "--data-dir"]).arg(directory.path().join("data"));
        command.args(["--listen-client-urls", &format!("{url}{more_urls}"), "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &member.place(), "--logger", "zap"]).args(arguments);
        let process = Companion::start(command, member.address, ("/v3/kv/range", r#"{"key":"AA=="}"#)).await;
        Etcd { address: member.address, process, directory, client: Client::new(member.address) }
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

    /// As `put`, in a cluster that may have to agree first on who leads it.
    pub async fn put_soon(&self, key: &str, value: &str) {
        let question = put(key, value).to_string();
        eventually("the cluster has a leader", || async {
            let reply = self.client.post("/v3/kv/put", question.clone()).await;
            (reply.status == 200).then_some(())
        })
        .await;
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
