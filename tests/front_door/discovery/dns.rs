//! Consul as a name server: what a real one answers, and the set that comes of it. Not through the door, since
//! `resolv.conf` can't name a port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatehouse::config::{At, DnsSource, InstanceSource, Span};
use gatehouse::discovery::{self, Sought, Sources, SystemResolver};
use gatehouse::service::{Instances, SourceStatus};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use serde_json::json;
use tokio::task::AbortHandle;

use crate::support::{Consul, eventually};

struct Following {
    instances: Arc<Instances>,
    task: AbortHandle,
}

impl Following {
    fn of(name: &str, srv: bool, name_server: SocketAddr) -> Following {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = name_server.port();
            connection
        });
        let server = NameServerConfig::new(name_server.ip(), true, connections.into());
        let config = ResolverConfig::from_name_servers(vec![server]);
        let resolver = Arc::new(SystemResolver::with_config(config, ResolverOpts::default()));
        let source = InstanceSource::Dns(DnsSource {
            name: At { value: name.to_owned(), span: Span::default() },
            port: (!srv).then_some(8002),
            refresh: Duration::from_secs(60),
            srv,
        });
        let instances = Instances::new(1);
        let sources = Sources { resolver, registry: None };
        let sought = Sought { source, service_name: "users".into(), over_tls: false };
        let task = tokio::spawn(discovery::run(sought, instances.clone(), sources));
        Following { instances, task: task.abort_handle() }
    }

    fn set(&self) -> Vec<(SocketAddr, u32)> {
        let set = self.instances.current();
        let mut all: Vec<_> = set.instances().map(|one| (one.address, one.weight())).collect();
        all.sort_unstable();
        all
    }

    /// It is this set, and nothing is wrong.
    async fn until_set(&self, expected: &[(SocketAddr, u32)]) {
        let is_it = || self.set() == expected && self.instances.source().failing_since.is_none();
        eventually("this set", || async { is_it().then_some(()) }).await;
    }

    async fn until_failing(&self, why: &str) {
        let says = |source: SourceStatus| source.failure.is_some_and(|failure| failure.contains(why));
        eventually(why, || async { says(self.instances.source()).then_some(()) }).await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn address(last: u8, port: u16) -> SocketAddr {
    ([127, 0, 7, last], port).into()
}

/// Its records may be kept for no time at all: it is asked once a second.
#[tokio::test]
async fn addresses_follow_consul_as_a_name_server_and_outlive_it() {
    let Some((mut consul, name_server)) = Consul::start_name_server().await else { return };
    consul.register("a", address(1, 80)).await;
    let following = Following::of("users.service.consul", false, name_server);
    following.until_set(&[(address(1, 8002), 1)]).await;
    // More than an answer over UDP holds.
    for last in 2..=60 {
        consul.register(&format!("a{last}"), address(last, 80)).await;
    }
    let all: Vec<_> = (1..=60).map(|last| (address(last, 8002), 1)).collect();
    following.until_set(&all).await;
    consul.process.kill();
    following.until_failing("users.service.consul: ").await;
    assert_eq!(following.set(), all);
    consul.process.restart().await;
    following.until_set(&all).await;
    consul.process.signal("STOP");
    following.until_failing("no answer").await;
    consul.process.signal("CONT");
    consul.deregister("a").await;
    following.until_set(&all[1..]).await;
}

#[tokio::test]
async fn srv_records_are_those_of_consul_and_none_at_all_is_no_such_name() {
    let Some((consul, name_server)) = Consul::start_name_server().await else { return };
    let weights = json!({ "Address": "127.0.7.1", "Weights": { "Passing": 7, "Warning": 1 } });
    consul.register_as("a", address(1, 8001), weights).await;
    consul.register("b", address(2, 8002)).await;
    let following = Following::of("_users._tcp.service.consul", true, name_server);
    let both = [(address(1, 8001), 7), (address(2, 8002), 1)];
    following.until_set(&both).await;
    consul.check("a", address(1, 8001), "critical").await;
    following.until_set(&both[1..]).await;
    consul.check("b", address(2, 8002), "critical").await;
    following.until_failing("no such name").await;
    assert_eq!(following.set(), both[1..], "it doesn't say that there are none");
    consul.check("a", address(1, 8001), "passing").await;
    following.until_set(&both[..1]).await;
}
