//! Arguments → the plan that they ask for: one URL, a configuration's routes, or a scenario.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, header};

use super::arguments::{LoadArgs, Refused, file};
use super::endpoint::{self, Access, Address, EndpointError};
use super::find_max;
use super::plan::{self, Endpoint, Load, PathPiece, Plan, Target};
use super::scenario::Scenario;
use super::shape::Shape;
use super::traffic::openapi::OpenApi;
use super::traffic::{Traffic, Wishes};
use crate::cli::spell_causes;
use crate::config::Config;

const USUAL_DURATION: Duration = Duration::from_secs(10);
/// When the number of requests is what ends it.
const UNTIL_COUNTED: Duration = Duration::from_secs(600);
const MOST_THREADS: usize = 4;
const CLOSED_CONNECTIONS: usize = 10;
const OPEN_CONNECTIONS: usize = 1000;
/// Enough to keep one worker busy.
const TURN_CONNECTIONS: f64 = 4.0;
const USUAL_TURN: Duration = Duration::from_millis(500);
/// Tokens outlive the test.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// A plan, and what whoever asked for it should know.
pub struct Prepared {
    pub plan: Plan,
    pub notes: Vec<String>,
}

impl LoadArgs {
    /// # Errors
    ///
    /// When the arguments make no test, or what they name is not there.
    pub fn prepare(&self) -> Result<Prepared, Refused> {
        if let Some(path) = &self.config {
            let config = crate::cli::load(path).map_err(Refused::Wrong)?;
            return self.prepare_routes(&config);
        }
        if let Some(path) = &self.scenario {
            let refused = |why: String| Refused::Missing(format!("{}: {why}", path.display()));
            let scenario = Scenario::parse(&text(path)?).map_err(refused)?;
            let load = self.load_or(scenario.load().map_err(refused)?)?;
            let targets = scenario.targets(&self.fields(), self.accept_status.as_ref()).map_err(refused)?;
            let base = self.url.as_deref().or(scenario.target.as_deref());
            let base = base.ok_or_else(|| Refused::Usage("the scenario has no target: name a URL".into()))?;
            let plan = self.plan_of(self.endpoint(&address(base)?)?, targets, load)?;
            return Ok(Prepared { plan, notes: Vec::new() });
        }
        let address = address(self.url.as_deref().unwrap_or_default())?;
        let target = Target {
            name: address.path.clone(),
            weight: 1,
            method: self.method(),
            host: None,
            path: vec![PathPiece::Literal(address.path.clone())],
            headers: self.fields(),
            body: self.body.as_deref().map(file).transpose()?.unwrap_or_default(),
            accepted: self.accept_status.clone().unwrap_or_default(),
        };
        let plan = self.plan_of(self.endpoint(&address)?, vec![target], self.load())?;
        Ok(Prepared { plan, notes: Vec::new() })
    }

    fn prepare_routes(&self, config: &Config) -> Result<Prepared, Refused> {
        let base = match &self.url {
            Some(url) => url.clone(),
            None => listening(config).map_err(Refused::Usage)?,
        };
        let endpoint = self.endpoint(&address(&base)?)?;
        let traffic = Traffic::of(config, &self.wishes()?, SystemTime::now()).map_err(Refused::Usage)?;
        let notes =
            traffic.left_out.iter().map(|(route, why)| format!("route {route} is left out: {why}")).collect();
        let plan = self.plan_of(endpoint, traffic.targets, self.load())?;
        Ok(Prepared { plan, notes })
    }

    pub fn wishes(&self) -> Result<Wishes, Refused> {
        let openapi = self.openapi.as_deref().map(|path| {
            let refused = |why: String| Refused::Missing(format!("{}: {why}", path.display()));
            OpenApi::parse(&text(path)?).map_err(refused)
        });
        Ok(Wishes {
            routes: self.routes.clone(),
            weights: self.weights.iter().cloned().collect(),
            parameters: self.parameters.iter().cloned().collect(),
            body: self.body.as_deref().map(file).transpose()?,
            token: self.token.clone(),
            headers: self.fields(),
            accepted: self.accept_status.clone(),
            openapi: openapi.transpose()?,
            life: self.load().shape().duration() + TOKEN_LIFE,
        })
    }

