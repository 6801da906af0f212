//! A worker's connections to instances. Nothing here is shared with another worker, so nothing is locked.
//!
//! Idle connections are reused last-in first-out: a burst's extra connections grow old and are closed,
//! and the busy ones stay warm. A connection goes back once its response body has ended.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::InstanceRef;
use super::upstream_io::{Interims, UpstreamIo};
use crate::clock::{self, Millis};
use crate::http::body::AttemptBody;
use crate::per_worker::WorkerId;
use crate::telemetry::metrics::{InstanceMetrics, Metrics, Outcome};

/// A response head may be this long, with all its fields.
const MAX_RESPONSE_HEAD_BYTES: usize = 64 * 1024;

/// What one worker may keep to one instance. Compiled from `pool` by dividing it among the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    pub max_connections: usize,
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the connection was refused or broke off")]
    Failed(#[source] io::Error),
    #[error("connecting took too long")]
    TimedOut,
    #[error("all connections, or what the machine has for them, are in use")]
    Exhausted,
    #[error("the connection could not be set up")]
    Handshake(#[source] hyper::Error),
}

impl ConnectError {
    /// What this machine is short of says nothing about the instance.
    fn of(error: io::Error) -> Self {
        use rustix::io::Errno;
        let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
        match Errno::from_io_error(&error) {
            Some(errno) if short.contains(&errno) => ConnectError::Exhausted,
            _ => ConnectError::Failed(error),
        }
    }
}

/// The connections of one worker, by the id of the instance.
pub struct Pools {
    worker: WorkerId,
    metrics: Arc<Metrics>,
    by_instance: RefCell<HashMap<u64, Rc<InstancePool>>>,
}

pub struct InstancePool {
    instance: InstanceRef,
    worker: WorkerId,
    metrics: Arc<InstanceMetrics>,
    idle: RefCell<Vec<Idle>>,
    /// Idle and leased ones.
    open: Cell<usize>,
    limits: Cell<PoolLimits>,
    changed: Notify,
}

struct Idle {
    connection: Connection,
    since: Millis,
}

/// A connection that is open for as long as this is kept, whatever it is busy with.
struct Connection {
    sender: SendRequest<AttemptBody>,
    /// `None` once it is a tunnel.
    task: Option<AbortHandle>,
    interims: Arc<Interims>,
}

impl Drop for Connection {
    /// Without this, one whose request is still being written would stay open for as long as the other
    /// side likes not to read it.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The right to use a connection for one request. Dropping it closes the connection;
/// [`Lease::give_back`] returns it to the pool.
pub struct Lease {
    connection: Connection,
    /// It has carried a request before, so the other side may have closed it meanwhile.
    pub reused: bool,
    pool: Rc<InstancePool>,
}

impl Pools {
    pub fn new(worker: WorkerId, metrics: Arc<Metrics>) -> Self {
        Pools { worker, metrics, by_instance: RefCell::default() }
    }

    /// Closes what has been idle for too long or leads to an instance that has left. Called about once a second.
    pub fn sweep(&self) {
        let now = clock::now();
        self.by_instance.borrow_mut().retain(|_, pool| {
            let removed = pool.instance.is_removed();
            let keep_for = pool.limits.get().idle_timeout;
            pool.idle.borrow_mut().retain(|idle| {
                !removed && !idle.connection.sender.is_closed() && now.since(idle.since) < keep_for
            });
            // One that nobody uses is made again when it is wanted: so what a reload took away is forgotten.
            pool.open.get() > 0 || Rc::strong_count(pool) > 1
        });
    }

    /// Connections open now, idle ones included.
    pub fn open(&self) -> usize {
        self.by_instance.borrow().values().map(|pool| pool.open.get()).sum()
    }

    /// The connections to an instance of `service`.
    pub fn of(&self, service: &str, instance: &InstanceRef, limits: PoolLimits) -> Rc<InstancePool> {
        if let Some(pool) = self.by_instance.borrow().get(&instance.id) {
            pool.limits.set(limits);
            return pool.clone();
        }
        let pool = Rc::new(InstancePool {
            instance: instance.clone(),
            worker: self.worker,
            metrics: self.metrics.instance(service, instance.address),
            idle: RefCell::default(),
            open: Cell::new(0),
            limits: Cell::new(limits),
            changed: Notify::new(),
        });
        self.by_instance.borrow_mut().insert(instance.id, pool.clone());
        pool
    }
}

impl InstancePool {
    /// An idle connection, or a new one within the limits, before `deadline`. A `fresh` one has not carried a
    /// request before: for what must not meet a stale one twice.
    pub async fn lease(self: &Rc<Self>, fresh: bool, deadline: Instant) -> Result<Lease, ConnectError> {
        loop {
            if !fresh && let Some(connection) = self.take_ready() {
                return Ok(self.leased(connection));
            }
            if self.open.get() < self.limits.get().max_connections {
                return connect(self.clone(), deadline).await;
            }
            let idle = self.idle.borrow_mut().pop().map(|idle| idle.connection);
            match idle {
                // It makes room: it would be the next to be found stale anyway.
                Some(connection) if fresh => drop(connection),
                // Its response has ended, and its task has yet to notice. Nobody is told when it has.
                Some(mut connection) => match timeout_at(deadline, connection.sender.ready()).await {
                    Ok(Ok(())) => return Ok(self.leased(connection)),
                    Ok(Err(_)) => continue,
                    Err(_) => return Err(ConnectError::Exhausted),
                },
                None => {}
            }
            if timeout_at(deadline, self.changed.notified()).await.is_err() {
                return Err(ConnectError::Exhausted);
            }
        }
    }

    /// Counts how an attempt at the instance ended.
    pub fn record(&self, outcome: Outcome, latency: Duration) {
        self.metrics.record(self.worker, outcome, latency);
    }

    fn leased(self: &Rc<Self>, connection: Connection) -> Lease {
        Lease { connection, reused: true, pool: self.clone() }
    }

    fn take_ready(&self) -> Option<Connection> {
        // Closed ones were taken out when they closed. A connection whose last request is still being
        // written is not ready; one before it may be.
        let mut idle = self.idle.borrow_mut();
        let position = idle.iter().rposition(|idle| idle.connection.sender.is_ready())?;
        Some(idle.remove(position).connection)
    }

    fn closed_one(&self) {
        self.open.set(self.open.get() - 1);
        self.idle.borrow_mut().retain(|idle| !idle.connection.sender.is_closed());
        self.changed.notify_one();
    }
}

impl Lease {
    pub fn sender(&mut self) -> &mut SendRequest<AttemptBody> {
        &mut self.connection.sender
    }

    /// Counts the interim responses to the next request.
    pub fn interims(&self) -> Arc<Interims> {
        self.connection.interims.restart();
        self.connection.interims.clone()
    }

    /// Lets the worker see what has arrived on its connections, and says whether this one is still good.
    pub async fn is_still_open(&self) -> bool {
        // The runtime polls its driver, and then runs the connection's task, before it comes back here.
        tokio::task::yield_now().await;
        self.connection.sender.is_ready()
    }

    /// The response has ended: the connection may carry the next request.
    pub fn give_back(self) {
        let Lease { connection, pool, .. } = self;
        let mut idle = pool.idle.borrow_mut();
        let full = idle.len() >= pool.limits.get().max_idle;
        if !connection.sender.is_closed() && !full && !pool.instance.is_removed() {
            idle.push(Idle { connection, since: clock::now() });
            drop(idle);
            pool.changed.notify_one();
        }
    }

    /// The connection is no longer one for requests. It counts as open until the slot is dropped.
    pub fn into_tunnel(mut self) -> OpenSlot {
        // Its task ends by itself once it has handed the stream over.
        self.connection.task = None;
        OpenSlot::take(&self.pool)
    }
}

async fn connect(pool: Rc<InstancePool>, deadline: Instant) -> Result<Lease, ConnectError> {
    let slot = OpenSlot::take(&pool);
    let stream = open_stream(pool.instance.address, deadline).await?;
    let interims = Arc::new(Interims::default());
    let (sender, connection) = http1::Builder::new()
        .max_header_size(MAX_RESPONSE_HEAD_BYTES)
        .handshake(TokioIo::new(UpstreamIo::new(stream, interims.clone())))
        .await
        .map_err(ConnectError::Handshake)?;
    let task = tokio::task::spawn_local(async move {
        // What ends it is told to whoever waits for the response; there is nobody else to tell.
        let _ = connection.with_upgrades().await;
        drop(slot);
    });
    let connection = Connection { sender, task: Some(task.abort_handle()), interims };
    Ok(Lease { connection, reused: false, pool })
}

async fn open_stream(address: SocketAddr, deadline: Instant) -> Result<TcpStream, ConnectError> {
    let stream = timeout_at(deadline, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::TimedOut)?
        .map_err(ConnectError::of)?;
    stream.set_nodelay(true).map_err(ConnectError::Failed)?;
    Ok(stream)
}

/// Counts a connection as open until it is dropped, however its task ends.
pub struct OpenSlot(Rc<InstancePool>);

impl OpenSlot {
    fn take(pool: &Rc<InstancePool>) -> Self {
        pool.open.set(pool.open.get() + 1);
        OpenSlot(pool.clone())
    }
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        self.0.closed_one();
    }
}
