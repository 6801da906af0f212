//! The compiled, immutable form of a configuration: what requests run against.
//!
//! Compiling takes over from the snapshot before what must live on: services with their instances,
//! breakers and health, limiters with their counts, authenticators with the keys they fetched. Every name is
//! resolved here; a request looks nothing up by configuration name.

mod policies;
mod stale;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderName;

use crate::action::{
    Action, Aggregate, AggregateGround, Batch, Forward, HostHeader, Redirect, Respond, Rewrite,
};
use crate::config::{self, Config, Problems};
use crate::http::forwarded::TrustedProxies;
use crate::http::interned;
use crate::http::template::{StripPrefix, Template};
use crate::memory::Memory;
use crate::policy::Policies;
use crate::policy::authenticate::{Authenticator, CertificateRule};
use crate::policy::ip_filter::IpFilter;
use crate::policy::maintenance::Switch;
use crate::policy::rate_limit::RateLimiter;
use crate::route::{Table, parameter_names};
use crate::service::{BreakerOf, RouteBreaker, Service, SystemRoots, UpstreamTls};
use crate::telemetry::metrics::{Metrics, RouteMetrics};

pub use stale::RouteStale;

pub struct Snapshot {
    /// Counts the configurations applied since the start, from 1.
    pub generation: u64,
    pub routes: Table<Route>,
    /// The policies of replies to requests that no route takes.
    pub defaults: Policies,
    pub services: Vec<Arc<Service>>,
    pub authenticators: Vec<Arc<Authenticator>>,
    pub limiters: Vec<Arc<RateLimiter>>,
    /// What routes and parts keep for the time of errors.
    pub stale: Vec<RouteStale>,
    /// Routes with breakers of their own, each with the name of its service.
    pub route_breakers: Vec<(String, RouteBreaker)>,
    pub trusted_proxies: TrustedProxies,
    pub request_id_header: HeaderName,
    /// Fields by which authenticators tell services who asks; nobody else may set them.
    pub identity_headers: Vec<HeaderName>,
    /// Fields by which a POST may ask some route to be taken for another method.
    pub override_headers: Vec<HeaderName>,
    /// What maintenance depends on.
    pub switches: Vec<Arc<Switch>>,
    /// Where there is a limit to it.
    pub memory: Option<Arc<Memory>>,
}

impl Snapshot {
    /// There is no memory for another request.
    pub fn is_out_of_memory(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.is_full())
    }

    /// It serves from now on: what is shared with the snapshot before obeys it.
    pub fn take_effect(&self) {
        let mut own: HashMap<&str, Vec<RouteBreaker>> = HashMap::new();
        for (service, breaker) in &self.route_breakers {
            own.entry(service).or_default().push(breaker.clone());
        }
        for service in &self.services {
            service.take_effect();
            service.instances.keep_breakers(own.remove(&*service.name).unwrap_or_default());
        }
    }
}

/// Among many routes each is out of the nearer caches when its request comes, so it is small: what several of
/// them have alike is there once, and the name is that of the metrics.
pub struct Route {
    pub policies: Arc<Policies>,
    pub action: Arc<Action>,
    pub metrics: Arc<RouteMetrics>,
}

/// One cache line, with what the table keeps beside it.
const _: () = assert!(size_of::<Route>() <= 24);

impl Route {
    pub fn name(&self) -> &Arc<str> {
        self.metrics.name()
    }
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
        services: services(config, ground, &mut problems),
        authenticators: authenticators(config, ground, &mut problems),
        limiters: limiters(config, ground),
        certificate_rules: policies::certificate_rules(config),
        switches: policies::switches(config, ground),
        ip_filter: policies::default_ip_filter(config, &mut problems),
    };
    let defaults = policies::defaults(config, &names);
    let mut routes = Vec::with_capacity(config.routes.len());
    let (mut kept, mut route_breakers) = (Vec::new(), Vec::new());
    let (mut known_policies, mut known_actions) =
        (Known::new(policies::are_alike), Known::new(have_same_action));
    let before = Before::of(ground);
    let written: Written<'_> = config.services.iter().map(|service| (&**service.name, service)).collect();
    for route in &config.routes {
        let policies =
            known_policies.like(route, || Ok(policies::compile(route, config, &names, &mut problems)));
        let own =
            Own { stale: stale::of_route(route, &before.stale), breaker: route_breaker(route, &before) };
        let action = known_actions.like(route, || action(route, &written, &names, &own));
        kept.extend(own.stale);
        route_breakers.extend(own.breaker);
        match policies.and_then(|policies| Ok((policies, action?))) {
            Ok((policies, action)) => {
                let metrics = ground.metrics.route(&route.name);
                routes.push((route.matches.clone(), Route { policies, action, metrics }));
            }
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
        stale: kept,
        route_breakers,
        trusted_proxies: TrustedProxies::compile(&config.trusted_proxies),
        request_id_header: config.defaults.request_id_header.clone(),
        identity_headers: identity_headers(config),
        override_headers: policies::override_headers(config),
        switches: names.switches.into_values().collect(),
        memory: memory(config, ground),
    })
}

