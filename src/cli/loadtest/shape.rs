//! The shape of a load over time: stages of a rate or of a number of connections, each constant or a ramp.
//!
//! The times at which requests are due are computed from their numbers, never from when others were sent, so
//! that nothing that goes slowly shifts what comes after it.

use std::time::Duration;

/// A straight line from one level to another. Levels are requests a second, or requests at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    pub from: f64,
    pub to: f64,
    pub duration: Duration,
}

impl Stage {
    pub fn constant(level: f64, duration: Duration) -> Stage {
        Stage { from: level, to: level, duration }
    }

    fn seconds(&self) -> f64 {
        self.duration.as_secs_f64()
    }

    /// The area below the line: the requests of the stage, where levels are rates.
    fn area(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds()
    }

    /// The time into the stage at which the area below the line has reached `area`.
    fn time_of(&self, area: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds();
        // The root of `from·t + slope·t²/2 = area` in the form that stays exact when the slope is nothing.
        let root = (self.from * self.from + 2.0 * slope * area).max(0.0).sqrt();
        let time = if self.from + root > 0.0 { 2.0 * area / (self.from + root) } else { 0.0 };
        time.clamp(0.0, self.seconds())
    }
}

/// Stages one after another. None of no length; levels are not negative.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape(Vec<Stage>);

impl Shape {
    pub fn new(stages: impl IntoIterator<Item = Stage>) -> Shape {
        Shape(stages.into_iter().filter(|stage| !stage.duration.is_zero()).collect())
    }

    pub fn constant(level: f64, duration: Duration) -> Shape {
        Shape::new([Stage::constant(level, duration)])
    }

    pub fn duration(&self) -> Duration {
        self.0.iter().map(|stage| stage.duration).sum()
    }

    /// The requests of all stages, where levels are rates.
    pub fn requests(&self) -> u64 {
        // Half a millionth of a request is what the sum of many stages may have lost.
        (self.0.iter().map(Stage::area).sum::<f64>() - 5e-7).ceil().max(0.0) as u64
    }

    /// When the request with this number, from 0, is due, measured from the beginning. `None` after the last.
    pub fn due(&self, number: u64) -> Option<Duration> {
        if number >= self.requests() {
            return None;
        }
        let mut area = number as f64;
        let mut begun = 0.0;
        for (index, stage) in self.0.iter().enumerate() {
            // What the last stage lacks for the last request is only what rounding took.
            if area < stage.area() || index + 1 == self.0.len() {
                return Some(Duration::from_secs_f64(begun + stage.time_of(area)));
            }
            area -= stage.area();
            begun += stage.seconds();
        }
        None
    }

    /// The level at a time since the beginning; nothing once all stages are over.
    pub fn level(&self, at: Duration) -> f64 {
        let mut begun = Duration::ZERO;
        for stage in &self.0 {
            let into = at.saturating_sub(begun);
            if into < stage.duration {
                return stage.from + (stage.to - stage.from) * into.as_secs_f64() / stage.seconds();
            }
            begun += stage.duration;
        }
        0.0
    }

    pub fn highest(&self) -> f64 {
        self.0.iter().flat_map(|stage| [stage.from, stage.to]).fold(0.0, f64::max)
    }

    /// Whether the level is the same all the time.
    pub fn is_constant(&self) -> bool {
        self.0.iter().all(|stage| stage.from == stage.to && stage.from == self.0[0].from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn a_constant_rate_is_evenly_spaced_and_exact() {
        let shape = Shape::constant(500.0, seconds(10.0));
        assert_eq!(shape.requests(), 5000);
        assert_eq!(shape.due(0), Some(Duration::ZERO));
        assert_eq!(shape.due(1), Some(Duration::from_millis(2)));
        assert_eq!(shape.due(4999), Some(Duration::from_millis(9998)));
        assert_eq!(shape.due(5000), None);
        assert!(shape.is_constant());
    }

    #[test]
    fn a_ramp_from_nothing_sends_half_of_what_its_end_would() {
        let ramp = Stage { from: 0.0, to: 100.0, duration: seconds(10.0) };
        let shape = Shape::new([ramp, Stage::constant(100.0, seconds(1.0))]);
        assert_eq!(shape.requests(), 600);
        // The area below the line up to t is 5t².
        assert_eq!(shape.due(125), Some(seconds(5.0)));
        assert_eq!(shape.due(500), Some(seconds(10.0)));
        assert_eq!(shape.level(seconds(5.0)), 50.0);
        assert_eq!(shape.level(seconds(10.5)), 100.0);
        assert_eq!(shape.level(seconds(11.0)), 0.0);
        assert_eq!(shape.highest(), 100.0);
        assert!(!shape.is_constant());
    }

    #[test]
    fn nothing_comes_of_nothing() {
        for shape in [Shape::new([]), Shape::constant(0.0, seconds(1.0)), Shape::constant(5.0, seconds(0.0))]
        {
            assert_eq!((shape.requests(), shape.due(0)), (0, None), "{shape:?}");
        }
    }

    fn stages() -> impl Strategy<Value = Shape> {
        let stage = (0.0..2000.0, 0.0..2000.0, 1u64..5000).prop_map(|(from, to, ms)| Stage {
            from,
            to,
            duration: Duration::from_millis(ms),
        });
        prop::collection::vec(stage, 1..5).prop_map(Shape::new)
    }

    proptest! {
        #[test]
        fn requests_are_due_in_order_and_within_the_test(shape in stages(), at in 0.0..1.0f64) {
            let all = shape.requests();
            prop_assume!(all > 1);
            let number = ((all - 1) as f64 * at) as u64;
            let one = shape.due(number).expect("it is one of them");
            prop_assert!(one <= shape.duration() + Duration::from_nanos(10));
            if let Some(next) = shape.due(number + 1) {
                prop_assert!(next >= one);
            }
            prop_assert_eq!(shape.due(all), None);
        }

        /// The number due before any moment is the area below the line up to it: the rate is the one asked for
        /// in every stretch of time, not only over all of it.
        #[test]
        fn what_was_due_by_then_is_the_area_below_the_line(shape in stages(), at in 0.0..1.0f64) {
            let moment = shape.duration().mul_f64(at);
            let steps = 4000;
            let step = moment / steps;
            let area: f64 = (0..steps).map(|i| shape.level(step * i + step / 2) * step.as_secs_f64()).sum();
            let (mut low, mut high) = (0, shape.requests());
            while low < high {
                let middle = (low + high) / 2;
                if shape.due(middle).is_some_and(|due| due < moment) { low = middle + 1 } else { high = middle }
            }
            // A step of the sum lies across the end of a stage at most four times.
            let inexact = 2.0 + 4.0 * 2000.0 * step.as_secs_f64();
            prop_assert!((low as f64 - area).abs() <= inexact, "{} were due, {} asked for", low, area);
        }
    }
}
