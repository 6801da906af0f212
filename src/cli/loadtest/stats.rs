//! What numbers of a sample say about what they were drawn from.

/// Of the normal distribution, for 95 % between its two sides.
const Z95: f64 = 1.959_963_985;

/// The quantiles of a sample of `count` between which the true `quantile` lies, 95 times of a hundred, whatever
/// the distribution: how many samples lie below it is binomial.
pub fn quantile_interval(count: u64, quantile: f64) -> (f64, f64) {
    wilson(quantile, count as f64, Z95)
}

/// The interval in which a true share lies when `hits` of `count` were counted (Wilson's score, `z` standard deviations).
pub fn share_interval(hits: u64, count: u64, z: f64) -> (f64, f64) {
    if count == 0 {
        return (0.0, 1.0);
    }
    wilson(hits as f64 / count as f64, count as f64, z)
}

fn wilson(share: f64, count: f64, z: f64) -> (f64, f64) {
    if count <= 0.0 {
        return (0.0, 1.0);
    }
    let squared = z * z / count;
    let middle = (share + squared / 2.0) / (1.0 + squared);
    let half = z / (1.0 + squared) * (share * (1.0 - share) / count + squared / (4.0 * count)).sqrt();
    ((middle - half).max(0.0).min(share), (middle + half).min(1.0).max(share))
}

