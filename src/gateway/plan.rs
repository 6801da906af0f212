//! From a configuration file to all that it takes to serve it, without touching what is serving.

use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::admin::view::ProblemStatus;
use crate::config::{self, Config, JwtKey, Loaded, NetworkSource, Problems, ReadError, Source};
use crate::listener::{self, ServerTls, Tickets};
use crate::snapshot::{self, Ground, Snapshot};
use crate::telemetry::events;
use crate::telemetry::metrics::Metrics;

/// A configuration, compiled, with the TLS settings of its listeners in their order.
pub struct Plan {
    pub config: Config,
    pub snapshot: Snapshot,
    pub tls: Vec<Option<ServerTls>>,
    pub files: Files,
}

/// The files that a configuration is made of, the main one first, and what they held.
#[derive(Clone, Debug, Default)]
pub struct Files {
    pub paths: Vec<PathBuf>,
    fingerprint: u64,
}

impl Files {
    /// As they are now.
    fn of(paths: Vec<PathBuf>, source: &Source) -> Self {
        Files { fingerprint: fingerprint(source, &paths), paths }
    }

    /// Whether the main file holds `source` and the others what they held.
    pub fn are_unchanged(&self, source: &Source) -> bool {
        !self.paths.is_empty() && fingerprint(source, &self.paths) == self.fingerprint
    }
}

/// Why a configuration can't be served: to be shown as it is.
#[derive(Debug)]
pub struct Wrong {
    text: String,
    problems: Vec<ProblemStatus>,
    /// What it was made of, so that the same mistake isn't told twice.
    pub files: Option<Files>,
}

impl Wrong {
    pub fn new(source: &Source, mut problems: Problems) -> Self {
        problems.sort();
        Wrong {
            text: config::render(&problems, source, false),
            problems: super::statuses(&problems),
            files: Some(Files::of(named_by(source), source)),
        }
    }

    pub fn unreadable(error: ReadError) -> Self {
        Self::plain(error.to_string(), "check the path and its permissions")
    }

    pub fn cannot(error: io::Error) -> Self {
        Self::plain(format!("can't start: {error}"), "see the limits of the process")
    }

    pub fn failed() -> Self {
        Self::plain(
            "compiling the configuration failed".into(),
            "this is a fault of the gateway; please report it",
        )
    }

    pub fn stopping() -> Self {
        Self::plain("the gateway is stopping".into(), "start it again with the new configuration")
    }

    fn plain(message: String, remedy: &str) -> Self {
        let problem = ProblemStatus {
            severity: "error",
            line: None,
            column: None,
            message: message.clone(),
            remedy: remedy.to_owned(),
        };
        Wrong { text: format!("error: {message}"), problems: vec![problem], files: None }
    }

    /// Remembers which files it was that were wrong.
    pub fn of(self, files: &Files) -> Self {
        Wrong { files: Some(files.clone()), ..self }
    }

    pub fn statuses(self) -> Vec<ProblemStatus> {
        self.problems
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

impl std::error::Error for Wrong {}

pub fn load(source: &Source) -> Result<Loaded, Wrong> {
    let environment = |name: &str| std::env::var(name).ok();
    let loaded = config::load(source, &environment).map_err(|problems| Wrong::new(source, problems))?;
    tell_of_doubts(&loaded.warnings, source);
    Ok(loaded)
}

impl Plan {
    pub fn make(
        loaded: Loaded,
        source: &Source,
        previous: Option<&Snapshot>,
        metrics: &Arc<Metrics>,
        tickets: &Tickets,
        workers: usize,
    ) -> Result<Plan, Wrong> {
        let config = loaded.config;
        // Before they are read: what changes meanwhile is then seen by the next look.
        let files = Files::of(files(&config, source), source);
        let mut problems = Problems::default();
        let tls = certificates(&config, tickets, &mut problems);
        let snapshot = snapshot::compile(&config, &Ground { previous, metrics, workers });
        let snapshot = match snapshot {
            Ok(snapshot) if !problems.has_errors() => snapshot,
            Ok(_) => return Err(Wrong::new(source, problems).of(&files)),
            Err(more) => {
                problems.extend(more);
                return Err(Wrong::new(source, problems).of(&files));
            }
        };
        tell_of_doubts(&problems, source);
        Ok(Plan { config, snapshot, tls, files })
    }
}

fn certificates(config: &Config, tickets: &Tickets, problems: &mut Problems) -> Vec<Option<ServerTls>> {
    config.listeners.iter().map(|listener| listener::server_tls(listener, tickets, problems)).collect()
}

fn tell_of_doubts(warnings: &Problems, source: &Source) {
    if !warnings.is_empty() {
        let told = config::render(warnings, source, false);
        events::warn(format_args!("{} is doubtful:\n{}", source.path.display(), told.trim_end()));
    }
}

/// Everything that can be wrong with a configuration short of using it: what `gatehouse check` asks.
pub fn check(config: &Config) -> Problems {
    let mut problems = Problems::default();
    certificates(config, &Tickets::default(), &mut problems);
    let ground = Ground { previous: None, metrics: &Metrics::new(1), workers: 1 };
    if let Err(more) = snapshot::compile(config, &ground) {
        problems.extend(more);
    }
    problems.sort();
    problems
}

/// Instance files are not among them, because discovery follows those by itself, nor what maintenance depends on.
fn files(config: &Config, source: &Source) -> Vec<PathBuf> {
    let mut files = named_by(source);
    for tls in config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        for pair in &tls.certificates {
            files.extend([pair.certificate.value.clone(), pair.private_key.value.clone()]);
            files.extend(pair.ocsp.as_ref().map(|ocsp| ocsp.value.clone()));
        }
        if let Some(clients) = &tls.client_certificates {
            files.extend(
                [Some(&clients.trust), clients.crl.as_ref()].into_iter().flatten().map(|at| at.value.clone()),
            );
        }
    }
    for tls in config.services.iter().filter_map(|service| service.tls.as_ref()) {
        files.extend(tls.trust.as_ref().map(|path| path.value.clone()));
        if let Some(pair) = &tls.client {
            files.extend([pair.certificate.value.clone(), pair.private_key.value.clone()]);
        }
    }
    for key in config.authenticators.iter().flat_map(|authenticator| &authenticator.jwt.keys) {
        match key {
            JwtKey::PublicKey(file) | JwtKey::JwksFile(file) => files.push(file.value.clone()),
            JwtKey::Secret(_) | JwtKey::JwksUrl { .. } => {}
        }
    }
    let filters = config.routes.iter().filter_map(|route| route.ip_filter.as_ref());
    for filter in filters.chain(&config.defaults.ip_filter) {
        files.extend(filter.allow.iter().chain(&filter.deny).filter_map(|source| match source {
            NetworkSource::File(path) => Some(path.value.clone()),
            NetworkSource::Network(_) => None,
        }));
    }
    files
}

/// The file itself and those that values are taken from, which can be told of a wrong configuration, too.
fn named_by(source: &Source) -> Vec<PathBuf> {
    [source.path.clone()].into_iter().chain(source.named_files()).collect()
}

fn fingerprint(source: &Source, files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    source.text.hash(&mut hasher);
    for file in files.iter().skip(1) {
        fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}
