//! A worker's connections to instances. Nothing here is shared with another worker, so nothing is locked.
//!
//! Idle connections are plain values, reused last-in first-out: a burst's extra connections grow old and are closed,
//! and the busy ones stay warm. A connection goes back once its response body has ended, and is never used again
//! once anything has come on it that nobody asked for.

mod connect;
mod shared;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::InstanceRef;
use super::carrier::Carrier;
use super::http1::Workspace;
use super::stream::Stream;
use super::tls::{Protocol, UpstreamTls};
use crate::buffers::Buffers;
use crate::clock::{self, Millis};
use crate::per_worker::WorkerId;
use crate::telemetry::metrics::{InstanceMetrics, Metrics, Outcome};
use connect::Secure;
use shared::Shared;

pub use connect::{ConnectBy, ConnectError};

/// Connections that one sweep closes: each takes the kernel some microseconds.
const CLOSED_AT_ONCE: usize = 64;
/// Instances whose connections one sweep looks at.
const SWEPT_AT_ONCE: usize = 512;

/// What one worker may keep to one instance. Compiled from `pool` by dividing it among the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    pub max_connections: usize,
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

/// The connections of one worker, by the id of the instance.
pub struct Pools {
    worker: WorkerId,
    metrics: Arc<Metrics>,
    workspace: Rc<Workspace>,
    /// Ids are numbers of our own: nobody can choose them so that they collide.
    by_instance: RefCell<HashMap<PoolKey, Rc<InstancePool>, foldhash::fast::RandomState>>,
    /// Their keys, in the order in which they are swept.
    sweeping: RefCell<VecDeque<PoolKey>>,
    /// So many of them in this round.
    to_sweep: Cell<usize>,
}

/// Connections to one instance that are made alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct PoolKey {
    instance: u64,
    /// 0 for plain ones.
    tls: u64,
    protocol: Protocol,
}

/// How a service's instances are spoken to.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    pub tls: Option<&'a Arc<UpstreamTls>>,
    pub protocol: Protocol,
}

pub struct InstancePool {
    instance: InstanceRef,
    /// Where it is spoken to over TLS.
    secure: Option<Secure>,
    /// Where requests may share connections.
    shared: Option<Shared>,
    worker: WorkerId,
    metrics: Arc<InstanceMetrics>,
    workspace: Rc<Workspace>,
    /// The last is the one that was used last.
    idle: RefCell<Vec<Idle>>,
    /// Open and not idle: leased, being made, or a tunnel.
    busy: Cell<usize>,
    limits: Cell<PoolLimits>,
    /// Requests that wait for a connection to become free.
    waiting: Cell<usize>,
    changed: Notify,
}

struct Idle {
    connection: Box<Carrier>,
    since: Millis,
}

/// The right to use a connection for one request. Dropping it closes the connection;
/// [`Lease::give_back`] returns it to the pool.
pub struct Lease {
    pub connection: Box<Carrier>,
    /// It has carried a request before, so the other side may have closed it meanwhile.
    pub reused: bool,
    /// After the connection: it is closed by the time it doesn't count any more. One that is shared counts by itself.
    slot: Option<OpenSlot>,
}

/// What a request asks of a connection.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// One that has not carried a request before: for what must not meet a stale one twice.
    pub fresh: bool,
    /// The request can't be repeated, and must not meet a connection that the instance has closed already.
    pub surely_open: bool,
    pub waits: Waits,
}

/// For how long a request waits for one of an instance's connections, when all are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    Not,
    /// A little, and then looks elsewhere again: who would stay might stay with the one instance that hangs.
    ALittle,
    /// As long as connecting may take.
    Long,
}

const A_LITTLE: Duration = Duration::from_millis(20);

impl Pools {
    pub fn new(worker: WorkerId, metrics: Arc<Metrics>, buffers: Rc<Buffers>) -> Self {
        let workspace = Rc::new(Workspace::new(buffers));
        Pools {
            worker,
            metrics,
            workspace,
            by_instance: RefCell::default(),
            sweeping: RefCell::default(),
            to_sweep: Cell::new(0),
        }
    }

