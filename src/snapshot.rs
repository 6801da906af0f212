//! The compiled, immutable form of a configuration: what requests run against.
//!
//! Compiling takes over from the snapshot before what must live on: services with their instances,
//! breakers and health, limiters with their counts, authenticators with the keys they fetched. Every name is
//! resolved here; a request looks nothing up by configuration name.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderName;

use crate::action::{Action, Aggregate, Forward, HostHeader, Part, Redirect, Respond, Rewrite};
use crate::config::{self, Config, EncodedSlashes, Problems};
use crate::http::forwarded::TrustedProxies;
use crate::http::interned;
use crate::http::template::{StripPrefix, Template};
use crate::policy::Policies;
use crate::policy::authenticate::{Authentication, Authenticator};
use crate::policy::authorize::Authorization;
use crate::policy::cors::Cors;
use crate::policy::headers::HeaderEdit;
use crate::policy::rate_limit::RateLimiter;
use crate::route::{Table, parameter_names};
use crate::service::Service;
use crate::telemetry::metrics::{Metrics, RouteMetrics};

pub struct Snapshot {
    /// Counts the configurations applied since the start, from 1.
    pub generation: u64,
    pub routes: Table<Arc<Route>>,
    /// The policies of replies to requests that no route takes.
    pub defaults: Policies,
    pub services: Vec<Arc<Service>>,
    pub authenticators: Vec<Arc<Authenticator>>,
    pub limiters: Vec<Arc<RateLimiter>>,
    pub trusted_proxies: TrustedProxies,
    pub request_id_header: HeaderName,
    /// Fields by which authenticators tell services who asks; nobody else may set them.
    pub identity_headers: Vec<HeaderName>,
}

pub struct Route {
    pub name: Arc<str>,
    pub policies: Policies,
    pub action: Action,
    pub keeps_encoded_slashes: bool,
    pub metrics: Arc<RouteMetrics>,
}

/// What a snapshot is made with besides the configuration.
pub struct Ground<'g> {
    pub previous: Option<&'g Snapshot>,
    pub metrics: &'g Arc<Metrics>,
    pub workers: usize,
}

/// The snapshot of a configuration that `config::load` found no fault with. What is wrong with the files that
/// it names (certificates aside) comes back as problems.
pub fn compile(config: &Config, ground: &Ground<'_>) -> Result<Snapshot, Problems> {
    let mut problems = Problems::default();
    let names = Names {
        services: services(config, ground),
        authenticators: authenticators(config, ground, &mut problems),
        limiters: limiters(config, ground),
    };
    let defaults = default_policies(config, &names);
    let mut routes = Vec::with_capacity(config.routes.len());
    for route in &config.routes {
        match compile_route(route, config, &names, ground) {
            Ok(compiled) => routes.push((route.matches.clone(), Arc::new(compiled))),
            Err(why) => problems.error(route.name.span, why, "change the route's match or action"),
        }
    }
    if problems.has_errors() {
        return Err(problems);
    }
    let routes = Table::compile(routes).map_err(|error| {
        let mut problems = Problems::default();
        let span = config.routes.first().map_or_else(Default::default, |route| route.name.span);
        problems.error(span, error.to_string(), "change the match of the route");
        problems
    })?;
    Ok(Snapshot {
        generation: ground.previous.map_or(0, |previous| previous.generation) + 1,
        routes,
        defaults,
        services: names.services.into_values().collect(),
        authenticators: names.authenticators.into_values().collect(),
        limiters: names.limiters.into_values().collect(),
        trusted_proxies: TrustedProxies::compile(&config.trusted_proxies),
        request_id_header: config.defaults.request_id_header.clone(),
        identity_headers: identity_headers(config),
    })
}

struct Names {
    services: HashMap<String, Arc<Service>>,
    authenticators: HashMap<String, Arc<Authenticator>>,
    limiters: HashMap<String, Arc<RateLimiter>>,
}

fn services(config: &Config, ground: &Ground<'_>) -> HashMap<String, Arc<Service>> {
    let before = ground.previous.map(|previous| &previous.services[..]).unwrap_or_default();
    let named = |name: &str| before.iter().find(|service| *service.name == *name);
    let compile = |service: &config::Service| {
        let compiled = Service::compile(service, named(&service.name), ground.workers, ground.metrics);
        (service.name.value.clone(), compiled)
    };
    config.services.iter().map(compile).collect()
}

fn authenticators(
    config: &Config,
    ground: &Ground<'_>,
    problems: &mut Problems,
) -> HashMap<String, Arc<Authenticator>> {
    let before = ground.previous.map(|previous| &previous.authenticators[..]).unwrap_or_default();
    let mut compiled = HashMap::new();
    for authenticator in &config.authenticators {
        let name = &authenticator.name.value;
        let previous = before.iter().find(|known| *known.name() == **name);
        if let Some(made) = Authenticator::compile(authenticator, previous, problems) {
            compiled.insert(name.clone(), made);
        }
    }
    compiled
}