/// The probability that two samples of the same distribution differ in rank at least as much as these (Mann-Whitney's U
/// test, both sides, in its normal approximation with ties). 1 where one is empty.
pub fn mann_whitney(first: &[f64], second: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> =
        first.iter().map(|x| (*x, true)).chain(second.iter().map(|x| (*x, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut ties) = (0.0, 0.0);
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let before = all.partition_point(|(x, _)| *x < group[0].0) as f64;
        let size = group.len() as f64;
        // The mean of the ranks that equal values share.
        let rank = before + (size + 1.0) / 2.0;
        ranks += rank * group.iter().filter(|(_, of_first)| *of_first).count() as f64;
        ties += size * size * size - size;
    }
    let (n, m) = (first.len() as f64, second.len() as f64);
    let both = n + m;
    let u = ranks - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * (both + 1.0 - ties / (both * (both - 1.0)));
    // NaN, of empty samples, is not above 0 either.
    if variance > 0.0 { two_sided(((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt()) } else { 1.0 }
}

/// The probability of a normal variable so many standard deviations from its mean or more, to either side.
fn two_sided(z: f64) -> f64 {
    // Abramowitz and Stegun 7.1.26: right to seven digits.
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let polynomial = series.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    (polynomial * (-x * x).exp()).clamp(0.0, 1.0)
}

/// By what the median of the second sample is larger than that of the first, as a factor, and between which factors that lies
/// 95 times of a hundred (bootstrap: medians of samples drawn from the samples).
pub fn median_ratio(first: &[f64], second: &[f64]) -> Option<(f64, f64, f64)> {
    const DRAWS: usize = 2000;
    let ratio = |first: &mut Vec<f64>, second: &mut Vec<f64>| {
        let (a, b) = (median(first)?, median(second)?);
        (a > 0.0).then_some(b / a)
    };
    let middle = ratio(&mut first.to_vec(), &mut second.to_vec())?;
    // The same samples are always told the same.
    let mut random = fastrand::Rng::with_seed(1);
    let mut draw = |of: &[f64]| (0..of.len()).map(|_| of[random.usize(..of.len())]).collect::<Vec<f64>>();
    let mut ratios: Vec<f64> =
        (0..DRAWS).filter_map(|_| ratio(&mut draw(first), &mut draw(second))).collect();
    ratios.sort_by(f64::total_cmp);
    let low = *ratios.get(ratios.len() / 40)?;
    let high = *ratios.get(ratios.len() - 1 - ratios.len() / 40)?;
    Some((middle, low, high))
}

pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[half]),
        _ => Some(f64::midpoint(values[half - 1], values[half])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_share_lies_within_its_interval(count in 1u64..1_000_000, part in 0.0..=1.0f64) {
            let hits = (count as f64 * part) as u64;
            let (low, high) = share_interval(hits, count, Z95);
            let share = hits as f64 / count as f64;
            prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
            let (less, more) = share_interval(hits * 4, count * 4, Z95);
            prop_assert!(more - less <= high - low, "more samples say more");
        }
    }

    #[test]
    fn intervals_are_as_wide_as_the_tables_say() {
        let (low, high) = share_interval(10, 100, Z95);
        assert!((low - 0.0552).abs() < 0.001 && (high - 0.1744).abs() < 0.001, "{low} {high}");
        assert_eq!(share_interval(0, 0, Z95), (0.0, 1.0));
        let (low, high) = quantile_interval(10_000, 0.99);
        assert!((low - 0.9878).abs() < 0.0005 && (high - 0.9918).abs() < 0.0005, "{low} {high}");
    }

    /// Of a hundred samples, about 95 intervals hold the true value.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut random = fastrand::Rng::with_seed(7);
        let held = (0..2000).filter(|_| {
            let hits = (0..500).filter(|_| random.f64() < 0.03).count() as u64;
            let (low, high) = share_interval(hits, 500, Z95);
            (low..=high).contains(&0.03)
        });
        let share = held.count() as f64 / 2000.0;
        assert!((0.93..=0.975).contains(&share), "{share}");
    }

    #[test]
    fn ranks_are_compared_as_the_tables_say() {
        let (low, high) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((mann_whitney(&low, &high) - 0.012_19).abs() < 1e-4);
        assert!((mann_whitney(&low, &low) - 1.0).abs() < 1e-6);
        assert_eq!((mann_whitney(&[], &low), mann_whitney(&[], &[])), (1.0, 1.0));
        assert_eq!(mann_whitney(&[3.0; 9], &[3.0; 9]), 1.0);
        assert!((two_sided(1.959_964) - 0.05).abs() < 1e-6 && (two_sided(0.0) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn medians_and_their_ratio() {
        assert_eq!(
            [median(&mut []), median(&mut [3.0, 1.0, 2.0]), median(&mut [4.0, 1.0])],
            [None, Some(2.0), Some(2.5)]
        );
        let (first, second): (Vec<f64>, Vec<f64>) =
            (0..30).map(|n| (100.0 + f64::from(n), 150.0 + f64::from(n))).unzip();
        let (ratio, low, high) = median_ratio(&first, &second).expect("there are samples");
        assert!(
            low <= ratio && ratio <= high && (1.3..1.6).contains(&ratio) && low > 1.2,
            "{low} {ratio} {high}"
        );
        assert_eq!(median_ratio(&[], &second), None);
        assert_eq!(median_ratio(&[0.0; 3], &second), None);
    }

    /// Of samples that have nothing to do with each other, one in a hundred looks as if it had.
    #[test]
    fn noise_is_taken_for_change_as_rarely_as_it_should() {
        let mut random = fastrand::Rng::with_seed(11);
        // Latencies are skewed.
        let mut sample = || (0..20).map(|_| 1.0 / (random.f64() + 0.05)).collect::<Vec<f64>>();
        let alarms = (0..3000).filter(|_| mann_whitney(&sample(), &sample()) < 0.01).count();
        assert!((10..=60).contains(&alarms), "{alarms} of 3000");
    }

    proptest! {
        #[test]
        fn neither_side_is_the_first(
            first in prop::collection::vec(0.0..100.0f64, 1..30), second in prop::collection::vec(0.0..100.0f64, 1..30),
        ) {
            let (one, other) = (mann_whitney(&first, &second), mann_whitney(&second, &first));
            prop_assert!((one - other).abs() < 1e-9 && (0.0..=1.0).contains(&one), "{} {}", one, other);
        }
    }
}
