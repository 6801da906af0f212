//! Names to addresses: what discovery asks of DNS. [`SystemResolver`] is the real one behind it.
//!
//! Three outcomes are told apart, because they mean different things to a set of instances: records,
//! an explicit "there are none" (a NOERROR answer that carries the zone's SOA, RFC 2308 §2.2), and
//! a failure, which says nothing about the instances at all.

mod system;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

#[cfg(test)]
pub use system::Files;
pub use system::SystemResolver;

/// The longest that one question may take, search domains and retries included.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer in the making.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<Answer<T>, ResolveError>> + Send + 'a>>;

/// What was asked for, and how long that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// None is an answer too: the name explicitly has no such records.
    pub records: Vec<T>,
    /// The shortest of all records that led here. `None` where none did.
    pub ttl: Option<Duration>,
}

/// However short a TTL is, no name is asked more often because of it.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

impl<T> Answer<T> {
    /// When to ask again, if not sooner than after `refresh`.
    pub fn refresh(&self, refresh: Duration) -> Duration {
        self.ttl.map_or(refresh, |ttl| ttl.max(SHORTEST_TTL).min(refresh))
    }
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvRecord {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// Fully qualified, with its final dot; `.` alone means "decidedly no such service".
    pub target: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("no such name")]
    NoSuchName,
    #[error("the name server answered {0}")]
    Refused(String),
    #[error("the name server answered without records and without an SOA")]
    Inconclusive,
    #[error("no answer within {}s", LOOKUP_TIMEOUT.as_secs())]
    Timeout,
    #[error("the lookup failed: {0}")]
    Failed(String),
}

/// Where names are resolved. Tests bring their own.
pub trait Resolve: Send + Sync {
    /// The IPv4 addresses of a name, or the IPv6 ones where it has no IPv4 address.
    fn addresses<'a>(&'a self, name: &'a str) -> Answering<'a, IpAddr>;

    fn srv<'a>(&'a self, name: &'a str) -> Answering<'a, SrvRecord>;
}
