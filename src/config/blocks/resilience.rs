//! How a service is used: breakers, retries, timeouts, connection pools.

use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Value as Json, json};

use super::part::is_free;
use crate::config::block::{Place, Value, block};
use crate::config::model::{At, BreakerGiven, FailureKind, Pool, RetriesGiven, TimeoutsGiven};
use crate::config::reader::Reader;
use crate::config::values::NonEmpty;
use crate::config::values::http::{Direction, may_edit};
use crate::config::values::units::{Number, Percent, Size, Wait};
use crate::config::yaml::{Kind, Node};

/// A percentage, or `off`.
pub(super) struct Ratio(pub Option<u8>);

impl Value for Ratio {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if is_off(node) {
            return Some(Ratio(None));
        }
        Percent::<1>::read(node, reader).map(|percent| Ratio(Some(percent.0)))
    }

    fn schema() -> Json {
        json!({ "anyOf": [crate::config::values::text_schema("[0-9]+%|off"), { "const": false }] })
    }
}

block! {
    /// When to stop using an instance, and when to try it again.
    "a circuit breaker" BreakerBlock => BreakerGiven {
        /// Failures in a row that open it. Default 5.
        consecutive_failures: Number<1, 1_000_000>,
        /// Share of failures over `window` that opens it; `off` for never. Default 50%.
        failure_ratio: Ratio,
        /// Requests in the window below which the ratio says nothing. Default 20.
        minimum_requests: Number<1, 1_000_000>,
        /// What the ratio looks back on. Default 10s.
        window: Wait,
        /// How long it stays open; doubled each time it opens again. Default 5s.
        open_for: Wait,
        /// The longest it stays open. Default 5m.
        max_open_for: At<Wait>,
        /// Requests let through to see whether the instance is back. Default 1.
        half_open_requests: Number<1, 1000>,
        /// What counts as a failure. Default connect_failure, reset, timeout and 502-504.
        failures: NonEmpty<FailureKind>,
    }
}

impl BreakerBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<BreakerGiven> {
        let open_for = self.open_for.optional::<Duration>()?;
        let max_open_for = self.max_open_for.optional::<At<Wait>>()?;
        if let (Some(open_for), Some(most)) = (open_for, &max_open_for)
            && most.value.0 < open_for
        {
            reader.error(most.span, "max_open_for is shorter than open_for", "make it as long or longer");
            return None;
        }
        Some(BreakerGiven {
            consecutive_failures: self.consecutive_failures.optional()?,
            failure_ratio: self.failure_ratio.optional::<Ratio>()?.map(|Ratio(ratio)| ratio),
            minimum_requests: self.minimum_requests.optional()?,
            window: self.window.optional()?,
            open_for,
            max_open_for: max_open_for.map(|most| most.value.0),
            half_open_requests: self.half_open_requests.optional()?,
            failures: self.failures.optional()?,
        })
    }
}

block! {
    /// When a request is tried again.
    "a retries block" RetriesBlock => RetriesGiven {
        /// Attempts beyond the first; 0 for none. Default 2.
        attempts: Number<0, 10>,
        /// What is tried again. Default connect_failure, reset and 502-504.
        on: Vec<FailureKind>,
        /// Methods of requests that may be repeated. Default GET, HEAD, OPTIONS, PUT and DELETE.
        methods: Vec<Method>,
        /// For one attempt. Default: only the service's timeouts.
        per_attempt_timeout: Wait,
        /// The pause before an attempt, with full jitter.
        backoff: Backoff,
        /// Share of the service's requests of the last 10s that may be retries. Default 20%.
        budget: Percent<0>,
        /// So much of a request's body is kept to be sent again; longer ones are only streamed. Default 64KiB.
        keep_body: Size<0, 16_777_216>,
        /// The head of a response waits for a body of up to so much, so that one that breaks off can be asked for again;
        /// 0 for none. Default 16KiB.
        buffer_response: Size<0, 1_048_576>,
    }
}

impl RetriesBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<RetriesGiven> {
        let backoff: Backoff = self.backoff.or(Backoff { base: None, max: None })?;
        Some(RetriesGiven {
            attempts: self.attempts.optional()?,
            on: self.on.optional()?,
            methods: self.methods.optional()?,
            per_attempt_timeout: self.per_attempt_timeout.optional()?,
            backoff_base: backoff.base,
            backoff_max: backoff.max,
            budget: self.budget.optional()?,
            keep_body: self.keep_body.optional()?,
            buffer_response: self.buffer_response.optional()?,
        })
    }
}