fn limiters(config: &Config, ground: &Ground<'_>) -> HashMap<String, Arc<RateLimiter>> {
    let before = ground.previous.map(|previous| &previous.limiters[..]).unwrap_or_default();
    let compile = |limit: &config::RateLimit| {
        let previous = before.iter().find(|known| *known.name() == *limit.name.value);
        (limit.name.value.clone(), RateLimiter::compile(limit, previous))
    };
    config.rate_limits.iter().map(compile).collect()
}

fn identity_headers(config: &Config) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for authenticator in &config.authenticators {
        for (_, name) in &authenticator.jwt.claim_headers {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names
}

fn default_policies(config: &Config, names: &Names) -> Policies {
    let limits = config.defaults.rate_limits.iter().filter_map(|name| names.limiters.get(&name.value));
    Policies {
        max_body: config.defaults.max_body,
        // Nobody is authenticated where no route is: a limit by claim has one shared key there.
        limits: limits.cloned().collect(),
        response_headers: edits([&config.defaults.response_headers]),
        ..Policies::default()
    }
}

fn edits<'e>(all: impl IntoIterator<Item = &'e config::HeaderEdit>) -> Vec<HeaderEdit> {
    all.into_iter()
        .filter(|edit| !(edit.set.is_empty() && edit.remove.is_empty()))
        .map(HeaderEdit::compile)
        .collect()
}

fn compile_route(
    route: &config::Route,
    config: &Config,
    names: &Names,
    ground: &Ground<'_>,
) -> Result<Route, String> {
    Ok(Route {
        name: Arc::from(route.name.as_str()),
        policies: policies(route, config, names),
        action: action(route, names)?,
        keeps_encoded_slashes: route.encoded_slashes == EncodedSlashes::Keep,
        metrics: ground.metrics.route(&route.name),
    })
}

fn policies(route: &config::Route, config: &Config, names: &Names) -> Policies {
    let refs = config.defaults.rate_limits.iter().chain(&route.rate_limits);
    let (limits_by_identity, limits) = refs
        .filter_map(|name| names.limiters.get(&name.value).cloned())
        .partition(|limiter| limiter.needs_identity());
    Policies {
        cors: route.cors.as_ref().map(Cors::compile),
        max_body: route.max_body.or(config.defaults.max_body),
        limits,
        authenticate: route.authenticate.as_ref().and_then(|authenticate| {
            Authentication::compile(authenticate, |name| names.authenticators.get(name).cloned())
        }),
        authorize: Authorization::compile(&route.authorize),
        limits_by_identity,
        request_headers: HeaderEdit::compile(&route.request_headers),
        response_headers: edits([&config.defaults.response_headers, &route.response_headers]),
    }
}

fn action(route: &config::Route, names: &Names) -> Result<Action, String> {
    let parameters = parameter_names(&route.matches.path);
    let service = |name: &config::Ref| {
        names.services.get(&name.value).cloned().ok_or_else(|| format!("there is no service {}", name.value))
    };
    let template = |template: &config::Template| {
        Template::path(template, &parameters).map_err(|error| error.to_string())
    };
    Ok(match &route.action {
        config::Action::Forward(forward) => {
            let service = service(&forward.service)?;
            Action::Forward(Forward {
                rewrite: match &forward.rewrite {
                    config::Rewrite::None => Rewrite::None,
                    config::Rewrite::StripPrefix(prefix) => {
                        Rewrite::StripPrefix(StripPrefix::compile(prefix).map_err(|e| e.to_string())?)
                    }
                    config::Rewrite::Template(to) => Rewrite::Template(template(to)?),
                },
                host: match &forward.host {
                    config::HostHeader::Preserve => HostHeader::Preserve,
                    config::HostHeader::Instance => HostHeader::Instance,
                    config::HostHeader::Fixed(name) => HostHeader::Fixed(interned::bytes(name)),
                },
                service,
            })
        }
        config::Action::Aggregate(aggregate) => {
            let part = |part: &config::Part| -> Result<Part, String> {
                Ok(Part {
                    name: Arc::from(part.name.as_str()),
                    service: service(&part.service)?,
                    path: template(&part.path)?,
                    required: part.required,
                    fallback: part.fallback.clone().into(),
                    max_body: part.max_body,
                })
            };
            let parts = aggregate.parts.iter().map(part).collect::<Result<_, _>>()?;
            Action::Aggregate(Aggregate { parts, timeout: aggregate.timeout })
        }
        config::Action::Redirect(redirect) => Action::Redirect(Redirect {
            to: Template::location(&redirect.to, &parameters).map_err(|error| error.to_string())?,
            status: redirect.status,
        }),
        config::Action::Respond(response) => Action::Respond(Respond::compile(response)),
    })
}
