//! The set of addresses whose word counts.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks as sorted, disjoint ranges: a look-up is a binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl TrustedProxies {
    /// IPv4 networks may also be written as IPv6 ones that hold mapped addresses only, `::ffff:10.0.0.0/104`.
    pub fn compile(networks: &[IpNet]) -> TrustedProxies {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for network in networks {
            match (network.network().to_canonical(), network.broadcast().to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((u32::from(first), u32::from(last))),
                (IpAddr::V6(first), IpAddr::V6(last)) => v6.push((u128::from(first), u128::from(last))),
                // A network that holds all mapped addresses and more. Peers are never seen as mapped
                // ones, so the IPv6 part of it is what counts.
                _ => {
                    if let (IpAddr::V6(first), IpAddr::V6(last)) = (network.network(), network.broadcast()) {
                        v6.push((u128::from(first), u128::from(last)));
                    }
                }
            }
        }
        TrustedProxies { v4: merge(v4), v6: merge(v6) }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => is_in(&self.v4, u32::from(address)),
            IpAddr::V6(address) => is_in(&self.v6, u128::from(address)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
    ranges.into()
}

fn is_in<T: Ord>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind.checked_sub(1).is_some_and(|index| address <= ranges[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(networks: &[&str]) -> TrustedProxies {
        let networks: Vec<IpNet> = networks.iter().map(|network| network.parse().unwrap()).collect();
        TrustedProxies::compile(&networks)
    }

    fn contains(trusted: &TrustedProxies, address: &str) -> bool {
        trusted.contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_are_found_in_networks_of_any_order_and_overlap() {
        let trusted = compile(&[
            "192.0.2.0/24",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "127.0.0.1/32",
            "2001:db8::/32",
            "fd00::/8",
        ]);
        for inside in
            ["10.0.0.0", "10.255.255.255", "10.1.2.3", "127.0.0.1", "192.0.2.255", "2001:db8::1", "fdff::1"]
        {
            assert!(contains(&trusted, inside), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "127.0.0.2", "192.0.3.0", "2001:db9::", "::1", "0.0.0.0"]
        {
            assert!(!contains(&trusted, outside), "{outside}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4_addresses() {
        assert!(contains(&compile(&["10.0.0.0/8"]), "::ffff:10.1.2.3"));
        assert!(contains(&compile(&["::ffff:10.0.0.0/104"]), "10.1.2.3"));
        assert!(!contains(&compile(&["::/0"]), "10.1.2.3"));
        assert!(contains(&compile(&["::/0"]), "2001:db8::1"));
        assert!(contains(&compile(&["0.0.0.0/0"]), "255.255.255.255"));
    }

    #[test]
    fn nobody_is_trusted_by_an_empty_list() {
        let trusted = compile(&[]);
        assert!(trusted.is_empty());
        assert!(!contains(&trusted, "127.0.0.1"));
    }

    proptest::proptest! {
        #[test]
        fn it_agrees_with_asking_each_network(
            networks in proptest::collection::vec((0_u32.., 0_u8..=32), 0..12),
            address: u32,
        ) {
            let networks: Vec<IpNet> = networks
                .into_iter()
                .map(|(address, length)| IpNet::new(std::net::Ipv4Addr::from(address).into(), length).unwrap())
                .collect();
            let address = IpAddr::from(std::net::Ipv4Addr::from(address));
            let expected = networks.iter().any(|network| network.contains(&address));
            proptest::prop_assert_eq!(TrustedProxies::compile(&networks).contains(address), expected);
        }
    }
}