    /// Closes what has been idle for too long, was closed by the instance, or leads to one that has left. Called
    /// about once a second, and sooner when it says that there is more to do: requests wait meanwhile, and thousands of
    /// instances may leave at once.
    pub fn sweep(&self) -> bool {
        let (now, mut left) = (clock::now(), CLOSED_AT_ONCE);
        let (mut by_instance, mut sweeping) = (self.by_instance.borrow_mut(), self.sweeping.borrow_mut());
        if self.to_sweep.get() == 0 {
            self.to_sweep.set(sweeping.len());
        }
        for _ in 0..self.to_sweep.get().min(SWEPT_AT_ONCE) {
            let Some(&key) = sweeping.front() else { break };
            let pool = by_instance.get(&key);
            if pool.is_some_and(|pool| !pool.sweep(now, &mut left)) {
                return true;
            }
            sweeping.pop_front();
            self.to_sweep.set(self.to_sweep.get() - 1);
            // One that nobody uses is made again when it is wanted: so what a reload took away is forgotten.
            if pool.is_some_and(|pool| pool.open() > 0 || Rc::strong_count(pool) > 1) {
                sweeping.push_back(key);
            } else {
                by_instance.remove(&key);
            }
        }
        self.to_sweep.get() > 0
    }

    /// Connections open now, idle ones included.
    pub fn open(&self) -> usize {
        self.by_instance.borrow().values().map(|pool| pool.open()).sum()
    }

    /// The connections to an instance of `service` that are made this way.
    pub fn of(
        &self,
        service: &str,
        instance: &InstanceRef,
        way: Way<'_>,
        limits: PoolLimits,
    ) -> Rc<InstancePool> {
        let Way { tls, protocol } = way;
        let key = PoolKey { instance: instance.id, tls: tls.map_or(0, |tls| tls.id), protocol };
        if let Some(pool) = self.by_instance.borrow().get(&key) {
            if pool.limits.replace(limits) != limits {
                pool.changed.notify_waiters();
            }
            return pool.clone();
        }
        let pool = Rc::new(InstancePool {
            instance: instance.clone(),
            secure: tls.map(|tls| Secure::new(tls, protocol, instance)),
            shared: protocol.may_share(tls.is_some()).then(Shared::default),
            worker: self.worker,
            metrics: self.metrics.instance(service, instance.address),
            workspace: self.workspace.clone(),
            idle: RefCell::default(),
            busy: Cell::new(0),
            limits: Cell::new(limits),
            waiting: Cell::new(0),
            changed: Notify::new(),
        });
        self.by_instance.borrow_mut().insert(key, pool.clone());
        self.sweeping.borrow_mut().push_back(key);
        pool
    }
}

impl InstancePool {
    /// An idle connection, if there is one such as is wanted and nobody waits for one already.
    pub fn take_idle(self: &Rc<Self>, wanted: Wanted) -> Option<Lease> {
        if self.waiting.get() > 0 {
            return None;
        }
        match &self.shared {
            None => self.pop_idle(wanted),
            Some(shared) if shared.is_http1.get() => self.pop_idle(wanted),
            Some(shared) => self.take_seat(shared, wanted.fresh),
        }
    }

    fn pop_idle(self: &Rc<Self>, wanted: Wanted) -> Option<Lease> {
        if wanted.fresh {
            return None;
        }
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            let is_open = if wanted.surely_open { idle.is_quiet_now() } else { idle.is_quiet() };
            if is_open {
                let slot = Some(OpenSlot::take(self));
                return Some(Lease { connection: idle.connection, reused: true, slot });
            }
        }
    }

    /// An idle connection, or a new one within the limits, in time.
    pub async fn lease(self: &Rc<Self>, wanted: Wanted, by: ConnectBy<'_>) -> Result<Lease, ConnectError> {
        // Boxed, so that requests that share nothing are no larger for it.
        if let Some(shared) = &self.shared
            && let Some(lease) = Box::pin(self.lease_shared(shared, wanted, by)).await?
        {
            return Ok(lease);
        }
        // Whoever comes while others wait does so behind them. Were it not so, those who happen to come just when
        // one becomes free would take them all, and some of those who wait would never have any.
        let mut is_next = self.waiting.get() == 0;
        loop {
            if is_next {
                if let Some(lease) = self.pop_idle(wanted) {
                    return Ok(lease);
                }
                // An idle one makes room for one that has to be new.
                if self.open() >= self.limits.get().max_connections {
                    self.idle.borrow_mut().pop();
                }
                if self.open() < self.limits.get().max_connections {
                    return self.connect(by).await;
                }
            }
            let (until, ends) = match wanted.waits {
                Waits::Not => return Err(ConnectError::Full { waited: false }),
                Waits::ALittle => (Instant::now() + A_LITTLE, ConnectError::Full { waited: true }),
                Waits::Long => (by.connected(), ConnectError::Exhausted),
            };
            let _waiting = Waiting::begin(self);
            timeout_at(until.min(by.connected()), self.changed.notified()).await.map_err(|_| ends)?;
            is_next = true;
        }
    }

    /// Closes what is not to be kept, `left` connections at most. Says whether that was all.
    fn sweep(&self, now: Millis, left: &mut usize) -> bool {
        let (removed, keep_for) = (self.is_retired(), self.limits.get().idle_timeout);
        let mut is_all = true;
        self.idle.borrow_mut().retain_mut(|idle| {
            let stays = !removed && now.since(idle.since) < keep_for && idle.is_quiet();
            let waits = !stays && *left == 0;
            *left -= usize::from(!stays && !waits);
            is_all &= !waits;
            stays || waits
        });
        if let Some(shared) = &self.shared {
            shared.sweep(now, keep_for, removed);
        }
        is_all
    }

    /// Those who come next are to have connections of their own.
    pub fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        if let Some(shared) = &self.shared {
            shared.close();
        }
        if self.waiting.get() > 0 {
            self.changed.notify_one();
        }
    }

    /// Counts how an attempt at the instance ended.
    pub fn record(&self, outcome: Outcome, latency: Duration) {
        self.metrics.record(self.worker, outcome, latency);
    }

    fn open(&self) -> usize {
        self.busy.get() + self.idle.borrow().len()
    }

    /// Whether nobody is to use its connections any more.
    fn is_retired(&self) -> bool {
        self.instance.is_removed() || self.secure.as_ref().is_some_and(|secure| secure.tls.is_over())
    }
}

