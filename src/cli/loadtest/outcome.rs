//! What became of a request.

use serde::{Deserialize, Serialize};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a whole answer. `reason` is the `code` of a problem document, where it is one.
    Answered {
        status: u16,
        bytes: u64,
        reason: Option<String>,
    },
    Failed(Fault, String),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// No connection came about.
    Connect,
    /// The connection is there, but TLS on it is not.
    Tls,
    /// There was no whole answer in time.
    Timeout,
    /// The connection, or the stream, ended before the answer did.
    Reset,
    /// What came is not HTTP.
    Protocol,
    /// It was due, but all connections were in use until the end of the test.
    Unsent,
}

impl Fault {
    pub fn name(self) -> &'static str {
        match self {
            Fault::Connect => "connect",
            Fault::Tls => "tls",
            Fault::Timeout => "timeout",
            Fault::Reset => "reset",
            Fault::Protocol => "protocol",
            Fault::Unsent => "unsent",
        }
    }

    pub fn is_without_connection(self) -> bool {
        matches!(self, Fault::Connect | Fault::Tls)
    }

    /// Whether the time until it is known belongs among the latencies. Waiting in vain does; a connection that
    /// is refused at once would make a dead server look like a fast one.
    pub fn has_latency(self) -> bool {
        matches!(self, Fault::Timeout | Fault::Unsent)
    }
}

/// Statuses that are no errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted(Vec<(u16, u16)>);

impl Default for Accepted {
    fn default() -> Accepted {
        Accepted(vec![(100, 399)])
    }
}

impl Accepted {
    /// And this one.
    pub fn and(mut self, status: u16) -> Accepted {
        self.0.push((status, status));
        self
    }

    pub fn accepts(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl std::str::FromStr for Accepted {
    type Err = String;

    /// `200,404,5xx`
    fn from_str(text: &str) -> Result<Accepted, String> {
        let one = |item: &str| {
            let item = item.trim();
            let class = item.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok());
            match (class, item.parse::<u16>()) {
                (Some(class @ 1..=5), _) => Ok((class * 100, class * 100 + 99)),
                (None, Ok(status @ 100..=599)) => Ok((status, status)),
                _ => Err(format!("{item:?} is neither a status nor a class of them: write 200,404 or 2xx")),
            }
        };
        text.split(',').map(one).collect::<Result<Vec<_>, _>>().map(Accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_accepted_one_by_one_and_by_class() {
        let default = Accepted::default();
        assert!(
            default.accepts(200) && default.accepts(308) && !default.accepts(404) && !default.accepts(500)
        );
        let some: Accepted = "200, 4xx".parse().expect("both are good");
        assert!(some.accepts(200) && some.accepts(429) && !some.accepts(201) && !some.accepts(503));
        for bad in ["", "99", "600", "6xx", "0xx", "2XX", "ok", "200,,201", "-1"] {
            assert!(bad.parse::<Accepted>().is_err(), "{bad}");
        }
    }
}