    pub fn plan_of(&self, endpoint: Endpoint, targets: Vec<Target>, load: Load) -> Result<Plan, Refused> {
        let turns = plan::turns(&targets).map_err(Refused::Usage)?;
        for target in &targets {
            let request = target.request(&endpoint, 0);
            request.map_err(|error| {
                Refused::Usage(format!("{}: no request can be made: {error}", target.name))
            })?;
        }
        let usual = match load {
            Load::Open(_) => OPEN_CONNECTIONS,
            // A scenario says how many at once.
            Load::Closed(ref shape) => {
                (shape.highest().ceil() as usize).div_ceil(self.streams as usize).max(1)
            }
        };
        let connections = self.connections.map_or(usual, |number| number as usize);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads =
            self.threads.map_or(cores.min(MOST_THREADS), |threads| threads as usize).min(connections);
        Ok(Plan {
            endpoint,
            targets,
            turns,
            load,
            warmup: self.warmup,
            requests: self.requests,
            timeout: self.timeout,
            connections,
            streams: self.streams as usize,
            threads,
        })
    }

    /// What the scenario says, unless the command line does.
    fn load_or(&self, described: Option<Load>) -> Result<Load, Refused> {
        match described {
            Some(load) if self.rate.is_none() && self.duration.is_none() => {
                if !self.warmup.is_zero() && self.warmup >= load.shape().duration() {
                    return Err(Refused::Usage("--warmup is as long as the scenario".into()));
                }
                Ok(load)
            }
            _ => Ok(self.load()),
        }
    }

    /// The load of one turn of one variant, of whose cost there are several.
    pub fn turn(&self) -> Load {
        let time = self.step.unwrap_or(USUAL_TURN) + self.warmup;
        let connections = self.connections.map_or(TURN_CONNECTIONS, f64::from);
        match self.rate {
            Some(rate) => Load::Open(Shape::constant(rate, time)),
            None => Load::Closed(Shape::constant(connections, time)),
        }
    }

    /// Open with a rate, else closed; constant either way.
    fn load(&self) -> Load {
        let usual = if self.requests.is_some() { UNTIL_COUNTED } else { USUAL_DURATION };
        let duration = self.warmup + self.duration.unwrap_or(usual);
        let connections = self.connections.map_or(CLOSED_CONNECTIONS, |number| number as usize);
        match self.rate.or(self.find_max.then_some(find_max::FIRST)) {
            Some(rate) => Load::Open(Shape::constant(rate, duration)),
            None => Load::Closed(Shape::constant((connections * self.streams as usize) as f64, duration)),
        }
    }

    pub fn endpoint(&self, address: &Address) -> Result<Endpoint, Refused> {
        let access = Access {
            connect: self.connect.as_deref(),
            http2: self.http2,
            ca: self.ca.as_deref(),
            may_load_others: self.yes_i_may_load_this,
        };
        endpoint::endpoint(address, &access).map_err(|error| {
            let told = spell_causes(&error);
            match error {
                EndpointError::NotLoopback { .. } | EndpointError::NoAddress(_) => Refused::Usage(told),
                _ => Refused::Missing(told),
            }
        })
    }

    fn method(&self) -> Method {
        let usual = if self.body.is_some() { Method::POST } else { Method::GET };
        self.method.clone().unwrap_or(usual)
    }

    pub fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in &self.headers {
            fields.append(name, value.clone());
        }
        if !fields.contains_key(header::USER_AGENT) {
            fields.insert(header::USER_AGENT, HeaderValue::from_static("gatehouse-loadtest"));
        }
        fields
    }
}

fn address(url: &str) -> Result<Address, Refused> {
    url.parse().map_err(|error| Refused::Usage(spell_causes(&error)))
}

pub fn text(path: &std::path::Path) -> Result<String, Refused> {
    String::from_utf8(file(path)?.into())
        .map_err(|_| Refused::Missing(format!("{} is not UTF-8 text", path.display())))
}

