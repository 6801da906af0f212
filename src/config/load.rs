//! Text → [`Config`], or every problem of the text.

use super::block::Value;
use super::blocks;
use super::model::{Config, InstanceSource, JwtKey, LogOutput};
use super::reader::Reader;
use super::source::{Problems, Source};
use super::yaml::{self, Kind};

/// A configuration without errors, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Warnings only.
    pub warnings: Problems,
}

/// Reads a configuration. `environment` gives the values of `${NAME}`.
///
/// # Errors
///
/// All problems at once, in the order of their places; at least one of them is an error. Text that
/// isn't YAML has one: nothing behind it can be understood.
pub fn load(source: &Source, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    let mut reader = Reader::new(environment, source.directory());
    let root = yaml::parse(&source.text, &mut reader.problems);
    let config = root.and_then(|root| {
        if !matches!(root.kind, Kind::Map(_)) {
            let message = format!("expected a configuration, found {}", root.described());
            reader.error(root.span, message, "begin with a key: `listeners:`, `services:`, `routes:` …");
            return None;
        }
        blocks::prepare(&root, &mut reader);
        let config = Config::read(&root, &mut reader)?;
        check_state_file(&config, source, &mut reader);
        Some(config)
    });
    let mut problems = reader.problems;
    problems.sort();
    match config {
        Some(config) if !problems.has_errors() => Ok(Loaded { config, warnings: problems }),
        _ => Err(problems),
    }
}

/// The registry replaces its state file, and moves it aside when it can't read it. Neither must happen to a file
/// that is somebody else's.
fn check_state_file(config: &Config, source: &Source, reader: &mut Reader<'_>) {
    let Some(state_file) = config.registry.as_ref().and_then(|registry| registry.state_file.as_ref()) else {
        return;
    };
    let own = std::path::absolute(&source.path).unwrap_or_else(|_| source.path.clone());
    let tls = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let clients = tls.clone().filter_map(|tls| tls.client_certificates.as_ref());
    let clients = clients.flat_map(|clients| [Some(&clients.trust.value), clients.crl.as_deref()]).flatten();
    let certificates = tls.flat_map(|tls| &tls.certificates);
    let instances = config.services.iter().filter_map(|service| match &service.source {
        InstanceSource::File(path) => Some(&path.value),
        _ => None,
    });
    let keys = config.authenticators.iter().flat_map(|authenticator| &authenticator.jwt.keys);
    let keys = keys.filter_map(|key| match key {
        JwtKey::PublicKey(path) | JwtKey::JwksFile(path) => Some(&path.value),
        JwtKey::Secret(_) | JwtKey::JwksUrl { .. } => None,
    });
    let log = match &config.access_log.output {
        LogOutput::File(path) => Some(path),
        LogOutput::Stdout | LogOutput::Off => None,
    };
    let others = certificates.flat_map(|pair| {
        [Some(&pair.certificate.value), Some(&pair.private_key.value), pair.ocsp.as_deref()]
            .into_iter()
            .flatten()
    });
    let mut others = others.chain(clients).chain(instances).chain(keys).chain(log).chain([&own]);
    if others.any(|other| *other == state_file.value) {
        let message = "this file is used for something else, and the registry would replace it";
        reader.error(state_file.span, message, "name a file of its own, such as `registry.json`");
    }
}
