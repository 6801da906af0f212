//! Origins that speak TLS, with certificates of authorities that the tests make.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::origin::Seen;

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub der: CertificateDer<'static>,
    pub pem: String,
}

/// A certificate and its key.
pub struct Issued {
    pub der: CertificateDer<'static>,
    pub pem: String,
    key: KeyPair,
}

/// How long a certificate is good for.
#[derive(Clone, Copy)]
pub enum Good {
    Now,
    NoLonger,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = params.self_signed(&key).expect("plain parameters");
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Authority { issuer: Issuer::new(params, key), der, pem }
    }

    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for(names, Good::Now)
    }

    pub fn issue_for(&self, names: &[&str], good: Good) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("plain names");
        if let Good::NoLonger = good {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().expect("there is randomness");
        let certificate = params.signed_by(&key, &self.issuer).expect("plain parameters");
        Issued { der: certificate.der().clone(), pem: certificate.pem(), key }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        Arc::new(roots)
    }
}

impl Issued {
    /// Writes NAME.crt and NAME.key. The key first: the pair fits together whenever the certificate is new.
    pub fn write(&self, directory: &Path, name: &str) {
        replace(directory, &format!("{name}.key"), &self.key.serialize_pem());
        replace(directory, &format!("{name}.crt"), &self.pem);
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key of our own")
    }
}

/// Puts a whole file in the place of another.
pub fn replace(directory: &Path, name: &str, text: &str) {
    let new = directory.join(format!("{name}.new"));
    std::fs::write(&new, text).expect("writable");
    std::fs::rename(new, directory.join(name)).expect("writable");
}

/// What an origin shows, and whom it asks for a certificate.
pub fn server(shown: &Issued, clients: Option<&Authority>, alpn: &[&str]) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider).build();
            builder.with_client_cert_verifier(verifier.expect("there is a root"))
        }
    };
    let mut config = builder.with_single_cert(vec![shown.der.clone()], shown.private_key()).expect("a pair");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A handshake that went well.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub resumed: bool,
    /// By SNI.
    pub server_name: Option<String>,
    pub protocol: Option<String>,
    /// What the gateway has shown.
    pub client: Option<CertificateDer<'static>>,
}

pub struct TlsOrigin {
    pub address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

struct State {
    config: Mutex<Arc<ServerConfig>>,
    connections: Mutex<usize>,
    handshakes: Mutex<Vec<Handshake>>,
    seen: Mutex<Vec<Seen>>,
}

impl TlsOrigin {
    /// Does with each connection what the test says, once its handshake has gone well.
    pub async fn start<F>(
        config: ServerConfig,
        handle: impl Fn(TlsStream<TcpStream>, usize) -> F + Send + Sync + 'static,
    ) -> TlsOrigin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::begin(config, move |stream, number, _| handle(stream, number)).await
    }

    async fn begin<F>(
        config: ServerConfig,
        handle: impl Fn(TlsStream<TcpStream>, usize, Arc<State>) -> F + Send + Sync + 'static,
    ) -> TlsOrigin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it was bound");
        let state = Arc::new(State {
            config: Mutex::new(Arc::new(config)),
            connections: Mutex::default(),
            handshakes: Mutex::default(),
            seen: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, state.clone(), Arc::new(handle)));
        TlsOrigin { address, state, task: task.abort_handle() }
    }

    /// Answers every request with what `answer` makes of it.
    pub async fn answering(
        config: ServerConfig,
        answer: impl Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> TlsOrigin {
        let answer = Arc::new(answer);
        Self::begin(config, move |stream, _, state| answer_all(stream, answer.clone(), state)).await
    }

    /// Answers 200 with `text` to everything.
    pub async fn text(config: ServerConfig, text: &'static str) -> TlsOrigin {
        Self::answering(config, move |_| Response::new(Full::from(text))).await
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Connections that begin from now on are served with this.
    pub fn set_config(&self, config: ServerConfig) {
        *self.state.config.lock().expect("nobody panics with it") = Arc::new(config);
    }

    /// Connections that were accepted.
    pub fn connections(&self) -> usize {
        *self.state.connections.lock().expect("nobody panics while counting")
    }

    pub fn handshakes(&self) -> Vec<Handshake> {
        self.state.handshakes.lock().expect("nobody panics with it").clone()
    }

    pub fn last_handshake(&self) -> Handshake {
        self.handshakes().pop().expect("there was one")
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept<F, H>(listener: TcpListener, state: Arc<State>, handle: Arc<H>)
where
    H: Fn(TlsStream<TcpStream>, usize, Arc<State>) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    while let Ok((stream, _)) = listener.accept().await {
        let number = {
            let mut count = state.connections.lock().expect("nobody panics while counting");
            *count += 1;
            *count
        };
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(state.config.lock().expect("nobody panics with it").clone());
        let (state, handle) = (state.clone(), handle.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let session = stream.get_ref().1;
            let handshake = Handshake {
                resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
                server_name: session.server_name().map(str::to_owned),
                protocol: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
                client: session.peer_certificates().map(|chain| chain[0].clone().into_owned()),
            };
            state.handshakes.lock().expect("nobody panics with it").push(handshake);
            handle(stream, number, state).await;
        });
    }
}

async fn answer_all<A>(stream: TlsStream<TcpStream>, answer: Arc<A>, state: Arc<State>)
where
    A: Fn(&Seen) -> Response<Full<Bytes>> + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, state) = (answer.clone(), state.clone());
        async move {
            let (head, body) = request.into_parts();
            let Ok(collected) = body.collect().await else {
                return Ok::<_, Infallible>(super::origin::status(400));
            };
            let trailers = collected.trailers().cloned();
            let seen = Seen {
                method: head.method,
                target: head.uri.to_string(),
                headers: head.headers,
                body: collected.to_bytes(),
                trailers,
            };
            let response = answer(&seen);
            state.seen.lock().expect("nobody panics with it").push(seen);
            Ok(response)
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
