//! A worker's end of a listener: connections are accepted, told apart by protocol, and served until the
//! listener drains. A connection that a client has been given is served, also when draining has begun.

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::clients::{PerClient, Seat};
use super::drain::{Drain, Drained};
use super::io::Transport;
use super::listening::Listening;
use super::{Connection, LAST_CALL, Settings, bind, http1, http2, tls};
use crate::http::forwarded::{ConnFacts, Scheme};
use crate::http::rewound::Rewound;
use crate::telemetry::events;
use crate::telemetry::metrics::TlsFailure;
use crate::worker::Worker;

/// How long handshakes that were under way when draining began may take to complete.
const LATECOMERS: Duration = Duration::from_millis(20);

pub struct Acceptor {
    pub socket: Listening,
    /// Replaced by a reload; connections keep what they began with.
    pub settings: Rc<RefCell<Rc<Settings>>>,
}

/// Accepts until `drain` begins, then takes those that are connecting already and stops.
pub async fn accept(acceptor: Acceptor, worker: Rc<Worker>, drain: Rc<Drain>) {
    let stop = drain.join();
    let port = acceptor.socket.local_addr().map_or(0, |address| address.port());
    loop {
        // One place is the accepting loop's own.
        if drain.open() > acceptor.settings.borrow().limits.max_connections {
            acceptor.settings.borrow().metrics.refused(worker.id);
            tokio::select! {
                () = drain.room() => continue,
                () = poll_fn(|cx| stop.poll(cx)) => {}
            }
        }
        let accepted = tokio::select! {
            biased;
            accepted = acceptor.socket.accept() => accepted,
            () = poll_fn(|cx| stop.poll(cx)) => break,
        };
        // Not before: what a reload has changed while nobody came holds for who comes now.
        let settings = acceptor.settings.borrow().clone();
        match accepted {
            Ok((stream, peer)) => start((stream, peer, port), &settings, &worker, &drain),
            Err(error) => {
                // Out of descriptors or memory: what is open goes on, and waiting beats spinning.
                settings.metrics.accept_failed(worker.id);
                events::warn(format_args!("listener {} can't accept: {error}", settings.name));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let settings = acceptor.settings.borrow().clone();
    let start = |stream, peer| start((stream, peer, port), &settings, &worker, &drain);
    take_latecomers(&acceptor.socket, start).await;
    drop(stop);
}

/// Closing a socket resets the connections in its queue, so nobody may join the queue between the last
/// look at it and the close.
async fn take_latecomers(socket: &Listening, start: impl Fn(TcpStream, SocketAddr)) {
    bind::refuse_new(socket);
    let end = Instant::now() + LATECOMERS;
    while let Ok(Ok((stream, peer))) = tokio::time::timeout_at(end, socket.accept()).await {
        start(stream, peer);
    }
}

/// What has been accepted: the stream, where it comes from, and the port that it came to. That one is the
/// listener's, so it is not asked for again with each connection.
type Accepted = (TcpStream, SocketAddr, u16);

fn start(accepted: Accepted, settings: &Rc<Settings>, worker: &Rc<Worker>, drain: &Rc<Drain>) {
    let (stream, peer, port) = accepted;
    let seat = match &settings.limits.per_client {
        None => None,
        Some(limit) => match seat(peer.ip(), limit, settings, worker) {
            Ok(seat) => seat,
            // It is closed by being dropped: to answer it would be to let it in.
            Err(TurnedAway) => return,
        },
    };
    let scheme = if settings.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let connection = Rc::new(Connection {
        worker: worker.clone(),
        facts: ConnFacts::new(peer.ip(), port, scheme),
        settings: settings.clone(),
        client_names: OnceCell::new(),
    });
    let drained = drain.join_with(seat);
    settings.metrics.accepted(worker.id);
    // In boxes, for the runtime moves what it is given several times.
    match settings.tls.clone() {
        None => {
            let transport = Transport::fresh(stream);
            tokio::task::spawn_local(Box::pin(http1::serve(transport, true, connection, drained)))
        }
        Some(tls) => tokio::task::spawn_local(Box::pin(serve_tls(stream, tls, connection, drained))),
    };
}

struct TurnedAway;

/// A place among the connections of the client, but for a trusted proxy, which has many clients of its own.
fn seat(
    peer: IpAddr,
    limit: &PerClient,
    settings: &Settings,
    worker: &Worker,
) -> Result<Option<Box<Seat>>, TurnedAway> {
    if worker.snapshot().trusted_proxies.contains(peer.to_canonical()) {
        return Ok(None);
    }
    let seat = settings.clients.seat(peer, limit).ok_or_else(|| {
        settings.metrics.turned_away(worker.id);
        events::warn(format_args!("listener {}: {peer} gets no further connection now", settings.name));
        TurnedAway
    })?;
    Ok(Some(Box::new(seat)))
}

async fn serve_tls(stream: TcpStream, tls: Arc<ServerConfig>, connection: Rc<Connection>, drained: Drained) {
    // Larger than all that comes after it.
    let Some(stream) = Box::pin(shake_hands(stream, tls, &connection, &drained)).await else { return };
    let session = stream.get_ref().1;
    if let Some(names) = tls::client_names(session) {
        // Nobody else has written there: it is done once, here.
        let _ = connection.client_names.set(names);
    }
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let transport = Transport::Tls(stream);
    if is_http2 {
        // Larger than what an HTTP/1.1 connection needs, which shares its place with it.
        Box::pin(http2::serve(Rewound::new(Bytes::new(), transport), connection, drained)).await;
    } else {
        http1::serve(transport, false, connection, drained).await;
    }
}

async fn shake_hands(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    connection: &Connection,
    drained: &Drained,
) -> Option<Box<TlsStream<tokio::net::TcpStream>>> {
    let settings = &connection.settings;
    let accepting = TlsAcceptor::from(tls).accept(tokio::net::TcpStream::from_std(stream).ok()?);
    // Whoever has connected may send a request yet, but not take for ever over it when all else is over.
    tokio::select! {
        biased;
        accepted = tokio::time::timeout(settings.limits.header_timeout, accepting) => {
            let failure = match accepted {
                Ok(Ok(stream)) => return Some(Box::new(stream)),
                Ok(Err(error)) => tell_of_failure(connection, &error),
                Err(_) => TlsFailure::Timeout,
            };
            settings.metrics.tls_failed(connection.worker.id, failure);
            None
        }
        () = last_call(drained) => None,
    }
}

/// Those that only went away are no news; of the others the log has as many as it takes of one kind.
fn tell_of_failure(connection: &Connection, error: &std::io::Error) -> TlsFailure {
    let failure = tls::failure_kind(error);
    if failure != TlsFailure::Closed {
        let (name, peer) = (&connection.settings.name, connection.facts.peer());
        events::info(format_args!(
            "listener {name}: no handshake with {peer} ({}): {error}",
            failure.label()
        ));
    }
    failure
}

async fn last_call(drained: &Drained) {
    poll_fn(|cx| drained.poll(cx)).await;
    tokio::time::sleep(LAST_CALL).await;
}
