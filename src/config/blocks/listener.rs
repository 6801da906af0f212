//! `listeners`, `admin` and `registry`: the addresses that the process opens.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::block::{Place, Value, block};
use crate::config::model::{
    Admin, At, CertificateFiles, ClientCertificateMode, ClientCertificates, Limits, Listener, Rate, Registry,
    Tls, TlsVersion,
};
use crate::config::reader::{Reader, has_variables};
use crate::config::secret::Secret;
use crate::config::values::units::{ByteRate, Number, Size, Wait};
use crate::config::values::{FilePath, Name, NonEmpty, Off, choice, choice_schema};
use crate::config::yaml::Node;

block! {
    /// An address that the gateway accepts connections on: HTTP/1.1 and HTTP/2 on one port.
    "a listener" ListenerBlock => Listener {
        /// What logs and metrics call it.
        name: At<Name> ["http"],
        /// IP address and port. Port 0 lets the system choose one.
        bind: At<SocketAddr> ["0.0.0.0:8000"],
        /// Serve TLS; without it, plain HTTP/1.1 and HTTP/2 with prior knowledge.
        tls: Tls,
        /// Bounds of one listener's connections and requests.
        limits: Limits,
        /// PROXY protocol; not built, so it can only be false.
        proxy_protocol: Off,
        /// HTTP/3; not built, so it can only be false.
        http3: Off,
    }
}

impl ListenerBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Listener> {
        let ListenerBlock { name, bind, tls, limits, proxy_protocol, http3 } = self;
        let (tls, limits) = (tls.optional(), limits.or(Limits::default()));
        proxy_protocol.optional::<Off>()?;
        http3.optional::<Off>()?;
        Some(Listener { name: plain(name.required()?), bind: bind.required()?, tls: tls?, limits: limits? })
    }
}

/// A name as the model keeps it.
pub(super) fn plain(name: At<Name>) -> At<String> {
    At { value: name.value.0, span: name.span }
}

block! {
    /// TLS with a certificate per server name. HTTP/2 is offered by ALPN.
    "a tls block" TlsBlock => Tls {
        /// The oldest version to accept: "1.2" (the default) or "1.3".
        min_version: TlsVersion,
        /// Picked by the name that the client asks for; the first is for clients that name none that is known.
        certificates: NonEmpty<CertificateFiles> ["[{ certificate: server.crt, private_key: server.key }]"],
        /// Certificates that clients show. Default: they are not asked for any.
        client_certificates: ClientCertificates,
    }
}

impl TlsBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Tls> {
        let (min_version, certificates) =
            (self.min_version.or(TlsVersion::Tls12), self.certificates.required());
        let client_certificates = self.client_certificates.optional()?;
        Some(Tls { min_version: min_version?, certificates: certificates?, client_certificates })
    }
}

const VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

impl Value for TlsVersion {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        choice(node, reader, "a version of TLS that is safe to accept", &VERSIONS, &[])
    }

    fn schema() -> Json {
        let mut schema = choice_schema(&VERSIONS);
        schema["type"] = serde_json::json!(["string", "number"]);
        schema
    }
}

block! {
    /// A certificate chain and its key, both PEM files that are read again when they change.
    "a certificate" CertificateBlock => CertificateFiles {
        /// The chain, the server's own certificate first.
        certificate: At<FilePath> ["certs/server.crt"],
        /// Its private key.
        private_key: At<FilePath> ["certs/server.key"],
        /// What its issuer says about it (an OCSP response in DER), to be sent along while it is good. Default: nothing.
        ocsp: At<FilePath>,
    }
}

impl CertificateBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<CertificateFiles> {
        let (certificate, private_key) = (self.certificate.required(), self.private_key.required());
        let ocsp = self.ocsp.optional::<At<FilePath>>()?;
        Some(CertificateFiles {
            certificate: located(certificate?),
            private_key: located(private_key?),
            ocsp: ocsp.map(located),
        })
    }
}

block! {
    /// Certificates that clients show.
    "a client_certificates block" ClientCertificatesBlock => ClientCertificates {
        /// A PEM file with the authorities whose certificates are believed.
        trust: At<FilePath> ["certs/client-ca.crt"],
        /// Whether a client must show one: required (the default) or optional.
        mode: ClientCertificateMode,
        /// Revocation lists, in PEM or one in DER. Default: none, and nothing is revoked.
        crl: At<FilePath>,
    }
}

impl ClientCertificatesBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<ClientCertificates> {
        let (trust, crl) = (self.trust.required::<At<FilePath>>(), self.crl.optional::<At<FilePath>>());
        let mode = self.mode.or(ClientCertificateMode::Required)?;
        Some(ClientCertificates { trust: located(trust?), mode, crl: crl?.map(located) })
    }
}

const MODES: [(&str, ClientCertificateMode); 2] =
    [("required", ClientCertificateMode::Required), ("optional", ClientCertificateMode::Optional)];

impl Value for ClientCertificateMode {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        choice(node, reader, "whether a client must show a certificate", &MODES, &[])
    }

    fn schema() -> Json {
        choice_schema(&MODES)
    }
}

/// A path as the model keeps it.
pub(super) fn located(path: At<FilePath>) -> At<std::path::PathBuf> {
    At { value: path.value.0, span: path.span }
}

