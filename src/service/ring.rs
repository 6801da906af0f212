//! Which instances a key belongs to, in the order of preference: a ring of points (Karger et al., Consistent Hashing and
//! Random Trees, 1997), of which each instance has a number by its weight.
//!
//! A point depends on nothing but its instance's address: when an instance comes or goes, only the keys that it gains or
//! had move, which of Maglev's denser table can be said only nearly. That shares differ by some per cent, which
//! Maglev's hardly do, weighs less, since the load that an instance takes is bounded as well.
//!
//! Invariant: built beside the requests. A look-up reads two places and allocates nothing. All gateways
//! with the same instances build the same ring.

use std::net::SocketAddr;

use crate::http::key_hash::KeyHasher;

/// Points of an instance of usual weight: at least so many, and fewer than twice that. With them, shares are
/// within six per cent of what they should be two times out of three.
const POINTS: u64 = 256;
/// With many instances each has fewer, down to a tenth for ten thousand, so that a ring takes milliseconds to build and
/// megabytes to keep. Where there are so many, each has little, and `max_load` evens out the rest.
const POINTS_OF_ALL: u64 = 1 << 18;

#[derive(Debug)]
pub(super) struct Ring {
    /// Sorted.
    points: Box<[Point]>,
    /// The first point at or after each of so many equal parts of the circle, about one for each point.
    parts: Box<[u32]>,
    part_bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    place: u32,
    index: u32,
}

impl Ring {
    /// Of instances with weights of 1 or more, which are spoken of by their position.
    pub fn new(instances: impl ExactSizeIterator<Item = (SocketAddr, u32)> + Clone) -> Ring {
        let sum: u64 = instances.clone().map(|(_, weight)| u64::from(weight)).sum();
        // A power of two, so that the points of all don't change whenever one comes or goes.
        let usual = previous_power_of_two(sum / (instances.len() as u64).max(1));
        // One by one fewer: no instance that comes takes more than a point away from each of the others.
        let each = (POINTS_OF_ALL / (instances.len() as u64).max(1)).min(POINTS);
        let mut points = Vec::with_capacity(2 * each as usize * instances.len());
        for (index, (address, weight)) in (0u32..).zip(instances) {
            let seed = seed(address);
            let count = (u64::from(weight) * each / usual).max(1);
            points.extend((0..count).map(|number| Point { place: place(seed, number), index }));
        }
        let part_bits = points.len().max(1).ilog2();
        let parts = sort(&mut points, part_bits);
        Ring { points: points.into(), parts, part_bits }
    }

    /// The positions of instances from the key's place on, some of them again and again, for ever unless there are none.
    pub fn from(&self, key: u64) -> impl Iterator<Item = usize> {
        let place = (key >> 32) as u32;
        let part = part_of(place, self.part_bits) as usize;
        let mut first = self.parts[part] as usize;
        while self.points.get(first).is_some_and(|point| point.place < place) {
            first += 1;
        }
        let (before, from) = self.points.split_at(first);
        from.iter().chain(before).cycle().map(|point| point.index as usize)
    }
}

/// Sorts the points, and says where each part begins. Points are spread evenly, so that a part has but a few, and what takes
/// time is to put each into its part.
fn sort(points: &mut [Point], part_bits: u32) -> Box<[u32]> {
    let mut begins = vec![0u32; (1 << part_bits) + 1];
    points.iter().for_each(|point| begins[part_of(point.place, part_bits) as usize + 1] += 1);
    for part in 1..begins.len() {
        begins[part] += begins[part - 1];
    }
    let mut next = begins.clone();
    let unsorted = points.to_vec();
    for point in unsorted {
        let at = &mut next[part_of(point.place, part_bits) as usize];
        points[*at as usize] = point;
        *at += 1;
    }
    for ends in begins.windows(2) {
        points[ends[0] as usize..ends[1] as usize].sort_unstable();
    }
    begins.pop();
    begins.into()
}

fn part_of(place: u32, bits: u32) -> u64 {
    u64::from(place) << bits >> 32
}

fn previous_power_of_two(number: u64) -> u64 {
    1 << number.max(1).ilog2()
}

fn seed(address: SocketAddr) -> u64 {
    let mut hasher = KeyHasher::keyed(0, 0);
    match address {
        SocketAddr::V4(address) => hasher.bytes(&address.ip().octets()),
        SocketAddr::V6(address) => hasher.bytes(&address.ip().octets()),
    }
    hasher.bytes(&address.port().to_be_bytes());
    hasher.finish() as u64
}

