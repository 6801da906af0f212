//! What the tests have in common: a gateway process, origins, clients, and waiting for a condition.

pub mod client;
pub mod companion;
pub mod consul;
pub mod etcd;
pub mod frames;
pub mod gateway;
pub mod h2;
pub mod h2_origin;
pub mod origin;
pub mod prompt;
pub mod raw;
pub mod recorder;
pub mod relay;
pub mod session;
pub mod source;
pub mod tls_origin;
pub mod tokens;
pub mod told;

use std::future::Future;
use std::time::{Duration, Instant};

pub use client::{Client, Reply};
pub use consul::Consul;
pub use etcd::Etcd;
pub use gateway::Gateway;
pub use origin::Origin;
pub use recorder::Recorder;
pub use session::Session;

/// Longer than anything that should happen takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A configuration with one service, `users`, for all paths. `instances` are URLs; `settings` are further keys of
/// the service, in YAML's flow style.
pub fn one_service(instances: &[String], settings: &str) -> String {
    let instances = instances.iter().map(|url| format!("\"{url}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "services: {{ users: {{ instances: [{instances}], {settings} }} }}\n\
         routes: [{{ name: all, match: {{ prefix: / }}, forward: {{ service: users }} }}]\n"
    )
}

/// Waits until `condition` gives something, or fails the test with `what`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
