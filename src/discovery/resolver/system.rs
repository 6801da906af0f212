//! The resolver of the system: its hosts file, its search domains and its name servers.
//!
//! Search domains are gone through here rather than in the library below, because a set of instances depends on
//! what the answers on the way say: a name that can't be asked for ends the search, since the next domain may have
//! another host by that name, and that there are none any more counts only from where there were some.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::time::Instant;

use super::{Answer, Answering, LOOKUP_TIMEOUT, Resolve, ResolveError, SrvRecord};
use crate::discovery::stamp::Stamp;

/// How often a look is taken whether the system's files have changed, while names are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For one round over the name servers, of which there are two or more within [`LOOKUP_TIMEOUT`].
const ROUND: Duration = Duration::from_secs(2);
/// Names of which is remembered as what they were found.
const MAX_FOUND: usize = 10_000;

/// The system's name servers, search domains and hosts file, as they are now.
pub struct SystemResolver {
    files: Option<Files>,
    state: Mutex<State>,
}

/// Where the system says how names are resolved.
#[derive(Clone, Debug)]
pub struct Files {
    pub resolv_conf: PathBuf,
    pub hosts: PathBuf,
    /// Of every name server: `resolv.conf` can't say.
    pub port: u16,
}

impl Default for Files {
    fn default() -> Self {
        Files { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), port: 53 }
    }
}

struct State {
    dns: Arc<Dns>,
    /// The last good ones.
    settings: (ResolverConfig, ResolverOpts),
    looked: Instant,
    seen: Seen,
}

/// What told the files' contents from others when they were read.
type Seen = (Option<Stamp>, Option<Stamp>);

impl SystemResolver {
    /// Never fails: without a usable `resolv.conf` the hosts file and `localhost` still work, and
    /// every other name fails with the cause.
    pub fn new() -> Self {
        Self::of(Files::default())
    }

    pub fn of(files: Files) -> Self {
        let seen = files.seen();
        let none = |_| (ResolverConfig::from_name_servers(Vec::new()), ResolverOpts::default());
        let settings = files.name_servers().unwrap_or_else(none);
        let state = Mutex::new(State::new(settings, files.hosts(), seen));
        SystemResolver { files: Some(files), state }
    }

    /// Asks exactly these name servers.
    pub fn with_config(config: ResolverConfig, options: ResolverOpts) -> Self {
        let hosts = match options.use_hosts_file {
            ResolveHosts::Never => Hosts::default(),
            ResolveHosts::Always | ResolveHosts::Auto => Files::default().hosts(),
        };
        let state = State::new((config, options), hosts, (None, None));
        SystemResolver { files: None, state: Mutex::new(state) }
    }

    /// A `resolv.conf` that can't be used, such as one that is being written, leaves the last good one in force.
    fn now(&self) -> Arc<Dns> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &self.files
            && state.looked.elapsed() >= LOOK_EVERY
        {
            state.looked = Instant::now();
            let seen = files.seen();
            if seen != state.seen {
                let settings = files.name_servers().unwrap_or_else(|_| state.settings.clone());
                *state = State::new(settings, files.hosts(), seen);
            }
        }
        state.dns.clone()
    }
}

