//! Every source through [`super::run`], with what it publishes as the only witness.

mod dns_server;
mod file;
mod name_server;
mod names;
mod registry;
mod system;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::resolver::{Answer, Answering, Resolve, ResolveError, SrvRecord};
use super::{Sought, Sources, registry as registries, run};
use crate::config::{At, InstanceSource, Span, StaticInstance};
use crate::service::discovered::{Discovered, Publish};

/// What a source has said so far.
#[derive(Clone, Default)]
pub struct Said {
    /// Each set as `address*weight` texts.
    pub sets: Vec<Vec<String>>,
    /// `None` where it recovered.
    pub faults: Vec<Option<String>>,
}

pub struct Sink(watch::Sender<Said>);

impl Sink {
    pub fn new() -> Arc<Sink> {
        Arc::new(Sink(watch::Sender::new(Said::default())))
    }

    pub fn said(&self) -> Said {
        self.0.borrow().clone()
    }

    pub fn set(&self) -> Option<Vec<String>> {
        self.said().sets.last().cloned()
    }

    /// Waits until the condition holds; fails, with what was said, when it doesn't come to that.
    pub async fn until(&self, what: &str, condition: impl Fn(&Said) -> bool) {
        let mut said = self.0.subscribe();
        let waited =
            tokio::time::timeout(Duration::from_secs(120), said.wait_for(|said| condition(said))).await;
        if waited.is_err() {
            let said = self.said();
            panic!("{what}: only sets {:?} and faults {:?}", said.sets, said.faults);
        }
    }

    pub async fn until_set(&self, expected: &[&str]) {
        let holds = |said: &Said| said.sets.last().is_some_and(|set| set == expected);
        self.until(&format!("{expected:?} was not published"), holds).await;
    }
}

impl Publish for Sink {
    fn publish(&self, instances: Vec<Discovered>) {
        let set = instances.iter().map(text).collect();
        self.0.send_modify(|said| said.sets.push(set));
    }

    fn source_failed(&self, what: &str) {
        self.0.send_modify(|said| said.faults.push(Some(what.into())));
    }

    fn source_recovered(&self) {
        self.0.send_modify(|said| said.faults.push(None));
    }
}

pub fn text(instance: &Discovered) -> String {
    format!("{}*{}", instance.address, instance.weight)
}

type Addresses = Result<Vec<IpAddr>, ResolveError>;

/// A resolver that answers what the test says, at once or after a time.
#[derive(Default)]
pub struct Fake {
    names: Mutex<HashMap<String, (Duration, Addresses)>>,
    srv: Mutex<Option<Result<Vec<SrvRecord>, ResolveError>>>,
    asked: Mutex<Vec<String>>,
    ttl: Mutex<Option<Duration>>,
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        Arc::default()
    }

    pub fn answers(&self, name: &str, addresses: &[&str]) {
        self.answers_after(Duration::ZERO, name, addresses);
    }

    pub fn answers_after(&self, delay: Duration, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        self.names.lock().unwrap().insert(name.into(), (delay, Ok(addresses)));
    }

    pub fn fails(&self, name: &str, error: ResolveError) {
        self.names.lock().unwrap().insert(name.into(), (Duration::ZERO, Err(error)));
    }

    pub fn answers_srv(&self, answer: Result<Vec<SrvRecord>, ResolveError>) {
        *self.srv.lock().unwrap() = Some(answer);
    }

    pub fn has_ttl(&self, ttl: Duration) {
        *self.ttl.lock().unwrap() = Some(ttl);
    }

    pub fn times_asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == name).count()
    }
}

impl Resolve for Fake {
    fn addresses<'a>(&'a self, name: &'a str) -> Answering<'a, IpAddr> {
        self.asked.lock().unwrap().push(name.into());
        let known = self.names.lock().unwrap().get(name).cloned();
        let ttl = *self.ttl.lock().unwrap();
        Box::pin(async move {
            let (delay, answer) = known.unwrap_or((Duration::ZERO, Err(ResolveError::NoSuchName)));
            tokio::time::sleep(delay).await;
            answer.map(|records| Answer { records, ttl })
        })
    }

    fn srv<'a>(&'a self, name: &'a str) -> Answering<'a, SrvRecord> {
        self.asked.lock().unwrap().push(name.into());
        let answer = self.srv.lock().unwrap().clone();
        let ttl = *self.ttl.lock().unwrap();
        Box::pin(async move {
            let answer = answer.unwrap_or(Err(ResolveError::NoSuchName));
            answer.map(|records| Answer { records, ttl })
        })
    }
}

/// A source that runs until the test ends.
pub struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn start(source: InstanceSource, sink: &Arc<Sink>, resolver: Arc<dyn Resolve>) -> Running {
    start_with(source, sink, Sources { resolver, registry: None })
}

pub fn start_with(source: InstanceSource, sink: &Arc<Sink>, shared: Sources) -> Running {
    Running(tokio::spawn(run(sought(source), sink.clone(), shared)))
}

pub fn at<T>(value: T) -> At<T> {
    At { value, span: Span::default() }
}

pub fn fixed(authorities: &[&str]) -> InstanceSource {
    let instance =
        |text: &&str| StaticInstance { authority: at(text.to_string()), weight: 1, zone: None, priority: 0 };
    InstanceSource::Static(authorities.iter().map(instance).collect())
}

/// For a service `users` that is spoken to in the clear.
pub fn sought(source: InstanceSource) -> Sought {
    Sought { source, service_name: "users".into(), over_tls: false }
}
