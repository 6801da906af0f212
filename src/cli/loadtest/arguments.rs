//! The arguments of `gatehouse loadtest`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::outcome::Accepted;
use super::plan::Values;
use super::slo::Objective;
use crate::cli::duration;

/// A bound on files that are sent or read whole.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Load a server and tell how it bears it
#[derive(Clone, Debug, clap::Args)]
#[command(
    override_usage = "gatehouse loadtest [OPTIONS] URL\n       gatehouse loadtest [OPTIONS] -c FILE [URL]\n       \
                      gatehouse loadtest [OPTIONS] --scenario FILE [URL]"
)]
pub struct LoadArgs {
    /// What to request; with a configuration or a scenario, where, if not where it says itself
    #[arg(value_name = "URL", required_unless_present_any = ["config", "scenario"])]
    pub url: Option<String>,
    /// Make requests for the routes of this configuration
    #[arg(short, long, value_name = "FILE", conflicts_with = "scenario", help_heading = "Traffic")]
    pub config: Option<PathBuf>,
    /// Make the requests, and the load, that this file describes
    #[arg(long, value_name = "FILE", help_heading = "Traffic")]
    pub scenario: Option<PathBuf>,
    /// Only this route of the configuration, any number of times
    #[arg(long = "route", value_name = "NAME", requires = "config", help_heading = "Traffic")]
    pub routes: Vec<String>,
    /// How often a route's turn comes, beside 1 for the others, any number of times
    #[arg(long = "weight", value_name = "ROUTE=NUMBER", requires = "config", value_parser = weight, help_heading = "Traffic")]
    pub weights: Vec<(String, u32)>,
    /// What a parameter of paths stands for, any number of times: id=1..1000 or id=a,b [default: 1]
    #[arg(long = "param", value_name = "NAME=VALUES", requires = "config", value_parser = parameter, help_heading = "Traffic")]
    pub parameters: Vec<(String, Values)>,
    /// The token for routes that need one, in place of one signed with the configuration's secret
    #[arg(long, value_name = "TOKEN", requires = "config", help_heading = "Traffic")]
    pub token: Option<String>,
    /// Take operations, and examples of parameters and bodies, from this OpenAPI description
    #[arg(long, value_name = "FILE", requires = "config", help_heading = "Traffic")]
    pub openapi: Option<PathBuf>,
    /// Requests a second, sent when they are due whatever becomes of the others; without it, each connection sends one
    /// request after another
    #[arg(long, value_name = "NUMBER", value_parser = rate, help_heading = "Load")]
    pub rate: Option<f64>,
    /// Connections at once [default: 10; with --rate at most 1000, as many as it takes]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=20_000), help_heading = "Load")]
    pub connections: Option<u32>,
    /// With --http2, requests at once on each connection
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "http2",
        value_parser = clap::value_parser!(u32).range(1..=1000), help_heading = "Load")]
    pub streams: u32,
    /// How long to measure: 500ms, 10s, 5m [default: 10s; with --requests 10m]
    #[arg(long, value_name = "TIME", value_parser = some_time, help_heading = "Load")]
    pub duration: Option<Duration>,
    /// End after so many requests
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Load")]
    pub requests: Option<u64>,
    /// How long to send before measuring
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = bounded_time, help_heading = "Load")]
    pub warmup: Duration,
    /// How long a request may take, its connection included
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = some_time, help_heading = "Load")]
    pub timeout: Duration,
    /// Threads that send [default: one a core, 4 at most]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Load")]
    pub threads: Option<u32>,
    /// The method [default: GET, with --body POST]
    #[arg(short = 'X', long, value_name = "METHOD", help_heading = "Requests")]
    pub method: Option<Method>,
    /// A field, any number of times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field, help_heading = "Requests")]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A file to send as the body
    #[arg(long, value_name = "FILE", help_heading = "Requests")]
    pub body: Option<PathBuf>,
    /// Statuses that are no errors: 200,404 or 2xx [default: all below 400]
    #[arg(long, value_name = "STATUSES", help_heading = "Requests")]
    pub accept_status: Option<Accepted>,
    /// Speak HTTP/2, with prior knowledge where there is no TLS
    #[arg(long, help_heading = "Connections")]
    pub http2: bool,
    /// Connect there, whatever the URL names
    #[arg(long, value_name = "HOST:PORT", help_heading = "Connections")]
    pub connect: Option<String>,
    /// Trust the certificates in this PEM file, in place of the system's
    #[arg(long, value_name = "FILE", help_heading = "Connections")]
    pub ca: Option<PathBuf>,
    /// Load a server that isn't this machine
    #[arg(long, help_heading = "Connections")]
    pub yes_i_may_load_this: bool,
    /// Whether this holds: p99=20ms,errors=0.1%; the exit code is 1 when it doesn't
    #[arg(long, value_name = "OBJECTIVE", help_heading = "Results")]
    pub slo: Option<Objective>,
    /// Search the highest rate for which --slo holds, from --rate on
    #[arg(long, requires = "slo", conflicts_with_all = ["duration", "requests", "warmup", "scenario"], help_heading = "Results")]
    pub find_max: bool,
    /// Measure what each policy of the configuration's routes costs, with gateways that this starts by itself
    #[arg(long, requires = "config",
        conflicts_with_all = ["url", "duration", "requests", "slo", "compare", "html", "http2"], help_heading = "Results")]
    pub cost: bool,
    /// How long each step of --find-max takes [default: 2s to 30s, for as many requests as --slo needs], or each of six turns
    /// of --cost [default: 500ms]
    #[arg(long, value_name = "TIME", value_parser = some_time, help_heading = "Results")]
    pub step: Option<Duration>,
    /// Tell what has changed since another test, whose --json was written to this file; the exit code is 1 when something is
    /// worse
    #[arg(long, value_name = "FILE", conflicts_with = "find_max", help_heading = "Results")]
    pub compare: Option<PathBuf>,
    /// Write a report to this file, for a browser
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub html: Option<PathBuf>,
    /// Write the results as JSON to stdout; the table goes to stderr
    #[arg(long, help_heading = "Results")]
    pub json: bool,
}

