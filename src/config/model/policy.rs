//! Policies that need no identity: who is let in, when nobody is, and what browsers are told.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::At;

/// At least one of `enabled` and `while_file_exists` turns it on, unless it says that it is off.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintenance {
    pub enabled: bool,
    /// Absolute: `load` has joined it to the directory of the configuration file.
    pub while_file_exists: Option<At<PathBuf>>,
    pub retry_after: Duration,
    /// Clients that are served all the same.
    pub except: Vec<IpNet>,
}

/// At least one of the lists has an entry.
#[derive(Clone, Debug, PartialEq)]
pub struct IpFilter {
    pub allow: Vec<NetworkSource>,
    pub deny: Vec<NetworkSource>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NetworkSource {
    Network(IpNet),
    /// A file with one network a line.
    File(At<PathBuf>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct MethodOverride {
    pub header: HeaderName,
    /// Never empty, and none that means something to the connection.
    pub allow: Vec<Method>,
}

/// Fields for browsers; none at all where they are switched off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SecurityHeaders {
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// `Strict-Transport-Security`, which browsers take over TLS only.
    pub hsts: Option<HeaderValue>,
    /// Whether they stand in the place of what the service says.
    pub replace: bool,
}
