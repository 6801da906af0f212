//! Networks with a verdict each, of which the one with the longest prefix counts.
//!
//! They are cut into disjoint ranges when they are compiled, so that a look-up is one binary search however many
//! there are and however they nest.

use std::net::IpAddr;

use ipnet::IpNet;

/// What the lists say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It is in no network.
    Unlisted,
    Allowed,
    Denied,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
    written: usize,
}

/// Each range goes from its start to the next one's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<T> {
    /// Ascending, the first of them 0.
    starts: Box<[T]>,
    verdicts: Box<[Verdict]>,
}

struct Network<T> {
    first: T,
    last: T,
    verdict: Verdict,
}

impl Networks {
    /// Of two equal networks the one that denies counts. IPv4 networks may also be written as IPv6 ones that hold
    /// mapped addresses only, `::ffff:10.0.0.0/104`.
    pub fn compile(networks: impl IntoIterator<Item = (IpNet, Verdict)>) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (network, verdict) in networks {
            match (network.network(), network.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    v4.push(Network { first: u32::from(first), last: u32::from(last), verdict });
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                        (Some(first), Some(last)) => {
                            v4.push(Network { first: u32::from(first), last: u32::from(last), verdict });
                        }
                        // One that holds all mapped addresses and more: clients are never seen as mapped ones.
                        _ => v6.push(Network { first: u128::from(first), last: u128::from(last), verdict }),
                    }
                }
                // Both are of the network's own family.
                _ => {}
            }
        }
        Networks { written: v4.len() + v6.len(), v4: Ranges::cut(v4), v6: Ranges::cut(v6) }
    }

    pub fn verdict(&self, address: IpAddr) -> Verdict {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(&u32::from(address)),
            IpAddr::V6(address) => self.v6.find(&u128::from(address)),
        }
    }

    /// How many networks it was made of.
    pub fn written(&self) -> usize {
        self.written
    }
}

/// The numbers that addresses are.
trait Number: Ord + Copy + Default {
    fn next(self) -> Option<Self>;
}

