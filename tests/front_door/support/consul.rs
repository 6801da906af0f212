//! A real Consul: one server, which is its own agent.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::companion::{Companion, local, port};
use super::{Client, Reply};

pub struct Consul {
    pub address: SocketAddr,
    pub process: Companion,
    directory: tempfile::TempDir,
    client: Client,
}

/// What may do everything, where access is controlled.
pub const MASTER_TOKEN: &str = "3f0c1b1e-5ca1-ab1e-0000-c0ffee000001";

/// A port that one of a single datacenter has no use for.
const ALONE: &str = "serf_wan = -1";

impl Consul {
    /// `None` where `./test.sh` has said that there is no Consul to be had.
    pub async fn start() -> Option<Consul> {
        Self::start_with("").await
    }

    /// As `start`, and without a token nothing can be read.
    pub async fn start_guarded() -> Option<Consul> {
        let tokens = format!("tokens {{ master = \"{MASTER_TOKEN}\" agent = \"{MASTER_TOKEN}\" }}");
        let mut consul =
            Self::start_with(&format!("acl {{ enabled = true default_policy = \"deny\" {tokens} }}")).await?;
        consul.client = consul.client.header("x-consul-token", MASTER_TOKEN);
        Some(consul)
    }

    /// As `start`, and at another port over TLS with this certificate: its address there.
    pub async fn start_secure(certificate: &Path, key: &Path) -> Option<(Consul, SocketAddr)> {
        let address = local(port());
        let (certificate, key, port) = (certificate.display(), key.display(), address.port());
        let files = format!("cert_file = \"{certificate}\" key_file = \"{key}\"");
        Self::start_on(&format!("{ALONE} dns = -1 https = {port}"), &files)
            .await
            .map(|consul| (consul, address))
    }

    /// As `start`, and as a name server: its address as that.
    pub async fn start_name_server() -> Option<(Consul, SocketAddr)> {
        let address = local(port());
        // Otherwise three records of many over UDP look like all there are.
        let settings = "dns_config { enable_truncate = true }";
        let consul = Self::start_on(&format!("{ALONE} dns = {}", address.port()), settings).await?;
        Some((consul, address))
    }

    /// The servers of `dc1` and `dc2`, which know each other.
    pub async fn start_two() -> Option<[Consul; 2]> {
        let wan = [port(), port()];
        let joins = format!("retry_join_wan = [\"127.0.0.1:{}\"] retry_interval_wan = \"1s\"", wan[0]);
        let first = Self::start_on(&format!("dns = -1 serf_wan = {}", wan[0]), "").await?;
        let settings = format!("datacenter = \"dc2\" {joins}");
        let second = Self::start_on(&format!("dns = -1 serf_wan = {}", wan[1]), &settings).await?;
        Some([first, second])
    }

    async fn start_with(settings: &str) -> Option<Consul> {
        Self::start_on(&format!("{ALONE} dns = -1"), settings).await
    }

    async fn start_on(more_ports: &str, settings: &str) -> Option<Consul> {
        if std::env::var_os("GATEHOUSE_WITHOUT_CONSUL").is_some() {
            eprintln!("!!! THERE IS NO CONSUL: THIS TEST SAYS NOTHING !!!");
            return None;
        }
        let directory = tempfile::tempdir().expect("there is a directory for temporary files");
        let address = local(port());
        let ports = format!(
            "ports {{ http = {} server = {} serf_lan = {} grpc = -1 {more_ports} }}",
            address.port(),
            port(),
            port()
        );
        let mut command = Command::new(program());
        command.args(["agent", "-server", "-bootstrap-expect=1", "-bind=127.0.0.1", "-client=127.0.0.1"]);
        command.args(["-node=test", "-disable-host-node-id", "-log-level=warn", "-data-dir"]);
        command.arg(directory.path().join("data"));
        command.args(["-hcl", &format!("{ports} performance {{ raft_multiplier = 1 }} {settings}")]);
        // It answers with an error for as long as it has no leader.
        let process = Companion::start(command, address, ("/v1/catalog/nodes", "")).await;
        Some(Consul { address, process, directory, client: Client::new(address) })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forgets everything. It must not run.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.directory.path().join("data")).expect("it was there");
    }

    /// All that it knows.
    pub async fn snapshot(&self) -> Bytes {
        let reply = self.client.get("/v1/snapshot").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.body
    }

    /// Sets it back to what it knew then.
    pub async fn restore(&self, snapshot: Bytes) {
        let reply = self.client.send(Method::PUT, "/v1/snapshot", snapshot).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// The index of its state, as a question for the service is answered.
    pub async fn index(&self) -> u64 {
        let reply = self.client.get("/v1/health/service/users").await;
        reply.header("x-consul-index").and_then(|index| index.parse().ok()).expect("a number")
    }

    pub async fn put(&self, path: &str, document: Value) -> Reply {
        let reply = self.client.send(Method::PUT, path, Bytes::from(document.to_string())).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply
    }

    /// An instance of the service `users`, on a node of its own.
    pub async fn register(&self, id: &str, address: SocketAddr) {
        self.register_as(id, address, json!({ "Address": address.ip() })).await;
    }

    pub async fn register_as(&self, id: &str, address: SocketAddr, more: Value) {
        let mut service = json!({ "ID": id, "Service": "users", "Port": address.port() });
        for (name, value) in more.as_object().expect("an object") {
            service[name] = value.clone();
        }
        let node = json!({ "Node": id, "Address": address.ip(), "Service": service });
        self.put("/v1/catalog/register", node).await;
    }

    pub async fn deregister(&self, id: &str) {
        self.put("/v1/catalog/deregister", json!({ "Node": id })).await;
    }

    /// Sets the state of a check of an instance.
    pub async fn check(&self, id: &str, address: SocketAddr, status: &str) {
        let check = json!({ "Node": id, "ServiceID": id, "CheckID": id, "Name": "alive", "Status": status });
        let node = json!({ "Node": id, "Address": address.ip(), "Check": check });
        self.put("/v1/catalog/register", node).await;
    }

    /// Many instances on one node, 64 in one transaction.
    pub async fn register_all(&self, addresses: impl Iterator<Item = SocketAddr>) {
        self.put("/v1/catalog/register", json!({ "Node": "many", "Address": "127.0.0.1" })).await;
        let all: Vec<Value> = addresses
            .map(|address| {
                let service = json!({ "ID": address.to_string(), "Service": "users",
                                      "Address": address.ip(), "Port": address.port() });
                json!({ "Service": { "Verb": "set", "Node": "many", "Service": service } })
            })
            .collect();
        for some in all.chunks(64) {
            self.put("/v1/txn", some.into()).await;
        }
    }
}

/// Where `GATEHOUSE_CONSUL` says, where `./test.sh` has put it, or where it is installed.
fn program() -> PathBuf {
    let told = std::env::var_os("GATEHOUSE_CONSUL").filter(|told| !told.is_empty()).map(PathBuf::from);
    let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
    // Whatever has become of the sources since: target/debug/deps/ is where this program is.
    let built = std::env::current_exe().ok().and_then(|this| this.ancestors().nth(3).map(PathBuf::from));
    let targets = [Some(sources), built].into_iter().flatten();
    let fetched = targets.map(|target| target.join("consul/usr/bin/consul"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|directory| directory.join("consul"));
    told.or_else(|| fetched.chain(installed).find(|program| program.is_file())).unwrap_or_else(|| {
        panic!(
            "there is no Consul: run `tests/consul.sh target/consul` once, which fetches it (./test.sh does so by \
             itself), or set GATEHOUSE_CONSUL to where it is"
        )
    })
}