impl Idle {
    fn is_quiet(&mut self) -> bool {
        match &mut *self.connection {
            Carrier::Http1(connection) => connection.is_quiet(),
            Carrier::Http2(_) => false,
        }
    }

    fn is_quiet_now(&mut self) -> bool {
        match &mut *self.connection {
            Carrier::Http1(connection) => connection.is_quiet_now(),
            Carrier::Http2(_) => false,
        }
    }
}

impl Lease {
    /// The response has ended: the connection may carry the next request, unless something speaks against it.
    pub fn give_back(self, now: Millis) {
        let Lease { mut connection, slot: Some(slot), .. } = self else { return };
        let Carrier::Http1(own) = &mut *connection else { return };
        let pool = &slot.0;
        if !own.is_reusable() || pool.is_retired() {
            return;
        }
        own.rest();
        let mut idle = pool.idle.borrow_mut();
        if idle.len() < pool.limits.get().max_idle {
            idle.push(Idle { connection, since: now });
        }
    }

    /// The connection is no longer one for requests. It counts as open until the slot is dropped.
    pub fn into_stream(self) -> Option<(Stream, Bytes, OpenSlot)> {
        let (stream, unread) = self.connection.into_stream()?;
        Some((stream, unread, self.slot?))
    }
}

/// Counts a connection as open until it is dropped, however it ends.
pub struct OpenSlot(Rc<InstancePool>);

impl OpenSlot {
    fn take(pool: &Rc<InstancePool>) -> Self {
        pool.busy.set(pool.busy.get() + 1);
        OpenSlot(pool.clone())
    }
}

impl Drop for OpenSlot {
    fn drop(&mut self) {
        let pool = &self.0;
        pool.busy.set(pool.busy.get() - 1);
        if pool.waiting.get() > 0 {
            pool.changed.notify_one();
        }
    }
}

/// A request that waits for a connection to become free.
struct Waiting<'p>(&'p InstancePool);