block! {
    /// Bounds of one listener's connections and requests.
    "a limits block" LimitsBlock => Limits {
        /// Connections open at once. Default 20000.
        max_connections: Number<1, 10_000_000>,
        /// For a request's whole head, from its first byte to its last. Default 10s.
        header_timeout: Wait,
        /// For a connection kept alive without a request. Default 75s.
        idle_timeout: Wait,
        /// Of a request's head. Default 32KiB.
        max_header_bytes: Size<256, { 16 << 20 }>,
        /// Header fields of a request. Default 100.
        max_headers: Number<1, 10_000>,
        /// Of a request's target. Default 8KiB.
        max_uri_bytes: Size<16, 65_534>,
        /// HTTP/2 concurrent streams of a connection. Default 128.
        max_streams: Number<1, 100_000>,
        /// Connections open at once from one address (of IPv6: one /64), trusted proxies aside. Default: no limit.
        max_connections_per_client: Number<1, 10_000_000>,
        /// Connections, TLS handshakes and all, that one address may begin in a time, trusted proxies aside. Default: no limit.
        connection_rate_per_client: Rate,
        /// A client has to send a request's body this fast, or write off. Default 100B/s.
        min_upload_rate: ByteRate,
        /// A client has to take a response this fast, or write off. Default 100B/s.
        min_download_rate: ByteRate,
    }
}

impl LimitsBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<Limits> {
        let default = Limits::default();
        Some(Limits {
            max_connections: self.max_connections.or(default.max_connections)?,
            header_timeout: self.header_timeout.or(default.header_timeout)?,
            idle_timeout: self.idle_timeout.or(default.idle_timeout)?,
            max_header_bytes: self.max_header_bytes.or(default.max_header_bytes)?,
            max_headers: self.max_headers.or(default.max_headers)?,
            max_uri_bytes: self.max_uri_bytes.or(default.max_uri_bytes)?,
            max_streams: self.max_streams.or(default.max_streams)?,
            max_connections_per_client: self.max_connections_per_client.optional()?,
            connection_rate_per_client: self.connection_rate_per_client.optional()?,
            min_upload_rate: self.min_upload_rate.or(default.min_upload_rate)?,
            min_download_rate: self.min_download_rate.or(default.min_download_rate)?,
        })
    }
}

block! {
    /// The address of /health, /ready, /metrics and the status API.
    "the admin block" AdminBlock => Admin {
        /// IP address and port, best a loopback address.
        bind: At<SocketAddr> ["127.0.0.1:9000"],
        /// Clients send it as a bearer token. Required when `bind` is not a loopback address; empty means none.
        token: Token,
    }
}

impl AdminBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Admin> {
        let (bind, token) = (self.bind.required::<At<SocketAddr>>(), self.token.optional::<Token>());
        let token = guarded(bind.as_ref(), token, "ADMIN", reader);
        Some(Admin { bind: bind?, token: token? })
    }
}

block! {
    /// The built-in service registry, which instances register themselves at.
    "the registry block" RegistryBlock => Registry {
        /// IP address and port, best a loopback or private one.
        bind: At<SocketAddr> ["127.0.0.1:8500"],
        /// An instance without a heartbeat for this long leaves the rotation. Default 30s.
        heartbeat_ttl: Wait,
        /// Clients send it as a bearer token. Required when `bind` is not a loopback address; empty means none.
        token: Token,
        /// Where it keeps who is registered, so that a restart doesn't empty it.
        state_file: At<FilePath>,
    }
}

impl RegistryBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<Registry> {
        let (bind, token) = (self.bind.required::<At<SocketAddr>>(), self.token.optional::<Token>());
        let token = guarded(bind.as_ref(), token, "REGISTRY", reader);
        let heartbeat_ttl = self.heartbeat_ttl.or(Duration::from_secs(30));
        let state_file = self.state_file.optional::<At<FilePath>>();
        Some(Registry {
            bind: bind?,
            heartbeat_ttl: heartbeat_ttl?,
            token: token?,
            state_file: state_file?.map(located),
        })
    }
}

/// A bearer token; an empty one is none, so that `${TOKEN:-}` can be written.
pub(super) struct Token(pub Option<Secret>);

impl Value for Token {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let secret = Secret::read(node, reader)?;
        // RFC 6750 §2.1: anything else could not be sent.
        if !secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
            let remedy = match has_variables(node) {
                true => "look at the variable: it may end with a line break",
                false => "use visible ASCII characters without spaces",
            };
            reader.error(node.span, "this token can't be sent in a header", remedy);
            return None;
        }
        Some(Token(Some(secret).filter(|secret| !secret.expose().is_empty())))
    }

    fn schema() -> Json {
        Secret::schema()
    }
}

/// Whoever can reach these addresses can change what the gateway does, so beyond the machine itself
/// they ask for a token.
fn guarded(
    bind: Option<&At<SocketAddr>>,
    token: Option<Option<Token>>,
    variable: &str,
    reader: &mut Reader<'_>,
) -> Option<Option<Secret>> {
    let token = token?.and_then(|Token(secret)| secret);
    if let Some(bind) = bind
        && token.is_none()
        && !bind.value.ip().to_canonical().is_loopback()
    {
        let message = format!("{} can be reached from other machines, and there is no token", bind.value);
        let remedy = format!("set `token: ${{GATEHOUSE_{variable}_TOKEN}}`, or bind to 127.0.0.1");
        reader.error(bind.span, message, remedy);
        return None;
    }
    Some(token)
}