/// The steps of SplitMix64, which any seed takes evenly over the circle.
fn place(seed: u64, number: u64) -> u32 {
    let mut mixed = seed.wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(instances: &[(u16, u32)]) -> Ring {
        Ring::new(instances.iter().map(|&(port, weight)| (([10, 0, 0, 1], port).into(), weight)))
    }

    fn even(ports: std::ops::Range<u16>) -> Vec<(u16, u32)> {
        ports.map(|port| (port, 1)).collect()
    }

    /// The ports of so many keys.
    fn owners(instances: &[(u16, u32)], keys: u64) -> Vec<u16> {
        let ring = ring(instances);
        let mut rng = fastrand::Rng::with_seed(7);
        (0..keys).map(|_| instances[ring.from(rng.u64(..)).next().unwrap()].0).collect()
    }

    #[test]
    fn a_look_up_finds_the_next_point() {
        let ring = ring(&even(0..50));
        let mut rng = fastrand::Rng::with_seed(1);
        for key in (0..1000).map(|_| rng.u64(..)).chain([0, u64::MAX]) {
            let place = (key >> 32) as u32;
            let next = ring.points.iter().position(|point| point.place >= place).unwrap_or(0);
            let expected: Vec<usize> =
                (next..next + 5).map(|at| ring.points[at % ring.points.len()].index as usize).collect();
            assert_eq!(ring.from(key).take(5).collect::<Vec<_>>(), expected);
        }
        assert!(ring.points.is_sorted());
        assert_eq!(self::ring(&[]).from(5).next(), None);
        assert_eq!(self::ring(&[(1, 1)]).from(5).next(), Some(0));
    }

    #[test]
    fn only_the_keys_of_an_instance_that_goes_move_and_not_to_one_alone() {
        let (all, fewer) = (even(0..20), even(1..20));
        let (before, after) = (owners(&all, 20_000), owners(&fewer, 20_000));
        let moved: Vec<(&u16, &u16)> = before.iter().zip(&after).filter(|(was, is)| was != is).collect();
        assert!(moved.iter().all(|(was, _)| **was == 0), "keys of others moved");
        let share = moved.len() as f64 / 20_000.0;
        assert!((0.04..0.06).contains(&share), "{share} of the keys moved");
        let mut takers: Vec<u16> = moved.iter().map(|(_, is)| **is).collect();
        takers.sort_unstable();
        takers.dedup();
        assert_eq!(takers.len(), 19, "all others take some");
        let mut shuffled = all.clone();
        fastrand::Rng::with_seed(3).shuffle(&mut shuffled);
        assert_eq!(owners(&shuffled, 20_000), before, "the order in which instances are named plays no part");
    }

    #[test]
    fn shares_follow_the_weights() {
        let instances = [(1, 1), (2, 2), (3, 5), (4, 8)];
        let owners = owners(&instances, 100_000);
        for (port, weight) in instances {
            let share = owners.iter().filter(|&&owner| owner == port).count() as f64 / 100_000.0;
            let wanted = f64::from(weight) / 16.0;
            assert!((share / wanted - 1.0).abs() < 0.15, "{port}: {share} where {wanted} was wanted");
        }
    }

    #[test]
    fn a_ring_of_ten_thousand_is_no_larger_than_one_of_a_thousand() {
        let of = |instances: u16| ring(&even(0..instances));
        for instances in [1024, 2000, 5000, 10_000] {
            let ring = of(instances);
            assert!(ring.points.len() <= POINTS_OF_ALL as usize, "{instances}: {}", ring.points.len());
            assert!(
                ring.points.len() >= POINTS_OF_ALL as usize * 9 / 10,
                "{instances}: {}",
                ring.points.len()
            );
            assert!(ring.parts.len() <= ring.points.len());
        }
        let uneven: Vec<(u16, u32)> = (0..10_000).map(|port| (port, 1 + u32::from(port % 7))).collect();
        assert!(ring(&uneven).points.len() <= 2 * POINTS_OF_ALL as usize);
    }

    /// Also where the others have fewer points for it.
    #[test]
    fn few_keys_move_when_one_comes_to_thousands() {
        for instances in [1023, 1024, 1025, 5000] {
            let (before, after) =
                (owners(&even(0..instances), 20_000), owners(&even(0..instances + 1), 20_000));
            let moved = before.iter().zip(&after).filter(|(was, is)| was != is).count();
            assert!(moved <= 20_000 / 40, "{moved} of 20,000 with {instances}");
        }
    }

    #[test]
    fn weights_scale_the_ring_and_not_its_size() {
        let light = ring(&[(1, 1), (2, 2)]);
        let heavy = ring(&[(1, 1 << 14), (2, 1 << 15)]);
        assert_eq!(light.points, heavy.points);
        let uneven = ring(&[(1, 65_535), (2, 1), (3, 1)]);
        assert!(uneven.points.len() <= 2 * POINTS as usize * 3);
        assert!(uneven.points.iter().any(|point| point.index == 2));
    }
}