impl<'p> Waiting<'p> {
    fn begin(pool: &'p InstancePool) -> Self {
        pool.waiting.set(pool.waiting.get() + 1);
        Waiting(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use std::pin::pin;
    use std::task::Poll;
    use tokio::net::TcpListener;

    use super::*;
    use crate::per_worker::PerWorker;
    use crate::service::attempt::AttemptLimits;
    use crate::service::discovered::{Discovered, Publish};
    use crate::service::{Instance, InstanceRef, Instances};

    const ANY: Wanted = Wanted { fresh: false, surely_open: false, waits: Waits::Long };

    const PLAIN: Way<'static> = Way { tls: None, protocol: Protocol::Http1 };

    const MINUTE: Duration = Duration::from_secs(60);
    static LIMITS: AttemptLimits =
        AttemptLimits { connect: MINUTE, tls: MINUTE, response: MINUTE, idle: MINUTE, deadline: None };

    /// A pool of one connection, which is in use.
    struct Full {
        only: Lease,
        pool: Rc<InstancePool>,
        pools: Pools,
        instance: InstanceRef,
        limits: PoolLimits,
        by: ConnectBy<'static>,
        _listener: TcpListener,
    }

    async fn full() -> Full {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let instances = Instances::new(1);
        let authority = address.to_string().into();
        instances.publish(vec![Discovered { address, weight: 1, authority, zone: None, priority: 0 }]);
        let instance = instances.current().instances().next().expect("there is one").clone();
        let instance = InstanceRef::new(instance, WorkerId(0), Arc::new(PerWorker::new(1)));
        let pools = Pools::new(WorkerId(0), Metrics::new(1), Rc::default());
        let limits = PoolLimits { max_connections: 1, max_idle: 8, idle_timeout: Duration::from_secs(60) };
        let pool = pools.of("users", &instance, PLAIN, limits);
        let by = ConnectBy { began: Instant::now(), limits: &LIMITS };
        let only = pool.lease(ANY, by).await.expect("there is room for one");
        Full { only, pool, pools, instance, limits, by, _listener: listener }
    }

    #[tokio::test]
    async fn who_came_first_has_the_connection_that_becomes_free() {
        let Full { only, pool, by, _listener, .. } = full().await;
        let mut first = pin!(pool.lease(ANY, by));
        assert!(matches!(poll!(&mut first), Poll::Pending));
        drop(only);
        // Between the moment when one becomes free and that in which who waits for it takes it.
        assert!(pool.take_idle(ANY).is_none());
        let mut late = pin!(pool.lease(ANY, by));
        assert!(matches!(poll!(&mut late), Poll::Pending));
        let lease = first.await.expect("it is its turn");
        assert!(matches!(poll!(&mut late), Poll::Pending));
        drop(lease);
        late.await.expect("nobody else is left");
        assert_eq!(pool.waiting.get(), 0);
    }

    #[tokio::test]
    async fn who_does_not_want_to_wait_is_told_at_once() {
        let Full { only, pool, by, _listener, .. } = full().await;
        let at_once = Wanted { waits: Waits::Not, ..ANY };
        let a_little = Wanted { waits: Waits::ALittle, ..ANY };
        assert!(matches!(pool.lease(at_once, by).await, Err(ConnectError::Full { waited: false })));
        assert!(matches!(pool.lease(a_little, by).await, Err(ConnectError::Full { waited: true })));
        drop(only);
        assert!(pool.lease(at_once, by).await.is_ok());
    }

    #[tokio::test]
    async fn a_higher_limit_holds_for_those_who_wait_already() {
        let full = full().await;
        let mut waits = pin!(full.pool.lease(ANY, full.by));
        assert!(matches!(poll!(&mut waits), Poll::Pending));
        full.pools.of("users", &full.instance, PLAIN, PoolLimits { max_connections: 2, ..full.limits });
        waits.await.expect("there is room for two now");
    }

    #[tokio::test]
    async fn connections_are_closed_some_at_a_time() {
        let Full { only, pool, pools, instance, limits, by, _listener: listener } = full().await;
        drop(only);
        let all = CLOSED_AT_ONCE * 2 + 7;
        pools.of("users", &instance, PLAIN, PoolLimits { max_connections: all, max_idle: all, ..limits });
        let (mut leases, mut accepted) = (Vec::new(), Vec::new());
        for _ in 0..all {
            leases.push(pool.lease(ANY, by).await.expect("there is room for all"));
            accepted.push(listener.accept().await.expect("it is connected"));
        }
        for Lease { connection, .. } in leases {
            pool.idle.borrow_mut().push(Idle { connection, since: clock::now() });
        }
        assert!(!pools.sweep());
        assert_eq!(pools.open(), all, "none is to be closed");
        pools.of("users", &instance, PLAIN, PoolLimits { idle_timeout: Duration::ZERO, ..pool.limits.get() });
        for (left, more) in [(CLOSED_AT_ONCE + 7, true), (7, true), (0, false)] {
            assert_eq!((pools.sweep(), pools.open()), (more, left));
        }
    }

    #[tokio::test]
    async fn thousands_of_pools_are_swept_some_at_a_time_and_each_in_its_turn() {
        let Full { only, pool, pools, instance, limits, .. } = full().await;
        drop((only, pool));
        for id in 0..SWEPT_AT_ONCE * 2 {
            let other = Instance::new(instance.address, instance.authority().clone(), 1, 1);
            let other = InstanceRef::new(Arc::new(other), WorkerId(0), Arc::new(PerWorker::new(1)));
            pools.of(&format!("users-{}", id % 3), &other, PLAIN, limits);
        }
        let known = || pools.by_instance.borrow().len();
        assert_eq!(known(), SWEPT_AT_ONCE * 2 + 1);
        for (more, left) in [(true, SWEPT_AT_ONCE + 1), (true, 1), (false, 0)] {
            assert_eq!((pools.sweep(), known()), (more, left), "nobody uses them");
        }
        let used = pools.of("users", &instance, PLAIN, limits);
        assert!(!pools.sweep() && !pools.sweep());
        assert_eq!((known(), pools.sweeping.borrow().len()), (1, 1));
        drop(used);
        assert!(!pools.sweep());
        assert_eq!((known(), pools.sweeping.borrow().len()), (0, 0));
    }
}
