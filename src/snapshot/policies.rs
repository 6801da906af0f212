//! The policies of routes, from those that are written for each and those of `defaults`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderName;

use super::{Ground, Names};
use crate::config::{self, Config, EncodedSlashes, Problems};
use crate::policy::Policies;
use crate::policy::authenticate::{Authentication, CertificateRule};
use crate::policy::authorize::Authorization;
use crate::policy::cors::Cors;
use crate::policy::headers::HeaderEdit;
use crate::policy::ip_filter::IpFilter;
use crate::policy::maintenance::{Maintenance, Switch};
use crate::policy::method_override::MethodOverride;
use crate::policy::security_headers::SecurityHeaders;

/// Those of replies to requests that no route takes.
pub(super) fn defaults(config: &Config, names: &Names) -> Policies {
    let defaults = &config.defaults;
    let limits = defaults.rate_limits.iter().filter_map(|name| names.limiters.get(&name.value));
    Policies {
        max_body: defaults.max_body,
        maintenance: defaults.maintenance.as_ref().and_then(|written| maintenance(written, names)),
        ip_filters: names.ip_filter.iter().cloned().collect(),
        // Nobody is authenticated where no route is: a limit by claim has one shared key there.
        limits: limits.cloned().collect(),
        security_headers: defaults.security_headers.as_ref().and_then(SecurityHeaders::compile),
        response_headers: edits([&defaults.response_headers]),
        ..Policies::default()
    }
}

/// Those of a route, with those of `defaults`. What is wrong with a file that they name is in `problems`.
pub(super) fn compile(
    route: &config::Route,
    config: &Config,
    names: &Names,
    problems: &mut Problems,
) -> Policies {
    let defaults = &config.defaults;
    let refs = defaults.rate_limits.iter().chain(&route.rate_limits);
    let (limits_by_identity, limits): (Vec<_>, Vec<_>) = refs
        .filter_map(|name| names.limiters.get(&name.value).cloned())
        .partition(|limiter| limiter.needs_identity());
    let own_filter = route.ip_filter.as_ref().and_then(|filter| IpFilter::compile(filter, problems));
    let maintained = route.maintenance.as_ref().or(defaults.maintenance.as_ref());
    let security = route.security_headers.as_ref().or(defaults.security_headers.as_ref());
    Policies {
        keeps_encoded_slashes: route.encoded_slashes == EncodedSlashes::Keep,
        maintenance: maintained.and_then(|written| maintenance(written, names)),
        ip_filters: names.ip_filter.iter().cloned().chain(own_filter.map(Arc::new)).collect(),
        method_override: route.method_override.as_ref().map(MethodOverride::compile),
        cors: route.cors.as_ref().map(Cors::compile),
        max_body: route.max_body.or(defaults.max_body),
        limits: limits.into(),
        authenticate: route.authenticate.as_ref().and_then(|written| authentication(written, names)),
        authorize: Authorization::compile(&route.authorize),
        limits_by_identity: limits_by_identity.into(),
        request_headers: edits([&route.request_headers]),
        security_headers: security.and_then(SecurityHeaders::compile),
        response_headers: edits([&defaults.response_headers, &route.response_headers]),
    }
}

fn authentication(written: &config::Authenticate, names: &Names) -> Option<Authentication> {
    let rule = |name: &config::Ref| names.certificate_rules.get(&name.value).cloned();
    let certificates = written.with.iter().filter_map(rule).collect();
    let with = written.with.iter().filter(|name| rule(name).is_none()).cloned().collect();
    let tokens = config::Authenticate { with, methods: written.methods.clone() };
    let tokens = Authentication::compile(&tokens, |name| names.authenticators.get(name).cloned())?;
    Some(tokens.or_certificates(certificates))
}

pub(super) fn certificate_rules(config: &Config) -> HashMap<String, Arc<CertificateRule>> {
    let rules = config.certificate_authenticators.iter();
    rules.map(|rule| (rule.name.value.clone(), Arc::new(CertificateRule::compile(rule)))).collect()
}

/// Whether all that [`compile`] reads of them is the same.
pub(super) fn are_alike(one: &config::Route, other: &config::Route) -> bool {
    one.rate_limits == other.rate_limits
        && one.max_body == other.max_body
        && one.maintenance == other.maintenance
        && one.ip_filter == other.ip_filter
        && one.method_override == other.method_override
        && one.security_headers == other.security_headers
        && one.cors == other.cors
        && one.authenticate == other.authenticate
        && one.authorize == other.authorize
        && one.request_headers == other.request_headers
        && one.response_headers == other.response_headers
        && one.encoded_slashes == other.encoded_slashes
}

pub(super) fn default_ip_filter(config: &Config, problems: &mut Problems) -> Option<Arc<IpFilter>> {
    config.defaults.ip_filter.as_ref().and_then(|filter| IpFilter::compile(filter, problems)).map(Arc::new)
}

/// One for each file that maintenance depends on: that of the snapshot before, where there was one.
pub(super) fn switches(config: &Config, ground: &Ground<'_>) -> HashMap<PathBuf, Arc<Switch>> {
    let before = ground.previous.map(|previous| &previous.switches[..]).unwrap_or_default();
    let routes = config.routes.iter().filter_map(|route| route.maintenance.as_ref());
    let all = routes.chain(&config.defaults.maintenance);
    let mut switches = HashMap::new();
    for path in all.filter_map(|maintenance| maintenance.while_file_exists.as_ref()) {
        switches.entry(path.value.clone()).or_insert_with(|| switch(before, path));
    }
    switches
}

fn switch(before: &[Arc<Switch>], path: &Path) -> Arc<Switch> {
    let known = before.iter().find(|switch| switch.path() == path);
    known.cloned().unwrap_or_else(|| Arc::new(Switch::new(path)))
}

fn maintenance(written: &config::Maintenance, names: &Names) -> Option<Maintenance> {
    Maintenance::compile(written, |path| {
        names.switches.get(path).cloned().unwrap_or_else(|| Arc::new(Switch::new(path)))
    })
}

/// The fields of all routes that let a method be overridden, once each.
pub(super) fn override_headers(config: &Config) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for name in config.routes.iter().filter_map(|route| Some(&route.method_override.as_ref()?.header)) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn edits<'e>(all: impl IntoIterator<Item = &'e config::HeaderEdit>) -> Box<[HeaderEdit]> {
    all.into_iter()
        .filter(|edit| !(edit.set.is_empty() && edit.remove.is_empty()))
        .map(HeaderEdit::compile)
        .collect()
}
