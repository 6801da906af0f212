//! TLS for clients: certificates by server name (SNI), HTTP/2 by ALPN, certificates of clients, and a configuration that
//! can be exchanged while connections go on.

mod certificate;
mod clients;
mod der;
mod failure;
mod ocsp;
mod tickets;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::{self, Problems, TlsVersion};
use certificate::Certificate;

pub use certificate::Expiry;
pub use clients::names as client_names;
pub use failure::kind as failure_kind;
pub use tickets::Tickets;

/// What a listener shakes hands with.
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    /// Until when its certificates are good, in the order of the configuration.
    pub certificates: Vec<Expiry>,
    /// The same of its revocation lists.
    pub lists: Vec<Expiry>,
}

/// Reads the certificates of a listener. What is wrong with them is told at the place that names the file.
pub fn server_tls(
    listener: &config::Listener,
    tickets: &Tickets,
    problems: &mut Problems,
) -> Option<ServerTls> {
    let tls = listener.tls.as_ref()?;
    let certificates: Vec<_> =
        tls.certificates.iter().map(|files| Certificate::read(files, problems)).collect();
    let clients = tls.client_certificates.as_ref().map(|clients| clients::read(clients, problems));
    let certificates = certificates.into_iter().collect::<Option<Vec<_>>>()?;
    let clients = clients.map_or(Some(None), |clients| clients.map(Some))?;
    let versions: &[&rustls::SupportedProtocolVersion] = match tls.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let expiries = certificates.iter().filter_map(|certificate| certificate.expiry.clone()).collect();
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("the provider has suites for TLS 1.2 and 1.3");
    let builder = match &clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName::of(certificates)?));
    // Ours come in the order of their strength, and every one of them is strong: who can choose takes the first.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    match &clients {
        Some(_) => tickets::never_resume(&mut config),
        None => tickets.resume(&listener.name, &mut config),
    }
    let lists = clients.map_or_else(Vec::new, |clients| clients.lists);
    Some(ServerTls { config: Arc::new(config), certificates: expiries, lists })
}

/// Certificates by the names that they are good for.
struct ByName {
    exact: HashMap<String, Arc<Certificate>>,
    /// By the part after `*.`.
    wildcard: HashMap<String, Arc<Certificate>>,
    default: Arc<Certificate>,
}

impl ByName {
    /// The first certificate for a name wins, as does the first of all for clients that name none.
    fn of(certificates: Vec<Certificate>) -> Option<ByName> {
        let certificates: Vec<Arc<Certificate>> = certificates.into_iter().map(Arc::new).collect();
        let default = certificates.first()?.clone();
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for certificate in &certificates {
            for name in &certificate.names {
                match name.strip_prefix("*.") {
                    Some(rest) => wildcard.entry(rest.to_owned()).or_insert_with(|| certificate.clone()),
                    None => exact.entry(name.clone()).or_insert_with(|| certificate.clone()),
                };
            }
        }
        Some(ByName { exact, wildcard, default })
    }

    fn find(&self, name: &str) -> Option<&Arc<Certificate>> {
        let name = name.to_ascii_lowercase();
        // A wildcard stands for exactly one label (RFC 9525 §6.3).
        self.exact.get(&name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        Some(named.unwrap_or(&self.default).shown().clone())
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName").field("exact", &self.exact.keys()).finish_non_exhaustive()
    }
}
