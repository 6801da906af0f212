//! Origins that speak HTTP/2: plain, with prior knowledge, or over TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// A request that the origin is to answer.
pub struct Asked {
    pub head: http::request::Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
    /// Of the connection, from 1.
    pub connection: usize,
}

impl Asked {
    /// All of the body, and the trailers.
    pub async fn read(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let mut all = Vec::new();
        while let Some(data) = self.body.data().await {
            let Ok(data) = data else { return (all, None) };
            let _ = self.body.flow_control().release_capacity(data.len());
            all.extend_from_slice(&data);
        }
        (all, self.body.trailers().await.ok().flatten())
    }

    /// Answers 200 with this body.
    pub async fn answer(mut self, body: impl Into<Bytes>) {
        let Ok(mut stream) = self.respond.send_response(Response::new(()), false) else { return };
        send(&mut stream, body.into(), true).await;
    }
}

/// Sends as the other side makes room for it; gives up where that goes away.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, end: bool) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let piece = data.split_to(room.min(data.len()));
        if stream.send_data(piece, false).is_err() {
            return;
        }
    }
    if end {
        let _ = stream.send_data(Bytes::new(), true);
    }
}

pub struct H2Origin {
    pub address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Default)]
struct State {
    connections: Mutex<Vec<AbortHandle>>,
    seen: Mutex<Vec<Request<()>>>,
    go_away: Notify,
}

impl H2Origin {
    /// Plain, and with these settings.
    pub async fn start<F>(builder: Builder, answer: impl Fn(Asked) -> F + Send + Sync + 'static) -> H2Origin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::begin(builder, None, answer).await
    }

    pub async fn secure<F>(
        config: ServerConfig,
        answer: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> H2Origin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::begin(Builder::new(), Some(config), answer).await
    }

    async fn begin<F>(
        builder: Builder,
        config: Option<ServerConfig>,
        answer: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> H2Origin
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it was bound");
        let scheme = if config.is_some() { "https" } else { "http" };
        let state = Arc::new(State::default());
        let (own, answer) = (state.clone(), Arc::new(answer));
        let acceptor = config.map(|config| TlsAcceptor::from(Arc::new(config)));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (state, answer, builder) = (own.clone(), answer.clone(), builder.clone());
                let acceptor = acceptor.clone();
                let number = own.connections.lock().expect("nobody panics with it").len() + 1;
                let task = tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, number, builder, state, answer).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            serve(stream, number, builder, state, answer).await;
                        }
                    }
                });
                own.connections.lock().expect("nobody panics with it").push(task.abort_handle());
            }
        });
        H2Origin { address, scheme, state, task: task.abort_handle() }
    }

    /// Answers 200 with `text` to everything.
    pub async fn text(text: &'static str) -> H2Origin {
        Self::start(Builder::new(), move |asked| asked.answer(text)).await
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub fn connections(&self) -> usize {
        self.state.connections.lock().expect("nobody panics with it").len()
    }

    pub fn open_connections(&self) -> usize {
        let all = self.state.connections.lock().expect("nobody panics with it");
        all.iter().filter(|connection| !connection.is_finished()).count()
    }

    /// Heads of the requests that have come.
    pub fn seen(&self) -> Vec<Request<()>> {
        self.state.seen.lock().expect("nobody panics with it").clone()
    }

    /// Tells those that are connected that they get no more answers than they have asked for.
    pub fn go_away(&self) {
        self.state.go_away.notify_waiters();
    }

    /// Closes all connections at once, as a crash would.
    pub fn reset_connections(&self) {
        self.state.connections.lock().expect("nobody panics with it").iter().for_each(AbortHandle::abort);
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.task.abort();
        self.reset_connections();
    }
}

async fn serve<S, F, A>(stream: S, number: usize, builder: Builder, state: Arc<State>, answer: Arc<A>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    loop {
        let go_away = state.go_away.notified();
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                let (head, body) = request.into_parts();
                state.seen.lock().expect("nobody panics with it").push(Request::from_parts(head.clone(), ()));
                tokio::spawn(answer(Asked { head, body, respond, connection: number }));
            }
            () = go_away => connection.graceful_shutdown(),
        }
    }
}
