//! Where a test goes: a URL, resolved once, and whether it may go there.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use http::Uri;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::plan::Endpoint;

/// How connections are made, as the command line says it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access<'a> {
    /// `HOST:PORT` to connect to in place of the URL's.
    pub connect: Option<&'a str>,
    pub http2: bool,
    /// Certificates that are trusted in place of the system's.
    pub ca: Option<&'a Path>,
    pub may_load_others: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("{0:?} is no URL to load: write http://127.0.0.1:8000/path or https://…")]
    NoUrl(String),
    #[error("{0:?} is not of the form HOST:PORT")]
    NoAddress(String),
    #[error("{0} has no address")]
    Unknown(String, #[source] Option<std::io::Error>),
    #[error(
        "{name} is {address}, which is not this machine: a load test can take others' service down. If it is yours, or \
         its owner knows, say so with --yes-i-may-load-this"
    )]
    NotLoopback { name: String, address: IpAddr },
    #[error("{0} can't be the name of a TLS server")]
    NoServerName(String),
    #[error("the certificates in {0} can't be read")]
    Certificates(String, #[source] std::io::Error),
    #[error("{0} holds no PEM certificate that could be trusted")]
    NoCertificate(String),
}

/// A URL that was taken apart: what to connect to, and the path with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    pub authority: String,
    pub path: String,
}

impl std::str::FromStr for Address {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Address, EndpointError> {
        let wrong = || EndpointError::NoUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let written =
            authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
        let port = match written {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None if tls => 443,
            None => 80,
        };
        if host.is_empty() {
            return Err(wrong());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Address { tls, host: host.to_owned(), port, authority: authority.to_string(), path })
    }
}

/// Resolves the name, and refuses what isn't this machine unless told otherwise.
///
/// # Errors
///
/// When it can't be resolved, may not be loaded, or the certificates aren't there.
pub fn endpoint(address: &Address, access: &Access<'_>) -> Result<Endpoint, EndpointError> {
    let (host, port) = match access.connect {
        Some(text) => host_and_port(text)?,
        None => (address.host.clone(), address.port),
    };
    let addresses = resolve(&host, port)?;
    // One of many is enough for a refusal: any of them may be the one that is connected to.
    let other = addresses.iter().map(SocketAddr::ip).find(|ip| !is_loopback(*ip));
    if let Some(ip) = other.filter(|_| !access.may_load_others) {
        return Err(EndpointError::NotLoopback { name: host, address: ip });
    }
    let tls = address.tls.then(|| tls(address, access)).transpose()?;
    let scheme = if address.tls { "https" } else { "http" };
    Ok(Endpoint {
        name: format!("{scheme}://{}", address.authority),
        addresses,
        tls,
        http2: access.http2,
        authority: address.authority.clone(),
    })
}

fn host_and_port(text: &str) -> Result<(String, u16), EndpointError> {
    let wrong = || EndpointError::NoAddress(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, EndpointError> {
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| EndpointError::Unknown(host.to_owned(), Some(error)))?
        .collect();
    if found.is_empty() { Err(EndpointError::Unknown(host.to_owned(), None)) } else { Ok(found) }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(ip.is_loopback(), |ip| ip.is_loopback()),
    }
}

type Tls = (Arc<rustls::ClientConfig>, ServerName<'static>);

fn tls(address: &Address, access: &Access<'_>) -> Result<Tls, EndpointError> {
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| EndpointError::NoServerName(address.host.clone()))?;
    let mut roots = RootCertStore::empty();
    match access.ca {
        Some(file) => {
            let shown = || file.display().to_string();
            let text = std::fs::read(file).map_err(|error| EndpointError::Certificates(shown(), error))?;
            let all = CertificateDer::pem_slice_iter(&text).filter_map(Result::ok);
            if roots.add_parsable_certificates(all).0 == 0 {
                return Err(EndpointError::NoCertificate(shown()));
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if access.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok((Arc::new(config), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        url.parse().expect(url)
    }

    #[test]
    fn urls_are_taken_apart() {
        let one = address("http://localhost/a?b=c");
        assert_eq!((one.host.as_str(), one.port, one.path.as_str()), ("localhost", 80, "/a?b=c"));
        let two = address("https://[::1]:8443");
        assert_eq!((two.host.as_str(), two.port, two.path.as_str()), ("::1", 8443, "/"));
        assert!(two.tls);
        assert_eq!(address("http://127.0.0.1?a").path, "/?a");
        for bad in [
            "",
            "/a",
            "localhost:80",
            "ftp://a/",
            "http://",
            "http://u:p@a/",
            "http://a:99999/",
            "http://:80/",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_loaded_unasked() {
        let here = Access::default();
        for url in ["http://127.0.0.1:80", "http://[::1]:80", "http://localhost:80", "http://127.9.9.9:80"] {
            assert!(endpoint(&address(url), &here).is_ok(), "{url}");
        }
        for url in ["http://192.0.2.1:80", "http://0.0.0.0:80", "http://[::]:80", "http://[2001:db8::1]:80"] {
            let error = endpoint(&address(url), &here).err().expect(url).to_string();
            assert!(error.contains("--yes-i-may-load-this"), "{url}: {error}");
            let access = Access { may_load_others: true, ..here };
            assert!(endpoint(&address(url), &access).is_ok(), "{url}");
            // What counts is where it connects to.
            let access = Access { connect: Some("127.0.0.1:80"), ..here };
            assert!(endpoint(&address(url), &access).is_ok(), "{url}");
        }
        let access = Access { connect: Some("192.0.2.1:80"), ..here };
        assert!(endpoint(&address("http://127.0.0.1"), &access).is_err());
        assert!(!is_loopback("::ffff:192.0.2.1".parse().expect("an address")));
        assert!(is_loopback("::ffff:127.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn what_cannot_be_connected_to_is_explained() {
        for connect in ["nowhere", ":80", "a:b", "a:99999"] {
            let access = Access { connect: Some(connect), ..Access::default() };
            let error = endpoint(&address("http://127.0.0.1"), &access).err().expect(connect);
            assert!(matches!(error, EndpointError::NoAddress(_)), "{connect}: {error}");
        }
        let access = Access { ca: Some(Path::new("/nowhere.pem")), ..Access::default() };
        let error = endpoint(&address("https://127.0.0.1"), &access).err().expect("no file");
        assert!(matches!(error, EndpointError::Certificates(..)), "{error}");
    }
}