/// Why there is no test.
#[derive(Debug)]
pub enum Refused {
    /// The arguments don't fit.
    Usage(String),
    /// They do, but something is not there.
    Missing(String),
    /// A configuration is wrong, in words of its own.
    Wrong(String),
}

/// A file that is sent, or read, whole.
pub fn file(path: &Path) -> Result<Bytes, Refused> {
    let read = || -> std::io::Result<Vec<u8>> {
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE_BYTES => {
            Err(Refused::Missing(format!("{} has more than {} MiB", path.display(), MAX_FILE_BYTES >> 20)))
        }
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(Refused::Missing(format!("{} can't be read: {error}", path.display()))),
    }
}

/// `500` or `500/s`
pub fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .strip_suffix("/s")
        .unwrap_or(text)
        .parse()
        .map_err(|_| "write requests a second: 500".to_owned())?;
    if (0.01..=1_000_000.0).contains(&number) {
        Ok(number)
    } else {
        Err("0.01 to 1000000 a second".to_owned())
    }
}

/// More than none.
pub fn some_time(text: &str) -> Result<Duration, String> {
    let time = bounded_time(text)?;
    if time.is_zero() { Err("it takes some time: 10s".to_owned()) } else { Ok(time) }
}

fn bounded_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time > LONGEST { Err("24h are the most".to_owned()) } else { Ok(time) }
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("{text:?} is not of the form ROUTE=NUMBER");
    let (route, number) = text.rsplit_once('=').ok_or_else(wrong)?;
    Ok((route.to_owned(), number.parse().map_err(|_| wrong())?))
}

fn parameter(text: &str) -> Result<(String, Values), String> {
    let (name, values) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form NAME=VALUES"))?;
    Ok((name.to_owned(), Values::parse(values)?))
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("{text:?} is not a field: write \"NAME: VALUE\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    Ok((name.trim().parse().map_err(|_| wrong())?, value.trim().parse().map_err(|_| wrong())?))
}

#[cfg(test)]
pub mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    pub fn args(line: &str) -> Result<LoadArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("loadtest").chain(line.split_whitespace())).map(|line| line.load)
    }

    #[test]
    fn misuse_is_refused() {
        for line in [
            "",
            "http://127.0.0.1/ --rate 0",
            "http://127.0.0.1/ --rate nan",
            "http://127.0.0.1/ --rate 5/m",
            "http://127.0.0.1/ --connections 0",
            "http://127.0.0.1/ --streams 2",
            "http://127.0.0.1/ --duration 0s",
            "http://127.0.0.1/ --duration 25h",
            "http://127.0.0.1/ --requests 0",
            "http://127.0.0.1/ --header nonsense",
            "http://127.0.0.1/ --accept-status fine",
            "http://127.0.0.1/ --threads 65",
            "http://127.0.0.1/ --route users",
            "-c a.yaml --scenario b.yaml",
            "-c a.yaml --weight users",
            "-c a.yaml --param id",
            "-c a.yaml --param id=3..1",
            "http://127.0.0.1/ --find-max",
            "http://127.0.0.1/ --find-max --slo p99=1s --duration 1s",
            "http://127.0.0.1/ --slo fast",
            "http://127.0.0.1/ --cost",
            "-c a.yaml --cost --slo p99=1s",
        ] {
            assert!(args(line).is_err(), "{line}");
        }
    }
}