impl Number for u32 {
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Number for u128 {
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

impl<T: Number> Ranges<T> {
    fn cut(mut networks: Vec<Network<T>>) -> Ranges<T> {
        // Outer networks before those in them, and of equal ones the one that denies first.
        networks.sort_unstable_by(|one, other| {
            one.first.cmp(&other.first).then(other.last.cmp(&one.last)).then(other.verdict.cmp(&one.verdict))
        });
        networks.dedup_by(|next, kept| (next.first, next.last) == (kept.first, kept.last));
        let mut cuts = Cuts(vec![(T::default(), Verdict::Unlisted)]);
        // The networks that hold the place that has been come to, each within the one before.
        let mut open: Vec<Network<T>> = Vec::new();
        for network in networks {
            while open.last().is_some_and(|inner| inner.last < network.first) {
                cuts.close(&mut open);
            }
            cuts.add(network.first, network.verdict);
            open.push(network);
        }
        while !open.is_empty() {
            cuts.close(&mut open);
        }
        let (starts, verdicts): (Vec<T>, Vec<Verdict>) = cuts.0.into_iter().unzip();
        Ranges { starts: starts.into(), verdicts: verdicts.into() }
    }
}

impl<T: Ord> Ranges<T> {
    fn find(&self, address: &T) -> Verdict {
        let behind = self.starts.partition_point(|start| start <= address);
        self.verdicts[behind.saturating_sub(1)]
    }
}

/// Where verdicts change, in order.
struct Cuts<T>(Vec<(T, Verdict)>);

impl<T: Number> Cuts<T> {
    /// The innermost network ends, and the one around it counts again.
    fn close(&mut self, open: &mut Vec<Network<T>>) {
        let Some(ended) = open.pop() else { return };
        let around = open.last().map_or(Verdict::Unlisted, |network| network.verdict);
        if let Some(next) = ended.last.next() {
            self.add(next, around);
        }
    }

    fn add(&mut self, start: T, verdict: Verdict) {
        if self.0.last().is_some_and(|(last, _)| *last == start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, last)| *last != verdict) {
            self.0.push((start, verdict));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn compile(allow: &[&str], deny: &[&str]) -> Networks {
        let parse = |text: &&str| text.parse::<IpNet>().expect("a network");
        let allow = allow.iter().map(parse).map(|network| (network, Verdict::Allowed));
        Networks::compile(allow.chain(deny.iter().map(parse).map(|network| (network, Verdict::Denied))))
    }

    fn ask(networks: &Networks, address: &str) -> Verdict {
        networks.verdict(address.parse().expect("an address"))
    }

    #[test]
    fn the_longest_prefix_counts_whatever_the_order() {
        let networks = compile(
            &["10.0.0.0/8", "10.6.6.7/32", "2001:db8::/32", "255.0.0.0/8"],
            &["10.6.0.0/16", "0.0.0.0/0", "2001:db8:1::/48", "255.255.255.255/32"],
        );
        for (address, verdict) in [
            ("0.0.0.0", Verdict::Denied),
            ("9.255.255.255", Verdict::Denied),
            ("10.0.0.0", Verdict::Allowed),
            ("10.5.255.255", Verdict::Allowed),
            ("10.6.0.0", Verdict::Denied),
            ("10.6.6.6", Verdict::Denied),
            ("10.6.6.7", Verdict::Allowed),
            ("10.6.6.8", Verdict::Denied),
            ("10.7.0.0", Verdict::Allowed),
            ("11.0.0.0", Verdict::Denied),
            ("255.0.0.0", Verdict::Allowed),
            ("255.255.255.254", Verdict::Allowed),
            ("255.255.255.255", Verdict::Denied),
            ("::", Verdict::Unlisted),
            ("2001:db8::1", Verdict::Allowed),
            ("2001:db8:1::1", Verdict::Denied),
            ("2001:db8:2::", Verdict::Allowed),
            ("2001:db9::", Verdict::Unlisted),
        ] {
            assert_eq!(ask(&networks, address), verdict, "{address}");
        }
        assert_eq!(networks.written(), 8);
    }

    #[test]
    fn of_equal_networks_the_one_that_denies_counts() {
        for networks in
            [compile(&["10.0.0.0/8"], &["10.0.0.0/8"]), compile(&["::ffff:10.0.0.0/104"], &["10.0.0.0/8"])]
        {
            assert_eq!(ask(&networks, "10.1.2.3"), Verdict::Denied);
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4_addresses() {
        let networks = compile(&["::ffff:192.0.2.0/120"], &["10.0.0.0/8", "::/0"]);
        assert_eq!(ask(&networks, "::ffff:10.1.2.3"), Verdict::Denied);
        assert_eq!(ask(&networks, "192.0.2.9"), Verdict::Allowed);
        assert_eq!(ask(&networks, "::ffff:192.0.2.9"), Verdict::Allowed);
        assert_eq!(ask(&networks, "192.0.3.9"), Verdict::Unlisted, "::/0 is all of IPv6");
        assert_eq!(ask(&networks, "2001:db8::1"), Verdict::Denied);
    }

    #[test]
    fn nobody_is_in_no_network() {
        let networks = compile(&[], &[]);
        assert_eq!(ask(&networks, "255.255.255.255"), Verdict::Unlisted);
        assert_eq!(ask(&networks, "::1"), Verdict::Unlisted);
    }

    /// Counts what it is compared to.
    #[derive(Clone, Copy, Default)]
    struct Counted<'c>(u32, Option<&'c Cell<u32>>);

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }

    impl Eq for Counted<'_> {}

    impl PartialOrd for Counted<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Counted<'_> {
        fn cmp(&self, other: &Self) -> Ordering {
            for counter in self.1.iter().chain(&other.1) {
                counter.set(counter.get() + 1);
            }
            self.0.cmp(&other.0)
        }
    }

    #[test]
    fn a_look_up_takes_as_many_steps_as_the_number_has_digits() {
        // Every other address, so that nothing melts together.
        let hundred_thousand = (0..100_000_u32).map(|n| {
            let network = IpNet::from(IpAddr::from(Ipv4Addr::from(n * 2 + 1)));
            (network, Verdict::Denied)
        });
        let networks = Networks::compile(hundred_thousand);
        assert_eq!(networks.v4.starts.len(), 200_001);
        let ranges = Ranges {
            starts: networks.v4.starts.iter().map(|start| Counted(*start, None)).collect(),
            verdicts: networks.v4.verdicts.clone(),
        };
        for address in [0, 1, 77_777, 100_000, 199_999, u32::MAX] {
            let steps = Cell::new(0);
            let verdict = ranges.find(&Counted(address, Some(&steps)));
            assert_eq!(verdict == Verdict::Denied, address % 2 == 1 && address < 200_000, "{address}");
            assert!((1..=19).contains(&steps.get()), "{} steps to {address}", steps.get());
        }
    }

    proptest::proptest! {
        #[test]
        fn it_agrees_with_asking_each_network(
            networks in proptest::collection::vec((0_u32..64, 24_u8..=32, proptest::bool::ANY), 0..16),
            wide in proptest::collection::vec((0_u128.., 0_u8..=128, proptest::bool::ANY), 0..8),
            address in 0_u32..512,
            wide_address: u128,
        ) {
            let verdict = |denied| if denied { Verdict::Denied } else { Verdict::Allowed };
            // Close beside each other, so that they nest.
            let narrow = networks.into_iter().map(|(address, length, denied)| {
                (IpNet::new(Ipv4Addr::from(address * 8).into(), length).unwrap().trunc(), verdict(denied))
            });
            let wide = wide.into_iter().map(|(address, length, denied)| {
                (IpNet::new(Ipv6Addr::from(address).into(), length).unwrap().trunc(), verdict(denied))
            });
            let all: Vec<(IpNet, Verdict)> = narrow.chain(wide).collect();
            let compiled = Networks::compile(all.iter().copied());
            for address in [IpAddr::from(Ipv4Addr::from(address)), IpAddr::from(Ipv6Addr::from(wide_address))] {
                let holding = all.iter().filter(|(network, _)| network.contains(&address));
                let expected = holding.map(|(network, verdict)| (network.prefix_len(), *verdict)).max();
                let expected = expected.map_or(Verdict::Unlisted, |(_, verdict)| verdict);
                proptest::prop_assert_eq!(compiled.verdict(address), expected, "{}", address);
            }
        }
    }
}