impl State {
    fn new(settings: (ResolverConfig, ResolverOpts), hosts: Hosts, seen: Seen) -> State {
        let (config, options) = settings.clone();
        State { dns: Arc::new(Dns::new(config, options, hosts)), settings, looked: Instant::now(), seen }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Resolve for SystemResolver {
    fn addresses<'a>(&'a self, name: &'a str) -> Answering<'a, IpAddr> {
        let dns = self.now();
        Box::pin(async move { within(dns.addresses(name)).await })
    }

    fn srv<'a>(&'a self, name: &'a str) -> Answering<'a, SrvRecord> {
        let dns = self.now();
        Box::pin(async move { within(dns.srv(name)).await })
    }
}

async fn within<T>(lookup: impl Future<Output = Result<T, ResolveError>>) -> Result<T, ResolveError> {
    tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await.unwrap_or(Err(ResolveError::Timeout))
}

impl Files {
    fn seen(&self) -> Seen {
        (Stamp::of(&self.resolv_conf), Stamp::of(&self.hosts))
    }

    fn name_servers(&self) -> Result<(ResolverConfig, ResolverOpts), ResolveError> {
        let unusable =
            |error: String| ResolveError::Failed(format!("{}: {error}", self.resolv_conf.display()));
        let text = fs::read(&self.resolv_conf).map_err(|error| unusable(error.to_string()))?;
        let (config, options) =
            system_conf::parse_resolv_conf(text).map_err(|error| unusable(error.to_string()))?;
        let (domain, search, mut servers) = config.into_parts();
        for connection in servers.iter_mut().flat_map(|server| &mut server.connections) {
            connection.port = self.port;
        }
        Ok((ResolverConfig::from_parts(domain, search, servers), options))
    }

    fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::default();
        // What was read before an error is as good as the rest would be.
        let _ = File::open(&self.hosts).and_then(|file| hosts.read_hosts_conf(file));
        hosts
    }
}

/// One state of the system's settings.
struct Dns {
    resolver: Result<TokioResolver, String>,
    hosts: Hosts,
    /// Where a name is looked for that isn't fully qualified.
    search: Vec<Name>,
    /// A name with so many dots is first asked for as it is.
    ndots: usize,
    /// Of names that were found, as what: for a search that finds nothing any more.
    found: Mutex<HashMap<String, Name>>,
}

impl Dns {
    fn new(config: ResolverConfig, mut options: ResolverOpts, hosts: Hosts) -> Dns {
        let (domain, mut search, servers) = config.into_parts();
        // "The domain and search keywords are mutually exclusive", and the host's own domain is for where there is neither
        // (resolv.conf(5)).
        if search.is_empty() {
            search.extend(domain);
        }
        let ndots = options.ndots;
        // The records' TTL says when a name is asked again; a cache behind that would be another one.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        // With those of resolv.conf, a name server that is silent would use up all of the time there is.
        options.timeout = options.timeout.min(ROUND);
        options.attempts = options.attempts.max(1);
        let config = ResolverConfig::from_name_servers(servers);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(|error| error.to_string());
        Dns { resolver, hosts, search, ndots, found: Mutex::default() }
    }

    async fn addresses(&self, name: &str) -> Result<Answer<IpAddr>, ResolveError> {
        if let Some(records) = self.in_hosts(name) {
            return Ok(Answer { records, ttl: None });
        }
        let mut search = self.search_for(name);
        for candidate in self.candidates(name)? {
            let outcome = self.either_family(candidate.clone()).await;
            if let Some(end) = search.met(candidate, outcome) {
                return end;
            }
        }
        search.in_vain()
    }

    async fn srv(&self, name: &str) -> Result<Answer<SrvRecord>, ResolveError> {
        let mut search = self.search_for(name);
        for candidate in self.candidates(name)? {
            let outcome = self.srv_records(candidate.clone()).await;
            if let Some(end) = search.met(candidate, outcome) {
                return end;
            }
        }
        search.in_vain()
    }

    fn search_for<'a, T>(&'a self, name: &'a str) -> Search<'a, T> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        Search { name, dns: self, found, none: None }
    }

