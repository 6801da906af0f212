//! Connections that requests share, as HTTP/2 has them: few to an instance, each with a place for many requests.
//!
//! One is opened when no other has a place free, and one at a time: who comes meanwhile waits to see how many fit on it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::uri::Scheme;
use tokio::time::{Instant, timeout_at};

use super::{A_LITTLE, ConnectBy, ConnectError, InstancePool, Lease, OpenSlot, Waiting, Waits, Wanted};
use crate::clock::Millis;
use crate::service::attempt::earliest;
use crate::service::carrier::Carrier;
use crate::service::http2::{self, Connection, Exchange, Seat};
use crate::service::stream::Stream;

#[derive(Default)]
pub struct Shared {
    connections: RefCell<Vec<Connection>>,
    is_opening: Cell<bool>,
    /// The instance has agreed on HTTP/1.1 when it was last asked, and each request has a connection of its own.
    pub is_http1: Cell<bool>,
}

impl Shared {
    fn seat(&self, fresh: bool) -> Option<Seat> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.is_closing());
        let usable = connections.iter().filter(|connection| !(fresh && connection.has_served()));
        usable.min_by_key(|connection| connection.streams()).and_then(Connection::seat)
    }

    /// Whether there is one of which it is not known yet how many requests it takes.
    fn is_settling(&self) -> bool {
        self.connections.borrow().iter().any(|connection| !connection.is_settled())
    }

    /// Closes what nobody has used for long enough, or all that nobody uses.
    pub fn sweep(&self, now: Millis, keep_for: std::time::Duration, all: bool) {
        self.connections.borrow_mut().retain(|connection| {
            let is_done = connection.idle_for(now).is_some_and(|idle| all || idle >= keep_for);
            !(is_done || connection.is_closing())
        });
    }

    /// No request begins on those there are.
    pub fn close(&self) {
        self.connections.borrow_mut().drain(..).for_each(|connection| connection.close());
    }

    /// Closes one that nobody uses.
    fn make_room(&self) {
        let mut connections = self.connections.borrow_mut();
        if let Some(idle) = connections.iter().position(|connection| connection.streams() == 0) {
            connections.swap_remove(idle).close();
        }
    }
}

impl InstancePool {
    /// A place on a connection that is there.
    pub(super) fn take_seat(&self, shared: &Shared, fresh: bool) -> Option<Lease> {
        let seat = shared.seat(fresh)?;
        Some(self.seated(seat))
    }

    fn seated(&self, seat: Seat) -> Lease {
        let scheme = if self.secure.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let reused = seat.reused;
        let exchange = Exchange::new(seat, scheme);
        Lease { connection: Box::new(Carrier::Http2(Box::new(exchange))), reused, slot: None }
    }

    /// A place on a connection, which is opened if need be. `None` where the instance wants a connection for each request.
    pub(super) async fn lease_shared(
        self: &Rc<Self>,
        shared: &Shared,
        wanted: Wanted,
        by: ConnectBy<'_>,
    ) -> Result<Option<Lease>, ConnectError> {
        while !shared.is_http1.get() {
            if let Some(lease) = self.take_seat(shared, wanted.fresh) {
                return Ok(Some(lease));
            }
            let is_opening = shared.is_opening.get() || shared.is_settling();
            if !is_opening {
                if self.open() >= self.limits.get().max_connections && wanted.fresh {
                    shared.make_room();
                }
                if self.open() < self.limits.get().max_connections {
                    let _opening = Opening::begin(shared, self);
                    return self.connect(by).await.map(Some);
                }
                // Better one that may be stale than none.
                if let Some(lease) = self.take_seat(shared, false) {
                    return Ok(Some(lease));
                }
            }
            let (until, ends) = match wanted.waits {
                // One that is being opened has taken its time from when it was begun.
                _ if is_opening => (by.agreed(by.connected()), ConnectError::TimedOut),
                Waits::Not => return Err(ConnectError::Full { waited: false }),
                Waits::ALittle => (Instant::now() + A_LITTLE, ConnectError::Full { waited: true }),
                Waits::Long => (by.connected(), ConnectError::Exhausted),
            };
            let until = earliest(until, by.limits.deadline);
            let _waiting = Waiting::begin(self);
            timeout_at(until, self.changed.notified()).await.map_err(|_| ends)?;
        }
        Ok(None)
    }

    /// Speaks HTTP/2 on this connection from now on; the first place on it is the caller's.
    pub(super) async fn share(
        self: &Rc<Self>,
        shared: &Shared,
        stream: Stream,
        slot: OpenSlot,
        by: ConnectBy<'_>,
    ) -> Result<Lease, ConnectError> {
        let pool = Rc::downgrade(self);
        let more = move || {
            if let Some(pool) = pool.upgrade()
                && pool.waiting.get() > 0
            {
                pool.changed.notify_waiters();
            }
        };
        // Only the first bytes are written, for which there is room in a new connection.
        let until = by.agreed(Instant::now());
        let opened =
            timeout_at(until, http2::open(stream, more)).await.map_err(|_| ConnectError::TimedOut)?;
        let (connection, drive) =
            opened.map_err(|error| ConnectError::Failed(std::io::Error::other(error)))?;
        tokio::task::spawn_local(async move {
            // As long as it is open it counts.
            let _open = slot;
            drive.await;
        });
        shared.is_http1.set(false);
        let seat = connection.seat().ok_or(ConnectError::Exhausted)?;
        shared.connections.borrow_mut().push(connection);
        Ok(self.seated(seat))
    }
}

/// Somebody opens a connection, for others as well.
struct Opening<'p> {
    shared: &'p Shared,
    pool: &'p InstancePool,
}

impl<'p> Opening<'p> {
    fn begin(shared: &'p Shared, pool: &'p InstancePool) -> Self {
        shared.is_opening.set(true);
        Opening { shared, pool }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.shared.is_opening.set(false);
        self.pool.changed.notify_waiters();
    }
}
