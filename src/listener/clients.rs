//! How many connections each client has open, over all workers of a listener. Asked only where there is a limit, when
//! a connection begins and when it ends.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// So that workers rarely wait for one another.
const SHARDS: usize = 32;

#[derive(Debug)]
pub struct Clients {
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    hasher: RandomState,
}

impl Default for Clients {
    fn default() -> Self {
        Clients { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

/// A connection's place among those of its client, given up when dropped.
#[derive(Debug)]
pub struct Seat {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// A place for one more connection, unless the client has as many as `most`.
    pub fn seat(self: &Arc<Self>, peer: IpAddr, most: u32) -> Option<Seat> {
        let client = network(peer);
        let mut shard = self.shard(client).lock().unwrap_or_else(PoisonError::into_inner);
        let open = shard.entry(client).or_default();
        if *open >= most {
            return None;
        }
        *open += 1;
        drop(shard);
        Some(Seat { clients: self.clone(), client })
    }

    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        &self.shards[self.hasher.hash_one(client) as usize % SHARDS]
    }
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
        if let Some(open) = shard.get_mut(&self.client) {
            *open -= 1;
            // Nothing is kept of clients that have gone.
            if *open == 0 {
                shard.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(clients: &Clients) -> usize {
        clients.shards.iter().map(|shard| shard.lock().expect("nobody panicked").len()).sum()
    }

    #[test]
    fn each_client_has_its_own_places() {
        let clients = Arc::<Clients>::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = clients.seat(one, 2).expect("the first");
        let _second = clients.seat(address("::ffff:192.0.2.1"), 2).expect("the second");
        assert!(clients.seat(one, 2).is_none());
        let third = clients.seat(other, 2).expect("another client's");
        drop(first);
        assert!(clients.seat(one, 2).is_some());
        drop(third);
        assert_eq!(known(&clients), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let clients = Arc::<Clients>::default();
        let seat = |text: &str| clients.seat(text.parse().expect("an address"), 1);
        let first = seat("2001:db8:1:2::1").expect("the first");
        assert!(seat("2001:db8:1:2:ffff::9").is_none());
        assert!(seat("2001:db8:1:3::1").is_some());
        drop(first);
        assert_eq!(known(&clients), 0);
    }
}