/// Services by their names, as the configuration has them.
type Written<'c> = HashMap<&'c str, &'c config::Service>;

/// What routes of the snapshot before have of their own, by their names: there may be thousands.
struct Before<'g> {
    stale: stale::Before<'g>,
    /// Each with the name of its service.
    breakers: HashMap<&'g str, &'g (String, RouteBreaker)>,
}

impl<'g> Before<'g> {
    fn of(ground: &Ground<'g>) -> Self {
        let breakers = ground.previous.iter().flat_map(|previous| &previous.route_breakers);
        Before {
            stale: stale::before(ground.previous),
            breakers: breakers.map(|known| (&*known.1.route, known)).collect(),
        }
    }
}

struct Names {
    services: HashMap<String, Arc<Service>>,
    authenticators: HashMap<String, Arc<Authenticator>>,
    limiters: HashMap<String, Arc<RateLimiter>>,
    certificate_rules: HashMap<String, Arc<CertificateRule>>,
    switches: HashMap<PathBuf, Arc<Switch>>,
    /// That of `defaults`.
    ip_filter: Option<Arc<IpFilter>>,
}

fn services(config: &Config, ground: &Ground<'_>, problems: &mut Problems) -> HashMap<String, Arc<Service>> {
    let system = SystemRoots::default();
    let before = ground.previous.iter().flat_map(|previous| &previous.services);
    let before: HashMap<&str, &Arc<Service>> = before.map(|service| (&*service.name, service)).collect();
    let compile = |service: &config::Service| {
        let previous = before.get(&**service.name).copied();
        let tls = service.tls.as_ref().and_then(|tls| {
            let previous = previous.and_then(|previous| previous.tls.as_ref());
            UpstreamTls::compile(tls, service.protocol.into(), previous, &system, problems)
        });
        let compiled = Service::compile(service, previous, ground.workers, ground.metrics).over(tls);
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

/// With the same limit it is the same: what was full is full still.
fn memory(config: &Config, ground: &Ground<'_>) -> Option<Arc<Memory>> {
    let limit = config.max_memory?;
    let before = ground.previous.and_then(|previous| previous.memory.clone());
    Some(before.filter(|memory| memory.limit() == limit).unwrap_or_else(|| Arc::new(Memory::new(limit))))
}

fn identity_headers(config: &Config) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    let of_tokens = config.authenticators.iter().flat_map(|a| &a.jwt.claim_headers).map(|(_, name)| name);
    let of_certificates = config.certificate_authenticators.iter().filter_map(|a| a.header.as_ref());
    for name in of_tokens.chain(of_certificates) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// What was compiled already, each with a route that has it.
struct Known<'c, T> {
    all: Vec<(&'c config::Route, Arc<T>)>,
    are_alike: fn(&config::Route, &config::Route) -> bool,
}

impl<'c, T> Known<'c, T> {
    /// However many routes there are, each is compared to so many only.
    const MAX: usize = 64;

    fn new(are_alike: fn(&config::Route, &config::Route) -> bool) -> Self {
        Known { all: Vec::new(), are_alike }
    }

    /// What a route like this one has, or what is compiled for it.
    fn like(
        &mut self,
        route: &'c config::Route,
        compile: impl FnOnce() -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        if let Some((_, known)) = self.all.iter().find(|(other, _)| (self.are_alike)(route, other)) {
            return Ok(known.clone());
        }
        let compiled = Arc::new(compile()?);
        if self.all.len() < Self::MAX {
            self.all.push((route, compiled.clone()));
        }
        Ok(compiled)
    }
}

/// Whether [`action`] makes the same of both, whatever the parameters of their paths.
fn have_same_action(one: &config::Route, other: &config::Route) -> bool {
    match (&one.action, &other.action) {
        (config::Action::Forward(forward), config::Action::Forward(_)) => {
            !matches!(forward.rewrite, config::Rewrite::Template(_))
                && !has_something_of_its_own(forward)
                && one.action == other.action
        }
        (config::Action::Respond(_), config::Action::Respond(_)) => one.action == other.action,
        _ => false,
    }
}

/// Whether it needs what [`Own`] has.
fn has_something_of_its_own(forward: &config::Forward) -> bool {
    let has_breaker = forward.overrides.as_ref().is_some_and(|overrides| overrides.circuit_breaker.is_own());
    has_breaker || forward.stale_if_error.is_some()
}

/// What a route has of its own beside its service, and keeps over reloads.
struct Own {
    stale: Vec<RouteStale>,
    breaker: Option<(String, RouteBreaker)>,
}

/// The breaker that the route has of its own, if it has: that of the snapshot before, where it goes to the same service.
fn route_breaker(route: &config::Route, before: &Before<'_>) -> Option<(String, RouteBreaker)> {
    let config::Action::Forward(forward) = &route.action else { return None };
    forward.overrides.as_ref().filter(|overrides| overrides.circuit_breaker.is_own())?;
    let service = &forward.service.value;
    let known = before.breakers.get(&**route.name).copied().filter(|(name, _)| name == service);
    Some(known.cloned().unwrap_or_else(|| {
        let own = RouteBreaker { route: route.name.as_str().into(), of: BreakerOf::another_route() };
        (service.clone(), own)
    }))
}

fn action(route: &config::Route, written: &Written<'_>, names: &Names, own: &Own) -> Result<Action, String> {
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
            let stale = own.stale.first().map(RouteStale::of_call);
            let breaker = own.breaker.as_ref().map_or(BreakerOf::SERVICE, |(_, own)| own.of);
            let service = match (&forward.overrides, written.get(&*forward.service.value)) {
                (None, _) if stale.is_none() => service,
                (overrides, Some(written)) => service.overridden(
                    written,
                    overrides.as_deref().unwrap_or(&Default::default()),
                    stale,
                    breaker,
                ),
                (_, None) => service,
            };
            Action::Forward(Forward {
                rewrite: match &forward.rewrite {
                    config::Rewrite::None => Rewrite::None,
                    config::Rewrite::StripPrefix(prefix) => {
                        Rewrite::StripPrefix(StripPrefix::compile(prefix).map_err(|e| e.to_string())?)
                    }
                    config::Rewrite::Template(to) => Rewrite::Template(Box::new(template(to)?)),
                },
                host: match &forward.host {
                    config::HostHeader::Preserve => HostHeader::Preserve,
                    config::HostHeader::Instance => HostHeader::Instance,
                    config::HostHeader::Fixed(name) => HostHeader::Fixed(Box::new(interned::bytes(name))),
                },
                service,
            })
        }
        config::Action::Aggregate(aggregate) => {
            let of_part = |part: &config::Part| part_service(part, &service, written, own);
            let ground = AggregateGround { parameters: &parameters, service: &of_part };
            Action::Aggregate(Arc::new(Aggregate::compile(aggregate, &ground)?))
        }
        config::Action::Batch(batch) => Action::Batch(Box::new(Batch::compile(batch))),
        config::Action::Redirect(redirect) => Action::Redirect(Box::new(Redirect {
            to: Template::location(&redirect.to, &parameters).map_err(|error| error.to_string())?,
            status: redirect.status,
        })),
        config::Action::Respond(response) => Action::Respond(Box::new(Respond::compile(response))),
    })
}

