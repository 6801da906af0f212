//! A precomputed order of instances in which each comes up as often as its weight says, spread as evenly
//! as it goes, so that picking by weight is one look-up.
//!
//! It does what nginx's smooth weighted round robin does, found by deadlines instead: of `w` turns in a
//! round, turn `k` is due at `(k + ½) / w` of it. That takes `n log n` for the whole order rather than
//! a pass over all instances for each turn.

/// A round has at most this many turns, or four for each instance where that is more. Weights that
/// need more are scaled down, with one turn as the least.
const MAX_TURNS: u64 = 4096;
const MAX_TURNS_EACH: u64 = 4;

#[derive(Debug)]
pub(super) struct Order {
    /// Indices into the set; `None` when all weights are equal and the set itself is the order.
    turns: Option<Box<[u32]>>,
    instances: usize,
}

impl Order {
    /// Weights are 1 or more.
    pub fn new(weights: &[u32]) -> Self {
        let counts = turn_counts(weights);
        let equal = counts.iter().all(|&count| count == 1);
        Order { turns: (!equal).then(|| interleave(&counts)), instances: weights.len() }
    }

    /// The order in which weights play no part.
    pub fn unweighted(instances: usize) -> Self {
        Order { turns: None, instances }
    }

    /// The number of turns in a round; at least the number of instances.
    pub fn len(&self) -> usize {
        self.turns.as_ref().map_or(self.instances, |turns| turns.len())
    }

    /// Whose turn it is. `turn` is below [`Order::len`].
    pub fn at(&self, turn: usize) -> usize {
        self.turns.as_ref().map_or(turn, |turns| turns[turn] as usize)
    }
}

/// How many turns each instance has in a round: its weight, reduced to a bounded sum.
fn turn_counts(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |divisor, &weight| gcd(divisor, weight)).max(1);
    let mut counts: Vec<u64> = weights.iter().map(|&weight| u64::from(weight / divisor).max(1)).collect();
    let sum: u64 = counts.iter().sum();
    let most = MAX_TURNS.max(MAX_TURNS_EACH * weights.len() as u64);
    if sum > most {
        for count in &mut counts {
            *count = ((u128::from(*count) * u128::from(most) + u128::from(sum / 2)) / u128::from(sum)).max(1)
                as u64;
        }
    }
    counts
}

fn interleave(counts: &[u64]) -> Box<[u32]> {
    let mut due: Vec<(f64, u32)> = Vec::with_capacity(counts.iter().sum::<u64>() as usize);
    for (index, &count) in counts.iter().enumerate() {
        due.extend((0..count).map(|turn| ((turn as f64 + 0.5) / count as f64, index as u32)));
    }
    due.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    due.into_iter().map(|(_, index)| index).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(order: &Order) -> Vec<usize> {
        (0..order.len()).map(|turn| order.at(turn)).collect()
    }

    fn count(order: &Order, index: usize) -> usize {
        turns(order).into_iter().filter(|&turn| turn == index).count()
    }

    #[test]
    fn turns_are_spread_by_weight() {
        assert_eq!(turns(&Order::new(&[5, 1, 1])), [0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(turns(&Order::new(&[1, 2, 5])), [2, 1, 2, 0, 2, 2, 1, 2]);
        assert_eq!(turns(&Order::new(&[20, 40])), [1, 0, 1]);
    }

    #[test]
    fn equal_weights_need_no_table() {
        assert!(Order::new(&[7; 1000]).turns.is_none());
        assert_eq!(turns(&Order::new(&[7, 7, 7])), [0, 1, 2]);
        assert_eq!(Order::new(&[]).len(), 0);
    }

    #[test]
    fn huge_weights_are_scaled_down_and_nobody_is_left_out() {
        let order = Order::new(&[u32::MAX, u32::MAX / 2, 1]);
        assert!(order.len() <= MAX_TURNS as usize + 3);
        assert_eq!(count(&order, 2), 1);
        let ratio = count(&order, 0) as f64 / count(&order, 1) as f64;
        assert!((1.98..2.02).contains(&ratio), "{ratio}");
    }

    proptest! {
        /// In any stretch of a round, an instance's turns differ from its share by a bounded number.
        #[test]
        fn no_instance_is_bunched(weights in proptest::collection::vec(1u32..50, 1..12)) {
            let order = Order::new(&weights);
            let turns = turns(&order);
            for index in 0..weights.len() {
                let share = count(&order, index) as f64 / turns.len() as f64;
                let mut so_far = 0.0;
                for (position, &turn) in turns.iter().enumerate() {
                    so_far += f64::from(turn == index);
                    let off = so_far - share * (position + 1) as f64;
                    // Others' rounding may shift a turn by one place each; its own by one turn.
                    let slack = 1.0 + share * weights.len() as f64;
                    prop_assert!(off.abs() <= slack, "{weights:?}: {index} is off by {off} at {position}");
                }
            }
        }

        #[test]
        fn every_instance_has_its_share(weights in proptest::collection::vec(1u32..=65_535, 1..60)) {
            let order = Order::new(&weights);
            let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            for (index, &weight) in weights.iter().enumerate() {
                let wanted = f64::from(weight) / sum as f64 * order.len() as f64;
                let off = (count(&order, index) as f64 - wanted).abs();
                prop_assert!(off <= 1.5 + wanted * 0.02, "{wanted} wanted, off by {off}");
            }
        }
    }
}
