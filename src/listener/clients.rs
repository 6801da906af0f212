//! What each client of a listener has, over all workers: connections that are open, and connections that it has begun
//! lately. Asked only where there is a limit, when a connection begins and when it ends.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;

/// So that workers rarely wait for one another.
const SHARDS: usize = 32;
/// With so many clients, a shard first forgets those that have gone.
const MANY: usize = 1024;

/// What one client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerClient {
    /// Connections at once.
    pub most: u32,
    /// So many connections begun in such a time, also all of them at once.
    pub rate: Option<(u32, Duration)>,
}

#[derive(Debug)]
pub struct Clients {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Debug)]
struct Shard {
    clients: HashMap<IpAddr, Client>,
    /// It is looked for those that have gone when there are so many.
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Client {
    open: u32,
    /// Microseconds of the clock: up to then the rate is used up.
    spent_until: u64,
}

impl Default for Clients {
    fn default() -> Self {
        let shard = |_| Mutex::new(Shard { clients: HashMap::new(), sweep_at: MANY });
        Clients { shards: std::array::from_fn(shard), hasher: RandomState::new() }
    }
}

/// A connection's place among those of its client, given up when dropped.
#[derive(Debug)]
pub struct Seat {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// A place for one more connection, unless the client has all that it may have.
    pub fn seat(self: &Arc<Self>, peer: IpAddr, limit: &PerClient) -> Option<Seat> {
        let name = network(peer);
        let now = now();
        let mut shard = self.shard(name).lock().unwrap_or_else(PoisonError::into_inner);
        shard.sweep(now);
        let client = shard.clients.entry(name).or_default();
        if client.open >= limit.most || !client.begins(limit, now) {
            return None;
        }
        client.open += 1;
        drop(shard);
        Some(Seat { clients: self.clone(), client: name })
    }

    fn shard(&self, client: IpAddr) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(client) as usize % SHARDS]
    }
}

impl Shard {
    fn sweep(&mut self, now: u64) {
        if self.clients.len() >= self.sweep_at {
            self.clients.retain(|_, client| !client.is_gone(now));
            self.sweep_at = MANY.max(2 * self.clients.len());
        }
    }
}

impl Client {
    /// Takes its part of the rate, if there is enough of it left.
    fn begins(&mut self, limit: &PerClient, now: u64) -> bool {
        let Some((count, per)) = limit.rate else { return true };
        let per = micros(per);
        let spent_until = self.spent_until.max(now) + per / u64::from(count.max(1));
        if spent_until > now + per {
            return false;
        }
        self.spent_until = spent_until;
        true
    }

    /// Nothing has to be remembered of it.
    fn is_gone(&self, now: u64) -> bool {
        self.open == 0 && self.spent_until <= now
    }
}

fn now() -> u64 {
    clock::now().0.saturating_mul(1000)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4)
}

/// Whoever has one address of IPv6 has its /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        v4 => v4,
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(self.client).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = shard.clients.get_mut(&self.client) {
            client.open -= 1;
            if client.is_gone(now()) {
                shard.clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most(most: u32) -> PerClient {
        PerClient { most, rate: None }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn known(clients: &Clients) -> usize {
        clients.shards.iter().map(|shard| shard.lock().expect("nobody panicked").clients.len()).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_its_own_places() {
        let clients = Arc::<Clients>::default();
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = clients.seat(one, &most(2)).expect("the first");
        let _second = clients.seat(address("::ffff:192.0.2.1"), &most(2)).expect("the second");
        assert!(clients.seat(one, &most(2)).is_none());
        let third = clients.seat(other, &most(2)).expect("another client's");
        drop(first);
        assert!(clients.seat(one, &most(2)).is_some());
        drop(third);
        assert_eq!(known(&clients), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_client() {
        let clients = Arc::<Clients>::default();
        let seat = |text: &str| clients.seat(address(text), &most(1));
        let first = seat("2001:db8:1:2::1").expect("the first");
        assert!(seat("2001:db8:1:2:ffff::9").is_none());
        assert!(seat("2001:db8:1:3::1").is_some());
        drop(first);
        assert_eq!(known(&clients), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_may_begin_only_so_fast() {
        let clients = Arc::<Clients>::default();
        let limit = PerClient { most: u32::MAX, rate: Some((10, Duration::from_secs(1))) };
        let begun = |address| (0..100).take_while(|_| clients.seat(address, &limit).is_some()).count();
        let one = address("192.0.2.1");
        assert_eq!((begun(one), begun(one)), (10, 0));
        assert_eq!(begun(address("192.0.2.2")), 10);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(begun(one), 3);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(begun(one), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_have_gone_are_forgotten() {
        let clients = Arc::<Clients>::default();
        let limit = PerClient { most: 1, rate: Some((1, Duration::from_secs(1))) };
        for number in 0..200_000u32 {
            assert!(clients.seat(IpAddr::V4(number.into()), &limit).is_some());
            if number % 1000 == 0 {
                tokio::time::advance(Duration::from_secs(2)).await;
            }
        }
        assert!(known(&clients) <= SHARDS * (MANY + 1), "{}", known(&clients));
    }
}
