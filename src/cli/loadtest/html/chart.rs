//! Charts in SVG: lines over an axis, drawn small enough to be read on a phone.

use std::fmt::Write;

/// Units of the drawing; it is scaled to the page's width.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;
/// Points of a line; more can't be seen.
const MAX_POINTS: usize = 600;

pub struct Line {
    pub name: &'static str,
    /// A class of the page's style sheet.
    pub class: &'static str,
    pub points: Vec<(f64, f64)>,
}

pub struct Chart<'a> {
    pub title: &'a str,
    pub lines: Vec<Line>,
    /// Places on the horizontal axis and what is written there.
    pub marks: Vec<(f64, String)>,
    /// Whether equal distances up are equal factors.
    pub logarithmic: bool,
    pub label: fn(f64) -> String,
}

impl Chart<'_> {
    /// Nothing that came from elsewhere is in it but numbers; the title and names are the caller's.
    pub fn svg(&self) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let scale = Scale::of(self);
        writeln!(out, "<figure><figcaption>{}", self.title)?;
        for line in self.lines.iter().filter(|_| self.lines.len() > 1) {
            write!(out, " <span class=\"key {}\">{}</span>", line.class, line.name)?;
        }
        writeln!(out, "</figcaption>")?;
        writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", self.title)?;
        for level in scale.levels() {
            let y = scale.y(level);
            writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/>", WIDTH - RIGHT)?;
            let (x, y, text) = (LEFT - 4.0, y + 4.0, (self.label)(level));
            writeln!(out, "<text class=\"end\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>")?;
        }
        for (at, text) in &self.marks {
            let (x, y) = (scale.x(*at), HEIGHT - 8.0);
            // What is in the middle of the right edge would be cut off.
            let class = if x > WIDTH - 2.0 * RIGHT { "end" } else { "mid" };
            writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>")?;
        }
        for line in &self.lines {
            let step = line.points.len().div_ceil(MAX_POINTS).max(1);
            let last = line.points.len().saturating_sub(1);
            let mut path = String::new();
            for (index, (x, y)) in line.points.iter().enumerate() {
                if index % step == 0 || index == last {
                    let command = if path.is_empty() { 'M' } else { 'L' };
                    write!(path, "{command}{:.1} {:.1}", scale.x(*x), scale.y(*y))?;
                }
            }
            // A single point is a dot.
            if line.points.len() == 1 {
                path.push_str("h0.1");
            }
            writeln!(out, "<path class=\"line {}\" d=\"{path}\"/>", line.class)?;
        }
        writeln!(out, "</svg></figure>")
    }
}

struct Scale {
    x: (f64, f64),
    y: (f64, f64),
    logarithmic: bool,
}

impl Scale {
    fn of(chart: &Chart<'_>) -> Scale {
        let all = || chart.lines.iter().flat_map(|line| &line.points);
        let marks = chart.marks.iter().map(|(x, _)| *x);
        let x = range(all().map(|point| point.0).chain(marks)).unwrap_or((0.0, 1.0));
        let (low, high) = range(all().map(|point| point.1)).unwrap_or((0.0, 1.0));
        let y = match chart.logarithmic {
            true => {
                let low = 10f64.powf(low.max(1e-4).log10().floor());
                (low, 10f64.powf(high.max(low * 1.01).log10().ceil()))
            }
            false => (0.0, if high > 0.0 { high * 1.1 } else { 1.0 }),
        };
        Scale { x, y, logarithmic: chart.logarithmic }
    }

    fn x(&self, x: f64) -> f64 {
        let (from, to) = self.x;
        let part = if to > from { (x - from) / (to - from) } else { 0.5 };
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        let (from, to) = self.y;
        let part = match self.logarithmic {
            true => (y.max(from) / from).log10() / (to / from).log10(),
            false => (y - from) / (to - from),
        };
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }

    /// Where lines go across: powers of ten, or round numbers.
    fn levels(&self) -> Vec<f64> {
        let (from, to) = self.y;
        if self.logarithmic {
            let first = from.log10().round() as i32;
            let last = to.log10().round() as i32;
            let step = ((last - first) / 6).max(0) + 1;
            return (first..=last)
                .step_by(usize::try_from(step).unwrap_or(1))
                .map(|power| 10f64.powi(power))
                .collect();
        }
        let rough = (to - from) / 4.0;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
        (0..10).map(|number| from + step * f64::from(number)).take_while(|level| *level <= to).collect()
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((f64::min(low, value), f64::max(high, value))),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chart(points: Vec<(f64, f64)>, logarithmic: bool) -> String {
        let line = Line { name: "a", class: "a", points };
        Chart { title: "t", lines: vec![line], marks: Vec::new(), logarithmic, label: |x| format!("{x}") }
            .svg()
    }

    #[test]
    fn levels_are_round() {
        let linear = Scale { x: (0.0, 1.0), y: (0.0, 550.0), logarithmic: false };
        assert_eq!(linear.levels(), [0.0, 200.0, 400.0]);
        let log = Scale { x: (0.0, 1.0), y: (0.1, 100.0), logarithmic: true };
        assert_eq!(log.levels().len(), 4);
        assert!((log.y(0.1) - (HEIGHT - BOTTOM)).abs() < 1e-9 && (log.y(100.0) - TOP).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn everything_is_drawn_within_the_drawing(
            points in prop::collection::vec((0.0..1e6f64, 0.0..1e7f64), 0..50), logarithmic: bool,
        ) {
            let svg = chart(points, logarithmic);
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", svg);
            let line = svg.lines().find_map(|line| line.strip_prefix("<path class=\"line a\" d=\"")).expect("there is one");
            for point in line.trim_end_matches("\"/>").split(['M', 'L']).filter(|point| !point.is_empty()) {
                let mut numbers = point.split(['h', ' ']).map(|number| number.parse::<f64>().expect("a number"));
                prop_assert!((0.0..=WIDTH).contains(&numbers.next().expect("x")));
                prop_assert!((0.0..=HEIGHT).contains(&numbers.next().expect("y")));
            }
        }
    }
}
