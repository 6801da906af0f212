//! What is shown while a test runs, on a terminal: one line that is written over and over.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use super::plan::Plan;
use super::record::Glimpse;
use super::table::{count, number, time};

/// How often it is written anew.
pub const EVERY: Duration = Duration::from_millis(200);
const BAR: usize = 20;

/// Whether people watch: never into a file or a pipe.
pub fn is_watched() -> bool {
    stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The line, and whether it has colours.
pub struct Progress {
    colour: bool,
    written: bool,
}

impl Progress {
    pub fn new(colour: bool) -> Progress {
        Progress { colour, written: false }
    }

    pub fn show(&mut self, plan: &Plan, glimpse: &Glimpse) {
        // Back to the beginning of the line, and what was there is erased behind the new text.
        let _ = write!(stderr(), "\r{}\x1b[K", line(plan, glimpse, self.colour));
        let _ = stderr().flush();
        self.written = true;
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.written) {
            let _ = write!(stderr(), "\r\x1b[K");
            let _ = stderr().flush();
        }
    }
}

fn line(plan: &Plan, glimpse: &Glimpse, colour: bool) -> String {
    let whole = plan.load.shape().duration();
    let done = (glimpse.elapsed.as_secs_f64() / whole.as_secs_f64()).clamp(0.0, 1.0);
    let left = whole.saturating_sub(glimpse.elapsed).as_secs_f64().ceil();
    let full = (done * BAR as f64).round() as usize;
    let bar = format!("[{}{}]", "#".repeat(full), "-".repeat(BAR - full));
    let Glimpse { requests, errors, in_flight, .. } = *glimpse;
    let Some((recent, seconds)) = &glimpse.recent else {
        return format!("{bar} {left:.0} s left, warming up, {in_flight} in flight");
    };
    let latency = match recent.latency.is_empty() {
        true => "no answers".to_owned(),
        false => {
            let at = |quantile: f64| time(recent.latency.value_at_quantile(quantile) as f64 / 1e6);
            format!("p50 {}, p99 {}", at(0.5), at(0.99))
        }
    };
    let told = format!("{} errors", count(errors));
    let told = if colour && errors > 0 { format!("\x1b[31m{told}\x1b[0m") } else { told };
    let rate = if *seconds > 0.0 { recent.requests as f64 / seconds } else { 0.0 };
    format!(
        "{bar} {left:.0} s left, {} sent, {}/s, {in_flight} in flight, {latency}, {told}",
        count(requests),
        number(rate.round())
    )
}

#[cfg(test)]
mod tests {
    use super::super::arguments::tests::args;
    use super::super::outcome::Outcome;
    use super::super::record::Recorder;
    use super::*;

    #[test]
    fn the_line_says_how_it_goes() {
        let plan = args("http://127.0.0.1/ --rate 10 --duration 9s --warmup 1s").expect("good");
        let plan = plan.prepare().unwrap_or_else(|refused| panic!("{refused:?}")).plan;
        let mut recorded = Recorder::new(&plan.frame());
        let seconds = Duration::from_secs_f64;
        let line = |recorded: &Recorder, elapsed, colour| {
            let mut glimpse = Glimpse { in_flight: 3, ..Glimpse::default() };
            recorded.glimpse_into(&mut glimpse, seconds(elapsed));
            super::line(&plan, &glimpse, colour)
        };
        let shown = line(&recorded, 0.5, false);
        assert_eq!(shown, "[#-------------------] 10 s left, warming up, 3 in flight");
        for number in 0..40 {
            let status = if number == 39 { 500 } else { 200 };
            let outcome = Outcome::Answered { status, bytes: 0, reason: None };
            let since = seconds(1.0 + f64::from(number) / 10.0);
            recorded.record(0, since, since + seconds(0.0042), &outcome);
        }
        let shown = line(&recorded, 5.0, false);
        let expected = "[##########----------] 5 s left, 40 sent, 10/s, 3 in flight, p50 4.2";
        assert!(shown.starts_with(expected) && shown.ends_with(" ms, 1 errors"), "{shown}");
        assert!(line(&recorded, 5.0, true).contains("\x1b[31m1 errors\x1b[0m"));
        // Late answers come after the end.
        assert!(line(&recorded, 99.0, false).starts_with("[####################] 0 s left"));
    }
}
