//! The typed form of a configuration: what [`super::load`] returns once a text has no problem left.
//!
//! Plain data. Nothing here opens a file or a socket, and nothing here is read while a request is
//! served: `snapshot::compile` turns it into the form that requests run against. Equality ignores
//! positions, so "did this block change?" is `==`.

mod aggregate;
mod authenticator;
mod listener;
mod policy;
mod route;
mod service;
mod service_tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use aggregate::*;
pub use authenticator::*;
pub use listener::*;
pub use policy::*;
pub use route::*;
pub use service::*;
pub use service_tls::*;

use super::secret::Secret;
use super::source::Span;

/// A value and where it was written. Two are equal when their values are, wherever they stand.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> std::ops::Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// The name of something defined elsewhere in the file. `load` has checked that it exists.
pub type Ref = At<String>;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub workers: Workers,
    /// Bytes in use from which on new requests are refused.
    pub max_memory: Option<u64>,
    /// Where the gateway is; `None` where that plays no part.
    pub zone: Option<String>,
    pub listeners: Vec<Listener>,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub admin: Option<Admin>,
    pub registry: Option<Registry>,
    pub services: Vec<Service>,
    pub authenticators: Vec<Authenticator>,
    pub certificate_authenticators: Vec<CertificateAuthenticator>,
    pub rate_limits: Vec<RateLimit>,
    pub defaults: Defaults,
    pub routes: Vec<Route>,
    pub access_log: AccessLog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// One per core that the process may use.
    Auto,
    Count(usize),
}

/// `token` is present whenever `bind` is not a loopback address.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub bind: At<SocketAddr>,
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Registry {
    pub bind: At<SocketAddr>,
    /// Without a heartbeat for this long an instance leaves the rotation. Default 30 s.
    pub heartbeat_ttl: Duration,
    pub token: Option<Secret>,
    /// Where to keep who is registered.
    pub state_file: Option<At<PathBuf>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub output: LogOutput,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LogOutput {
    Stdout,
    Off,
    /// Reopened on SIGUSR1.
    File(PathBuf),
}
