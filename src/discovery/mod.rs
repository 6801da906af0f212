//! Where the instances of a service come from: one file a source.
//!
//! A source only says which targets it wants (`target`); `publisher` resolves their names and hands
//! whole sets to the service. A source that fails keeps its last good set and says so; only an
//! explicit "there is none" empties a set.

mod consul;
mod dns;
mod entry;
mod etcd;
mod file;
mod fixed;
mod publisher;
mod pulse;
pub mod registry;
mod remote;
mod resolver;
mod stamp;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use resolver::{Answer, Answering, Resolve, ResolveError, SrvRecord, SystemResolver};

use crate::config::InstanceSource;
use crate::service::discovered::{Discovered, Publish};
use target::{Host, Wanted};

/// How often a name is asked again at least, unless its source says otherwise.
const REFRESH: Duration = Duration::from_secs(10);

/// What the sources of all services share.
#[derive(Clone)]
pub struct Sources {
    pub resolver: Arc<dyn Resolve>,
    /// The built-in registry, when the configuration has one.
    pub registry: Option<Arc<registry::Store>>,
}

/// A service, as far as finding its instances goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Sought {
    pub source: InstanceSource,
    pub service_name: Arc<str>,
    /// They are spoken to over TLS, and so none that is said to be plain is one of them; or the other way round.
    pub over_tls: bool,
}

/// Keeps the instances of one service as its source says, until dropped.
pub async fn run(sought: Sought, sink: Arc<dyn Publish>, shared: Sources) {
    let Sought { source, service_name, over_tls } = sought;
    let Sources { resolver, registry } = shared;
    let (sender, wanted) = watch::channel(Wanted::default());
    let refresh = match &source {
        InstanceSource::Dns(dns) => dns.refresh,
        _ => REFRESH,
    };
    let published = publisher::publish(wanted, refresh, resolver.clone(), sink, over_tls);
    let followed = async {
        match source {
            InstanceSource::Static(instances) => sender.send_modify(|now| *now = fixed::wanted(&instances)),
            InstanceSource::Dns(dns) if dns.srv => dns::srv(dns, resolver, sender).await,
            InstanceSource::Dns(dns) => sender.send_modify(|now| *now = dns::addresses(&dns)),
            InstanceSource::File(path) => file::follow(path.value, sender).await,
            InstanceSource::Registry => registry::source::follow(registry, &service_name, sender).await,
            InstanceSource::SharedRegistry(source) => {
                registry::shared::follow(source, service_name, sender).await
            }
            InstanceSource::Etcd(etcd) => etcd::follow(etcd, sender).await,
            InstanceSource::Consul(consul) => consul::follow(consul, sender).await,
        }
    };
    tokio::join!(followed, published);
}

/// The instances that are known without waiting for anything, for a service that has none yet:
/// IP literals of the configuration, of a file that can be read now, or of the registry.
///
/// [`run`] publishes the rest. Reads a small file; asks no name.
pub fn initial(sought: &Sought, shared: &Sources) -> Option<Vec<Discovered>> {
    let targets = match &sought.source {
        InstanceSource::Static(instances) => fixed::wanted(instances).targets?.to_vec(),
        InstanceSource::File(path) => file::read(path).ok()?,
        InstanceSource::Registry => registry::source::now(shared.registry.as_ref()?, &sought.service_name),
        InstanceSource::Dns(_)
        | InstanceSource::SharedRegistry(_)
        | InstanceSource::Etcd(_)
        | InstanceSource::Consul(_) => return None,
    };
    let targets = Wanted::now(targets).agreeing(sought.over_tls).targets?;
    let named = targets.iter().any(|target| matches!(target.host, Host::Name(_)));
    let set = publisher::literals(&targets);
    // Nothing but names: nothing is known yet, and that is not the same as "none".
    (!named || !set.is_empty()).then_some(set)
}
