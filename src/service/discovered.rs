//! Where discovery meets the request path: what a source found, and where it hands that over.
//!
//! The types live on this side because a service may not import discovery. Sets are handed over
//! whole: an instance that is not in the newest set is gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The largest weight an instance can have; the range of a DNS SRV record's (RFC 2782).
pub const MAX_WEIGHT: u32 = 65_535;

/// The most instances that one set can hold.
pub const MAX_INSTANCES: usize = 10_000;

/// The last of the priorities. The first is 0.
pub const MAX_PRIORITY: u8 = 9;

/// One instance as its source describes it. Within a set every address occurs once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    pub address: SocketAddr,
    /// 1 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// What `host: instance` sends: `users.internal:8001`, as the source wrote it.
    pub authority: Arc<str>,
    pub zone: Option<Arc<str>>,
    /// 0 for those that are used first, up to [`MAX_PRIORITY`].
    pub priority: u8,
}

/// What a source tells of a service beyond what requests need, for those who look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// A JSON object.
    pub metadata: Option<Arc<str>>,
    pub instances: HashMap<SocketAddr, Arc<Description>>,
}

/// Likewise of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Of the program that it runs.
    pub version: Option<Arc<str>>,
    /// A JSON object.
    pub metadata: Option<Arc<str>>,
}

/// Takes what one source finds for one service.
///
/// A set and the state of the source are reported apart: a source may publish a changed set while
/// a part of it keeps failing. Silence means that the last set still holds.
pub trait Publish: Send + Sync {
    /// The whole set as it is from now on. Empty only when the source said that there is nothing.
    fn publish(&self, instances: Vec<Discovered>);

    /// What is told of the service and its instances from now on.
    fn describe(&self, described: Described) {
        drop(described);
    }

    /// The source can't be asked, or not for everything; the last set stays. Called when a failure
    /// begins and when its description changes, not once for each attempt.
    fn source_failed(&self, what: &str);

    /// The failure that was reported last is over.
    fn source_recovered(&self);
}