struct Backoff {
    base: Option<Duration>,
    max: Option<Duration>,
}

block! {
    /// The pause before an attempt: random, up to `base` doubled each time, never more than `max`.
    "a backoff block" BackoffBlock => Backoff {
        /// Default 25ms.
        base: Duration,
        /// Default 1s.
        max: At<Duration>,
    }
}

impl BackoffBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Backoff> {
        let (base, max) = (self.base.optional::<Duration>()?, self.max.optional::<At<Duration>>()?);
        if let (Some(base), Some(max)) = (base, &max)
            && max.value < base
        {
            reader.error(max.span, "max is shorter than base", "make it as long or longer");
            return None;
        }
        Some(Backoff { base, max: max.map(|max| max.value) })
    }
}

block! {
    /// How long to wait for an instance.
    "a timeouts block" TimeoutsBlock => TimeoutsGiven {
        /// For a connection. Default 1s.
        connect: Wait,
        /// For the TLS handshake on it. Default 2s.
        tls: Wait,
        /// From the request's being sent to the response's head. Default 15s.
        response: Wait,
        /// Without a byte of a body, either way. Default 60s.
        idle: Wait,
        /// For all of it: waiting, attempts, and the body of the response. Default: no limit.
        total: Wait,
        /// The request's field in which an instance is told how long its answer may take, in milliseconds; in `grpc-timeout` as gRPC has it. Default: it isn't told.
        header: At<HeaderName>,
        /// Without an answer of an instance while others answer, until those are asked as well; `off` for never. Default 1s.
        silence: WaitOrOff,
    }
}

/// A time to wait, or `off`.
struct WaitOrOff(Option<Duration>);

impl Value for WaitOrOff {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if is_off(node) {
            return Some(WaitOrOff(None));
        }
        Wait::read(node, reader).map(|wait| WaitOrOff(Some(wait.0)))
    }

    fn schema() -> Json {
        json!({ "anyOf": [Wait::schema(), crate::config::values::text_schema("off"), { "const": false }] })
    }
}

/// For older YAML, `off` is another way to write false.
fn is_off(node: &Node<'_>) -> bool {
    matches!(&node.kind, Kind::Scalar(scalar) if scalar.text == "off" || scalar.text == "false")
}

impl TimeoutsBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<TimeoutsGiven> {
        let header = self.header.optional::<At<HeaderName>>()?;
        if let Some(At { value: name, span }) = &header
            && (!may_edit(name, Direction::Request, *span, reader) || !is_free(name, *span, reader))
        {
            return None;
        }
        Some(TimeoutsGiven {
            connect: self.connect.optional()?,
            tls: self.tls.optional()?,
            response: self.response.optional()?,
            idle: self.idle.optional()?,
            total: self.total.optional()?,
            header: header.map(|header| header.value),
            silence: self.silence.optional::<WaitOrOff>()?.map(|WaitOrOff(silence)| silence),
        })
    }
}

block! {
    /// Connections to one instance, over all workers.
    "a pool block" PoolBlock => Pool {
        /// Connections open at once. Default 1024.
        max_connections: Number<1, 1_000_000>,
        /// Of them, kept without a request. Default 128.
        max_idle: At<Number<0, 1_000_000>>,
        /// How long one is kept. Default 60s.
        idle_timeout: Wait,
    }
}

impl PoolBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Pool> {
        let default = Pool::default();
        let max_connections = self.max_connections.or(default.max_connections)?;
        let max_idle = match self.max_idle.optional::<At<Number<0, 1_000_000>>>()? {
            None => default.max_idle.min(max_connections),
            Some(max_idle) => {
                let most: usize = max_idle.value.into();
                if most > max_connections {
                    reader.error(
                        max_idle.span,
                        "max_idle is more than max_connections",
                        format!("write {max_connections} or less"),
                    );
                    return None;
                }
                most
            }
        };
        Some(Pool { max_connections, max_idle, idle_timeout: self.idle_timeout.or(default.idle_timeout)? })
    }
}