/// Where a client on this machine reaches the gateway: without TLS where that's possible.
fn listening(config: &Config) -> Result<String, String> {
    let listener =
        config.listeners.iter().find(|listener| listener.tls.is_none()).or(config.listeners.first());
    let listener = listener.ok_or("the configuration has no listener: name a URL")?;
    let address = listener.bind.value;
    if address.port() == 0 {
        return Err(format!("the kernel chooses the port of listener {:?}: name a URL", listener.name.value));
    }
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let host = match address.ip() {
        IpAddr::V4(ip) if !ip.is_unspecified() => ip.to_string(),
        IpAddr::V6(ip) if !ip.is_unspecified() => format!("[{ip}]"),
        _ => "127.0.0.1".to_owned(),
    };
    Ok(format!("{scheme}://{host}:{}", address.port()))
}

#[cfg(test)]
mod tests {
    use super::super::arguments::tests::args;
    use super::*;

    fn plan(line: &str) -> Plan {
        args(line).expect(line).prepare().unwrap_or_else(|refused| panic!("{line}: {refused:?}")).plan
    }

    #[test]
    fn a_rate_makes_it_open_and_connections_closed() {
        let seconds = Duration::from_secs;
        let open = plan("http://127.0.0.1/ --rate 500/s --duration 4s --warmup 1s");
        assert_eq!(open.load, Load::Open(Shape::constant(500.0, seconds(5))));
        assert_eq!((open.connections, open.frame().duration), (1000, seconds(4)));
        let closed = plan("http://127.0.0.1/ --connections 3 --http2 --streams 4 --requests 7");
        assert_eq!(closed.load, Load::Closed(Shape::constant(12.0, seconds(600))));
        assert_eq!((closed.connections, closed.streams, closed.requests), (3, 4, Some(7)));
        assert!(closed.threads <= 3);
        assert_eq!(plan("http://127.0.0.1/").load, Load::Closed(Shape::constant(10.0, seconds(10))));
    }

    #[test]
    fn requests_are_as_they_are_asked_for() {
        let made =
            plan("http://127.0.0.1/a?b=c -X PUT -H x-a:1 -H X-A:2 --body Cargo.toml --accept-status 2xx");
        let target = &made.targets[0];
        assert_eq!((target.name.as_str(), &target.method), ("/a?b=c", &Method::PUT));
        assert_eq!(target.headers.get_all("x-a").iter().count(), 2);
        assert!(target.headers.contains_key("user-agent") && !target.body.is_empty());
        assert!(!target.accepted.accepts(302));
        assert_eq!(plan("http://127.0.0.1/ --body Cargo.toml").targets[0].method, Method::POST);
    }

    #[test]
    fn a_configuration_says_where_and_what() {
        let made = plan("-c examples/routing.yaml --route user-profile --param id=5..6 --rate 10");
        assert_eq!((made.endpoint.name.as_str(), made.targets.len()), ("http://127.0.0.1:8000", 1));
        let request = made.targets[0].request(&made.endpoint, 1).expect("a good one");
        assert_eq!(request.uri(), "/api/users/6/profile");
        assert_eq!(plan("-c examples/routing.yaml").targets.len(), 5);
    }

    #[test]
    fn what_does_not_fit_is_told_from_what_is_not_there() {
        for line in [
            "nowhere",
            "http://192.0.2.1/",
            "http://127.0.0.1/ --connect here",
            "-c examples/routing.yaml --route nobody",
        ] {
            let refused = args(line).expect(line).prepare().err().expect(line);
            assert!(matches!(refused, Refused::Usage(_)), "{line}: {refused:?}");
        }
        for line in
            ["https://127.0.0.1/ --ca /no.pem", "http://127.0.0.1/ --body /no.json", "--scenario Cargo.toml"]
        {
            let refused = args(line).expect(line).prepare().err().expect(line);
            assert!(matches!(refused, Refused::Missing(_)), "{line}: {refused:?}");
        }
    }
}