    fn found(&self, name: &str, at: Name) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= MAX_FOUND && !found.contains_key(name) {
            found.clear();
        }
        found.insert(name.to_owned(), at);
    }

    /// In the order in which they are asked for, as resolv.conf(5) describes it.
    fn candidates(&self, name: &str) -> Result<Vec<Name>, ResolveError> {
        let name = parsed(name)?;
        let mut as_it_is = name.clone();
        as_it_is.set_fqdn(true);
        if name.is_fqdn() || name.is_localhost() {
            return Ok(vec![as_it_is]);
        }
        let searched = self.search.iter().filter_map(|domain| {
            let mut name = name.clone().append_domain(domain).ok()?;
            name.set_fqdn(true);
            Some(name)
        });
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let (before, behind) =
            if dots >= self.ndots { (Some(as_it_is), None) } else { (None, Some(as_it_is)) };
        Ok(before.into_iter().chain(searched).chain(behind).collect())
    }

    fn in_hosts(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = parsed(name).ok()?;
        [RecordType::A, RecordType::AAAA].into_iter().find_map(|kind| {
            let found = self.hosts.lookup_static_host(&Query::query(name.clone(), kind))?;
            let records: Vec<IpAddr> =
                found.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            (!records.is_empty()).then_some(records)
        })
    }

    /// One family only: two addresses of a dual-stack host would be two instances, and the second
    /// may have no way to it from here.
    async fn either_family(&self, name: Name) -> Result<Answer<IpAddr>, ResolveError> {
        let v4 = self.records(name.clone(), RecordType::A, RData::ip_addr).await;
        match v4 {
            Ok(ref found) if found.records.is_empty() => {}
            // Some name servers say so of a name that has no IPv4 address.
            Err(ResolveError::NoSuchName | ResolveError::Inconclusive) => {}
            known_or_failed => return known_or_failed,
        }
        match self.records(name, RecordType::AAAA, RData::ip_addr).await {
            Ok(found) if found.records.is_empty() => v4,
            Err(error) => v4.and(Err(error)),
            found => found,
        }
    }

    async fn srv_records(&self, name: Name) -> Result<Answer<SrvRecord>, ResolveError> {
        let record = |data: &RData| match data {
            RData::SRV(srv) => Some(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.to_ascii(),
            }),
            _ => None,
        };
        self.records(name, RecordType::SRV, record).await
    }

    /// What is wanted of the records of one type. Names that lead to them (CNAME) are among what is passed over.
    async fn records<T>(
        &self,
        name: Name,
        kind: RecordType,
        wanted: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, ResolveError> {
        let dns = self.resolver.as_ref().map_err(|cause| ResolveError::Failed(cause.clone()))?;
        let answers: Vec<Record> = match dns.lookup(name, kind).await {
            Ok(lookup) => lookup.answers().to_vec(),
            Err(error) => {
                no_records(error)?;
                return Ok(Answer { records: Vec::new(), ttl: None });
            }
        };
        let records: Vec<T> = answers.iter().filter_map(|record| wanted(&record.data)).collect();
        // An alias whose end is missing.
        if records.is_empty() && !answers.is_empty() {
            return Err(ResolveError::Inconclusive);
        }
        let ttl = answers.iter().map(|record| Duration::from_secs(record.ttl.into())).min();
        Ok(Answer { records, ttl })
    }
}

/// The names that one may stand for, asked for one after the other.
struct Search<'a, T> {
    name: &'a str,
    dns: &'a Dns,
    /// Which of them had records before.
    found: Option<Name>,
    /// What that one was answered, or else the first, as long as none has had any.
    none: Option<Result<Answer<T>, ResolveError>>,
}

impl<T> Search<'_, T> {
    /// Returns what ends the search: records, or a failure, since by the next name there would be another host.
    fn met(
        &mut self,
        candidate: Name,
        answer: Result<Answer<T>, ResolveError>,
    ) -> Option<Result<Answer<T>, ResolveError>> {
        match answer {
            Ok(answer) if !answer.records.is_empty() => {
                if self.found.as_ref() != Some(&candidate) {
                    self.dns.found(self.name, candidate);
                }
                Some(Ok(answer))
            }
            none @ (Ok(_) | Err(ResolveError::NoSuchName | ResolveError::Inconclusive)) => {
                if self.none.is_none() || self.found == Some(candidate) {
                    self.none = Some(none);
                }
                None
            }
            failure => Some(failure),
        }
    }

    /// That there are none any more is said by the name that had some, not by others that are searched as well.
    fn in_vain(self) -> Result<Answer<T>, ResolveError> {
        self.none.unwrap_or(Err(ResolveError::NoSuchName))
    }
}

fn parsed(name: &str) -> Result<Name, ResolveError> {
    Name::from_str(name).map_err(|error| ResolveError::Failed(error.to_string()))
}

/// What an answer without records says: nothing there (fine), or nothing at all (an error).
fn no_records(error: NetError) -> Result<(), ResolveError> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Err(ResolveError::NoSuchName),
            ResponseCode::NoError if none.soa.is_some() => Ok(()),
            ResponseCode::NoError => Err(ResolveError::Inconclusive),
            code => Err(ResolveError::Refused(code.to_string())),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => Err(ResolveError::Refused(code.to_string())),
        NetError::Timeout => Err(ResolveError::Timeout),
        other => Err(ResolveError::Failed(other.to_string())),
    }
}
