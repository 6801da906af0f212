//! Which addresses may call: networks from the configuration and from files.
//!
//! The client is who the gateway understood it to be: behind a trusted proxy the one that the proxy names.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::config::{self, NetworkSource, Problems};
use crate::http::networks::{Networks, Verdict};

/// Bytes of a file of networks.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Networks of a file.
const MAX_NETWORKS: usize = 1_000_000;

pub struct IpFilter {
    networks: Networks,
    /// Whether those get in that no list names: only where nobody is listed as allowed.
    lets_in_others: bool,
}

impl IpFilter {
    /// `None` when a file can't be used; `problems` says why, at the place that names the file.
    pub fn compile(config: &config::IpFilter, problems: &mut Problems) -> Option<IpFilter> {
        let mut networks = Vec::new();
        let mut whole = true;
        for (sources, verdict) in [(&config.allow, Verdict::Allowed), (&config.deny, Verdict::Denied)] {
            for source in sources {
                match source {
                    NetworkSource::Network(network) => networks.push((*network, verdict)),
                    NetworkSource::File(path) => match read(path) {
                        Ok(listed) => networks.extend(listed.into_iter().map(|network| (network, verdict))),
                        Err(Fault { what, remedy }) => {
                            problems.error(path.span, what, remedy);
                            whole = false;
                        }
                    },
                }
            }
        }
        let networks = Networks::compile(networks);
        whole.then_some(IpFilter { networks, lets_in_others: config.allow.is_empty() })
    }

    pub fn lets_in(&self, client: IpAddr) -> bool {
        match self.networks.verdict(client) {
            Verdict::Allowed => true,
            Verdict::Denied => false,
            Verdict::Unlisted => self.lets_in_others,
        }
    }
}

impl fmt::Debug for IpFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpFilter").field("networks", &self.networks.written()).finish_non_exhaustive()
    }
}

/// Why a file of networks can't be used.
#[derive(Debug, PartialEq)]
struct Fault {
    what: String,
    remedy: &'static str,
}

fn read(path: &Path) -> Result<Vec<IpNet>, Fault> {
    let shown = path.display();
    let fault = |what: String, remedy| Fault { what, remedy };
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    file.map_err(|error| {
        let remedy = "relative paths start at the directory of the configuration file";
        fault(format!("can't read the networks in {shown}: {error}"), remedy)
    })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let what = format!("{shown} has more than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(fault(what, "name a file with one network a line"));
    }
    parse(&bytes)
        .map_err(|Misread { line, what, remedy }| fault(format!("{shown}, line {line}: {what}"), remedy))
}

#[derive(Debug, PartialEq)]
struct Misread {
    /// From 1.
    line: usize,
    what: String,
    remedy: &'static str,
}

/// One network or address a line. Nothing is skipped but comments and blank lines: a list that is read in part lets
/// in whom it was written against.
fn parse(bytes: &[u8]) -> Result<Vec<IpNet>, Misread> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut networks = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let entry = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if entry.is_empty() {
            continue;
        }
        let misread = |what, remedy| Misread { line: index + 1, what, remedy };
        if networks.len() == MAX_NETWORKS {
            let what = format!("there are more than {MAX_NETWORKS} networks");
            return Err(misread(what, "put neighbouring ones together"));
        }
        networks.push(
            network(entry).map_err(|remedy| misread(format!("{} is not a network", shown(entry)), remedy))?,
        );
    }
    Ok(networks)
}

fn network(entry: &[u8]) -> Result<IpNet, &'static str> {
    const REMEDY: &str =
        "write one a line, as in 10.0.0.0/8, fd00::/8 or 192.0.2.7, and `#` before a comment";
    let text = std::str::from_utf8(entry).map_err(|_| REMEDY)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| REMEDY)?;
    match network.trunc() == network {
        true => Ok(network),
        false => Err("the address goes beyond the prefix: end it with zeros, or make the prefix longer"),
    }
}

/// No more than a message can bear.
fn shown(entry: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(entry).chars().take(60).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_network_a_line() {
        let text = b"\xef\xbb\xbf# office\n10.0.0.0/8\r\n  192.0.2.7 # the printer\n\n\tfd00::/8\n#::1";
        let read: Vec<String> = parse(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(read, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]);
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn a_line_that_is_none_is_told_with_its_number() {
        for (text, line, what) in [
            (&b"10.0.0.0/8\n\n10.0.0.0/33\n"[..], 3, "\"10.0.0.0/33\" is not a network"),
            (b"example.com", 1, "\"example.com\" is not a network"),
            (b"10.0.0.0 10.0.0.1", 1, "\"10.0.0.0 10.0.0.1\" is not a network"),
            (b"1\n10.0.0.1/8", 1, "\"1\" is not a network"),
            (b"#\n10.0.0.1/8", 2, "\"10.0.0.1/8\" is not a network"),
            (b"\xff", 1, "\"\u{fffd}\" is not a network"),
            (b"a\0\x1bb", 1, "\"a\\0\\u{1b}b\" is not a network"),
        ] {
            let misread = parse(text).unwrap_err();
            assert_eq!((misread.line, misread.what.as_str()), (line, what));
        }
    }

    #[test]
    fn an_allow_list_keeps_everyone_else_out() {
        let network = |text: &str| NetworkSource::Network(text.parse().unwrap());
        let filter = |allow: &[&str], deny: &[&str]| {
            let list = |texts: &[&str]| texts.iter().map(|text| network(text)).collect();
            let config = config::IpFilter { allow: list(allow), deny: list(deny) };
            IpFilter::compile(&config, &mut Problems::default()).unwrap()
        };
        let lets_in = |filter: &IpFilter, address: &str| filter.lets_in(address.parse().unwrap());
        let both = filter(&["10.0.0.0/8"], &["10.6.6.6/32"]);
        assert!(lets_in(&both, "10.6.6.7") && !lets_in(&both, "10.6.6.6") && !lets_in(&both, "192.0.2.1"));
        assert!(!lets_in(&both, "::1"));
        let denying = filter(&[], &["10.0.0.0/8"]);
        assert!(lets_in(&denying, "192.0.2.1") && lets_in(&denying, "::1") && !lets_in(&denying, "10.0.0.1"));
    }
}
