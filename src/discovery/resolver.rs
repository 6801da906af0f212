//! Names to addresses: what discovery asks of DNS, and the real resolver behind it.
//!
//! Three outcomes are told apart, because they mean different things to a set of instances: records,
//! an explicit "there are none" (a NOERROR answer that carries the zone's SOA, RFC 2308 §2.2), and
//! a failure, which says nothing about the instances at all.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};

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

    fn map<U>(self, each: impl FnMut(T) -> Option<U>) -> Answer<U> {
        Answer { records: self.records.into_iter().filter_map(each).collect(), ttl: self.ttl }
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

/// The system's name servers, search domains and hosts file, as they were when this was made.
pub struct SystemResolver {
    dns: Result<TokioResolver, String>,
}

impl SystemResolver {
    /// Never fails: without a usable `resolv.conf` the hosts file and `localhost` still work, and
    /// every other name fails with the cause.
    pub fn new() -> Self {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(Vec::new()),
                TokioRuntimeProvider::default(),
            )
        });
        Self::build(builder)
    }

    /// Asks exactly these name servers.
    pub fn with_config(config: ResolverConfig, options: ResolverOpts) -> Self {
        let provider = TokioRuntimeProvider::default();
        Self::build(TokioResolver::builder_with_config(config, provider).with_options(options))
    }

    fn build(mut builder: hickory_resolver::ResolverBuilder<TokioRuntimeProvider>) -> Self {
        // The records' TTL says when a name is asked again; a cache behind that would be another one.
        builder.options_mut().cache_size = 0;
        SystemResolver { dns: builder.build().map_err(|error| error.to_string()) }
    }

    /// The records of one type, with the names that lead to them (CNAME) left in.
    async fn records(&self, name: &str, kind: RecordType) -> Result<Answer<RData>, ResolveError> {
        let dns = self.dns.as_ref().map_err(|cause| ResolveError::Failed(cause.clone()))?;
        let answer = tokio::time::timeout(LOOKUP_TIMEOUT, dns.lookup(name, kind));
        match answer.await.map_err(|_| ResolveError::Timeout)? {
            Ok(lookup) => Ok(Answer {
                records: lookup.answers().iter().map(|record| record.data.clone()).collect(),
                ttl: lookup.answers().iter().map(|record| Duration::from_secs(record.ttl.into())).min(),
            }),
            Err(error) => no_records(error),
        }
    }

    async fn ips(&self, name: &str, kind: RecordType) -> Result<Answer<IpAddr>, ResolveError> {
        Ok(self.records(name, kind).await?.map(|data| data.ip_addr()))
    }

    /// One family only: two addresses of a dual-stack host would be two instances, and the second
    /// may have no way to it from here.
    async fn either_family(&self, name: &str) -> Result<Answer<IpAddr>, ResolveError> {
        let v4 = self.ips(name, RecordType::A).await;
        match v4 {
            Ok(ref found) if !found.records.is_empty() => v4,
            // A name that only the hosts file knows, and only with an IPv6 address, has no A record
            // anywhere: DNS says that there is no such name.
            Ok(_) | Err(ResolveError::NoSuchName | ResolveError::Inconclusive) => {
                match self.ips(name, RecordType::AAAA).await {
                    Ok(found) if found.records.is_empty() => v4,
                    Err(error) => v4.and(Err(error)),
                    found => found,
                }
            }
            Err(_) => v4,
        }
    }

    async fn srv_records(&self, name: &str) -> Result<Answer<SrvRecord>, ResolveError> {
        Ok(self.records(name, RecordType::SRV).await?.map(|data| match data {
            RData::SRV(srv) => Some(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii(),
            }),
            _ => None,
        }))
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolve for SystemResolver {
    fn addresses<'a>(&'a self, name: &'a str) -> Answering<'a, IpAddr> {
        Box::pin(self.either_family(name))
    }

    fn srv<'a>(&'a self, name: &'a str) -> Answering<'a, SrvRecord> {
        Box::pin(self.srv_records(name))
    }
}

/// What an answer without records says: nothing there (an empty list), or nothing at all (an error).
fn no_records(error: NetError) -> Result<Answer<RData>, ResolveError> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Err(ResolveError::NoSuchName),
            ResponseCode::NoError if none.soa.is_some() => Ok(Answer { records: Vec::new(), ttl: None }),
            ResponseCode::NoError => Err(ResolveError::Inconclusive),
            code => Err(ResolveError::Refused(code.to_string())),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => Err(ResolveError::Refused(code.to_string())),
        NetError::Timeout => Err(ResolveError::Timeout),
        other => Err(ResolveError::Failed(other.to_string())),
    }
}
