//! `forward` and `redirect`, and what an action takes from the route's match.

use http::{HeaderValue, StatusCode};
use serde_json::Value as Json;

use super::references::ServiceRef;
use super::response::Fallback;
use super::route::{path_parameters, unknown_parameter};
use super::stale::StaleIfErrorValue;
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{
    At, BreakerGiven, Forward, Hedging, HostHeader, Match, Overrides, PathMatch, Redirect, Ref, RetriesGiven,
    Rewrite, TimeoutsGiven,
};
use crate::config::reader::{Form, Reader};
use crate::config::source::Span;
use crate::config::values::http::is_host;
use crate::config::values::path::PrefixPath;
use crate::config::values::template::{LocationTemplate, PathTemplate, names};
use crate::config::values::text_schema;
use crate::config::values::units::FinalStatus;
use crate::config::yaml::Node;

/// What an action takes from the match of its route.
#[derive(Default)]
pub(super) struct Uses {
    /// Names of parameters and where they are used.
    pub parameters: Vec<(String, Span)>,
    pub strip_prefix: Option<At<String>>,
}

impl Uses {
    /// Whether the match has all of it; problems are told for what it hasn't.
    pub fn fit(&self, matches: &Match, reader: &mut Reader<'_>) -> bool {
        let known = path_parameters(matches);
        let mut right = true;
        for (name, span) in self.parameters.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            unknown_parameter(name, *span, matches, reader);
            right = false;
        }
        if let Some(strip) = &self.strip_prefix
            && let PathMatch::Path(path) | PathMatch::Prefix(path) = &matches.path
            && !begins_with(&path.value, &strip.value)
            && !begins_with(&strip.value, &path.value)
        {
            let message = "the paths of this route don't begin with that";
            let remedy = format!("write a beginning of {}, by whole segments", path.value);
            reader.error(strip.span, message, remedy);
            right = false;
        }
        right
    }
}

/// By whole segments.
fn begins_with(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `forward` as written.
pub(super) struct ForwardBody {
    pub forward: Forward,
    pub uses: Uses,
}

block! {
    /// Send the request to a service.
    "a forward block" ForwardBlock => ForwardBody {
        /// The name of a service.
        service: ServiceRef ["user-service"],
        /// Taken off the front of the path, by whole segments.
        strip_prefix: At<PrefixPath>,
        /// A new path, with `{name}` for the parameters of the route's path. The query is kept.
        rewrite: At<PathTemplate>,
        /// The Host that the service sees: preserve (the default), instance, or a fixed name.
        host: HostHeader,
        /// For this route; what is not given is the service's.
        retries: RetriesGiven,
        /// For this route; what is not given is the service's.
        timeouts: TimeoutsGiven,
        /// Instead of the service's.
        hedging: Hedging,
        /// What is not given is the service's. With more than `failures` it is a breaker of the route's own.
        circuit_breaker: BreakerGiven,
        /// Instead of the service's.
        fallback: Fallback,
        /// Keep the last good answers for so long, and give them where there would be an error. Default: not done.
        stale_if_error: StaleIfErrorValue,
    }
    later { "split", "mirror", "load_balancing", "health_check", "pool", "concurrency", "sticky" }
}

impl ForwardBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<ForwardBody> {
        let (strip_prefix, rewrite) = (self.strip_prefix.optional(), self.rewrite.optional());
        let overrides =
            overrides(self.retries, self.timeouts, self.hedging, self.circuit_breaker, self.fallback);
        let stale_if_error = self.stale_if_error.optional::<StaleIfErrorValue>();
        let (service, host) = (self.service.required::<Ref>(), self.host.or(HostHeader::Preserve));
        let (strip_prefix, rewrite): (Option<At<PrefixPath>>, Option<At<PathTemplate>>) =
            (strip_prefix?, rewrite?);
        let mut uses = Uses::default();
        let rewrite = match (strip_prefix, rewrite) {
            (None, None) => Rewrite::None,
            (Some(strip), None) => {
                uses.strip_prefix = Some(At { value: strip.value.0.clone(), span: strip.span });
                Rewrite::StripPrefix(strip.value.0)
            }
            (None, Some(At { value: PathTemplate(template), span })) => {
                uses.parameters = names(&template).into_iter().map(|name| (name.to_owned(), span)).collect();
                Rewrite::Template(template)
            }
            (Some(strip), Some(rewrite)) => {
                let span = strip.span.max(rewrite.span);
                reader.error(span, "both `strip_prefix` and `rewrite` are given", "keep one of them");
                return None;
            }
        };
        let overrides = Some(overrides?).filter(|overrides| *overrides != Overrides::default()).map(Box::new);
        let stale_if_error = stale_if_error?.map(|value| value.0);
        let forward = Forward { service: service?, rewrite, host: host?, overrides, stale_if_error };
        Some(ForwardBody { forward, uses })
    }
}

fn overrides(
    retries: Field<RetriesGiven>,
    timeouts: Field<TimeoutsGiven>,
    hedging: Field<Hedging>,
    circuit_breaker: Field<BreakerGiven>,
    fallback: Field<Fallback>,
) -> Option<Overrides> {
    let (retries, timeouts) = (retries.or(RetriesGiven::default()), timeouts.or(TimeoutsGiven::default()));
    Some(Overrides {
        retries: retries?,
        timeouts: timeouts?,
        hedging: hedging.optional()?,
        circuit_breaker: circuit_breaker.or(BreakerGiven::default())?,
        fallback: fallback.optional()?,
    })
}

impl Value for HostHeader {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form {
            name: "a host to send",
            remedy: "write preserve, instance, or a name as in users.internal or users.internal:8080",
        };
        reader.parse(node, &form, |text| match text {
            "preserve" => Ok(HostHeader::Preserve),
            "instance" => Ok(HostHeader::Instance),
            _ => {
                let (host, port) = match text.rsplit_once(':') {
                    Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
                    _ => (text, None),
                };
                let port = port.is_none_or(|port| port.parse::<u16>().is_ok());
                match HeaderValue::from_str(text) {
                    Ok(value) if port && is_host(host) => Ok(HostHeader::Fixed(value)),
                    _ => Err(None),
                }
            }
        })
    }

    fn schema() -> Json {
        text_schema("[A-Za-z0-9._:\\[\\]-]+")
    }
}

/// `redirect` as written.
pub(super) struct RedirectBody {
    pub redirect: Redirect,
    pub uses: Uses,
}

block! {
    /// Send the client elsewhere.
    "a redirect" RedirectBlock => RedirectBody {
        /// A URL or a path, with `{name}` for the parameters of the route's path.
        to: At<LocationTemplate> ["https://www.example.com/"],
        /// 301, 302, 303, 307 or 308. Default 308.
        status: At<FinalStatus>,
    }
}

impl RedirectBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<RedirectBody> {
        let (to, status) =
            (self.to.required::<At<LocationTemplate>>(), self.status.optional::<At<FinalStatus>>());
        let status = match status? {
            None => StatusCode::PERMANENT_REDIRECT,
            Some(status) if matches!(status.value.0.as_u16(), 301 | 302 | 303 | 307 | 308) => status.value.0,
            Some(status) => {
                let message = format!("{} is not the status of a redirect", status.value.0.as_u16());
                reader.error(status.span, message, "write 301, 302, 303, 307 or 308");
                return None;
            }
        };
        let At { value: LocationTemplate(to), span } = to?;
        let parameters = names(&to).into_iter().map(|name| (name.to_owned(), span)).collect();
        Some(RedirectBody {
            redirect: Redirect { to, status },
            uses: Uses { parameters, strip_prefix: None },
        })
    }
}