/// The service of a part, as that wants it.
fn part_service(
    part: &config::Part,
    service: &dyn Fn(&config::Ref) -> Result<Arc<Service>, String>,
    written: &Written<'_>,
    own: &Own,
) -> Result<Arc<Service>, String> {
    let call = part.call().ok_or_else(|| format!("nobody is asked for the part {}", part.name))?;
    let service = service(&call.service)?;
    let kept = own.stale.iter().find(|kept| kept.part.as_ref() == Some(&part.name));
    let overrides = config::Overrides {
        retries: call.retries.clone(),
        hedging: call.hedging,
        ..config::Overrides::default()
    };
    let is_as_written = kept.is_none() && overrides == config::Overrides::default();
    Ok(match written.get(&*call.service.value) {
        Some(written) if !is_as_written => {
            service.overridden(written, &overrides, kept.map(RouteStale::of_call), BreakerOf::SERVICE)
        }
        _ => service,
    })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::config::Source;
    use crate::http::fields::Fields;
    use crate::route::{Found, Query};

    #[test]
    fn routes_share_the_policies_that_they_have_alike_and_no_others() {
        let routes = [
            "",
            "",
            ", max_body: 1KiB",
            ", rate_limits: [few]",
            ", rate_limits: [few]",
            ", cors: { origins: ['https://a.example'] }",
            ", authenticate: { with: [shop] }",
            ", authenticate: { with: [shop], methods: [POST] }",
            ", authenticate: { with: [shop] }, authorize: { claims: { role: [admin] } }",
            ", request_headers: { set: { x-a: b } }",
            ", response_headers: { set: { x-a: b } }",
            ", encoded_slashes: keep",
        ];
        let mut text = "listeners: [{ name: http, bind: 127.0.0.1:0 }]\n\
            authenticators: { shop: { jwt: { algorithms: [HS256], issuer: i, \
            keys: [{ secret: 0123456789abcdef0123456789abcdef }] } } }\n\
            rate_limits: { few: { key: ip, rate: 1/s } }\nroutes:\n"
            .to_owned();
        for (n, policies) in routes.iter().enumerate() {
            let route =
                format!("{{ name: r{n}, match: {{ path: /{n} }}, respond: {{ text: x }}{policies} }}");
            text.extend(["  - ", &route, "\n"]);
        }
        let source = Source { path: "gateway.yaml".into(), text: text.into() };
        let loaded = config::load(&source, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}"));
        let ground = Ground { previous: None, metrics: &Metrics::new(1), workers: 1 };
        let snapshot = compile(&loaded.config, &ground).unwrap_or_else(|problems| panic!("{problems:?}"));
        let policies = |path: &str| {
            let query = Query { host: "h", path, method: &Method::GET, headers: &Fields::new(), query: None };
            let Found::Route { place, .. } = snapshot.routes.find(&query) else { panic!("{path}") };
            Arc::as_ptr(&snapshot.routes[place].policies)
        };
        for (n, one) in routes.iter().enumerate() {
            for (m, other) in routes.iter().enumerate() {
                let same = policies(&format!("/{n}")) == policies(&format!("/{m}"));
                assert_eq!(same, one == other, "{n} {m}");
            }
        }
    }

    #[test]
    fn routes_share_an_action_that_is_the_same_whatever_their_paths() {
        let routes = [
            ("/{a}/x", "forward: { service: s }"),
            ("/{b}/y", "forward: { service: s }"),
            ("/p/{a}", "forward: { service: s, strip_prefix: /p }"),
            ("/z/{a}", "forward: { service: s, host: instance }"),
            // The same words: a parameter of one is not that of the other.
            ("/t/{a}/{b}", "forward: { service: s, rewrite: '/{b}' }"),
            ("/u/{b}/{a}", "forward: { service: s, rewrite: '/{b}' }"),
            ("/k/{a}", "forward: { service: s, stale_if_error: 10m }"),
            ("/l/{a}", "forward: { service: s, stale_if_error: 10m }"),
            ("/v/{a}", "respond: { text: v }"),
            ("/w/{a}", "respond: { text: v }"),
            ("/x/{a}", "respond: { text: x }"),
            ("/y/{a}", "redirect: { to: '/{a}' }"),
            ("/y/z/{a}", "redirect: { to: '/{a}' }"),
        ];
        let mut text = "listeners: [{ name: http, bind: 127.0.0.1:0 }]\n\
            services: { s: { instances: ['http://127.0.0.1:1'] } }\nroutes:\n"
            .to_owned();
        for (n, (path, action)) in routes.iter().enumerate() {
            text.push_str(&format!("  - {{ name: r{n}, match: {{ path: '{path}' }}, {action} }}\n"));
        }
        let source = Source { path: "gateway.yaml".into(), text: text.into() };
        let loaded = config::load(&source, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}"));
        for (n, one) in loaded.config.routes.iter().enumerate() {
            for (m, other) in loaded.config.routes.iter().enumerate() {
                let shared = [(0, 1), (8, 9)].contains(&(n.min(m), n.max(m)));
                let itself = n == m && !matches!(n, 4..=7 | 11 | 12);
                assert_eq!(have_same_action(one, other), shared || itself, "{n} {m}");
            }
        }
    }
}
