//! The results as a table for people.

use std::fmt::Write;

use super::results::{Counts, LoadKind, Percentiles, QUANTILES, Results};

/// Targets that are told apart in the table; JSON and HTML have all.
const MAX_ROWS: usize = 50;
/// From this share of the median on, the generator's own lag is worth a word.
const MUCH_LAG: f64 = 0.2;

/// All of it, with a line's end at the end.
pub fn table(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write(results, &mut out);
    out
}

fn write(results: &Results, out: &mut String) -> std::fmt::Result {
    let whole = &results.whole;
    writeln!(out, "{}  {}", results.target, load(results))?;
    writeln!(out)?;
    let asked = match (results.load.kind, results.load.constant) {
        (LoadKind::Open, true) => format!(", asked for {}/s", number(results.load.level)),
        _ => String::new(),
    };
    writeln!(
        out,
        "  requests   {} in {:.2} s: {}/s{asked}",
        count(whole.requests),
        results.seconds,
        number(results.rate)
    )?;
    writeln!(
        out,
        "  errors     {} ({})",
        count(whole.errors),
        percent(results.error_ratio(), whole.requests)
    )?;
    writeln!(out, "  received   {}", bytes(whole.bytes))?;
    latency(&whole.latency, out)?;
    statuses("  ", whole, out)?;
    if results.targets.len() > 1 {
        targets(results, out)?;
    }
    for note in notes(results) {
        writeln!(out, "\n  note: {note}")?;
    }
    if let Some(comparison) = &results.comparison {
        writeln!(out)?;
        rows(&comparison.table(), out)?;
        for note in &comparison.notes {
            writeln!(out, "\n  note: {note}")?;
        }
    }
    if let Some(told) = &results.objective {
        let words = if told.holds { "holds" } else { "fails" };
        let sure = if told.sure { "" } else { ", as far as so few requests show" };
        writeln!(out, "\n  {} {words}{sure}: {}", told.objective, told.seen)?;
    }
    if let Some(found) = &results.found {
        writeln!(out, "\n  {}", found.words())?;
    }
    Ok(())
}

/// Columns as wide as their widest cell; the first to the left, the others to the right, the last as it comes.
pub fn rows(rows: &[Vec<String>], out: &mut String) -> std::fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| wide(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(line, "  {cell:<width$}")?,
                last if last + 1 == columns => write!(line, "  {cell}")?,
                _ => write!(line, "  {cell:>width$}")?,
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

pub fn load(results: &Results) -> String {
    let told = &results.load;
    let version = if told.http2 { "HTTP/2" } else { "HTTP/1.1" };
    let tls = if told.tls { " over TLS" } else { "" };
    let upto = if told.constant { "" } else { "up to " };
    let kind = match told.kind {
        LoadKind::Open => format!("open loop, {upto}{}/s", number(told.level)),
        LoadKind::Closed => format!("closed loop, {upto}{} at once", number(told.level)),
    };
    format!("{version}{tls}, {kind}")
}

fn latency(latency: &Percentiles, out: &mut String) -> std::fmt::Result {
    if latency.count == 0 {
        return writeln!(out, "  latency    nothing was answered");
    }
    writeln!(out, "  latency    mean {}, max {}", time(latency.mean), time(latency.max))?;
    for (name, quantile) in QUANTILES {
        let Some(value) = latency.quantile(name) else { continue };
        // Fewer than one sample lies beyond it: the number would say nothing that `max` doesn't.
        if latency.count as f64 * (1.0 - quantile) < 1.0 {
            continue;
        }
        let between = format!("{} … {}", time(value.low), time(value.high));
        writeln!(out, "    {name:<7}  {:>10}   95 % sure: {between}", time(value.value))?;
    }
    Ok(())
}

fn statuses(indent: &str, counts: &Counts, out: &mut String) -> std::fmt::Result {
    for (status, times) in &counts.statuses {
        writeln!(out, "{indent}status     {status}: {}", count(*times))?;
    }
    for (reason, times) in &counts.reasons {
        writeln!(out, "{indent}reason     {}: {}", printable(reason), count(*times))?;
    }
    for (fault, told) in &counts.faults {
        writeln!(out, "{indent}{:<10} {} ({})", fault.name(), count(told.count), printable(&told.first))?;
    }
    Ok(())
}

fn targets(results: &Results, out: &mut String) -> std::fmt::Result {
    let width =
        results.targets.iter().map(|target| target.name.chars().count()).max().unwrap_or(0).clamp(6, 40);
    writeln!(
        out,
        "\n  {:<width$}  {:>9}  {:>8}  {:>9}  {:>9}  {:>9}  statuses, reasons",
        "route", "requests", "errors", "p50", "p99", "max"
    )?;
    for target in results.targets.iter().take(MAX_ROWS) {
        let counts = &target.counts;
        let at = |name: &str| counts.latency.quantile(name).map_or("-".into(), |value| time(value.value));
        let statuses = counts.statuses.iter().map(|(status, times)| format!("{status}×{times}"));
        let reasons = counts.reasons.iter().map(|(reason, times)| format!("{}×{times}", printable(reason)));
        let faults = counts.faults.iter().map(|(fault, told)| format!("{}×{}", fault.name(), told.count));
        let details: Vec<String> = statuses.chain(reasons).chain(faults).collect();
        let name: String = printable(&target.name).chars().take(width).collect();
        writeln!(
            out,
            "  {name:<width$}  {:>9}  {:>8}  {:>9}  {:>9}  {:>9}  {}",
            count(counts.requests),
            count(counts.errors),
            at("p50"),
            at("p99"),
            if counts.latency.count == 0 { "-".into() } else { time(counts.latency.max) },
            details.join(" ")
        )?;
    }
    if results.targets.len() > MAX_ROWS {
        writeln!(out, "  … and {} more, which --json and --html have", results.targets.len() - MAX_ROWS)?;
    }
    Ok(())
}

/// What a reader should know before the numbers are believed.
pub fn notes(results: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    let p99 = |percentiles: &Percentiles| percentiles.quantile("p99").map_or(0.0, |value| value.value);
    let median = results.whole.latency.quantile("p50").map_or(0.0, |value| value.value);
    let lag = p99(&results.lag);
    if results.load.kind == LoadKind::Open && lag > MUCH_LAG * median && lag > 0.05 {
        notes.push(format!(
            "the load generator itself sent one request of a hundred {} late or later, which the latencies include: \
             the machine is too busy, or --threads too few",
            time(lag)
        ));
    }
    if results.load.kind == LoadKind::Open
        && results.load.constant
        && !results.interrupted
        && results.rate < 0.99 * results.load.level
    {
        notes.push("the rate was not reached: answers came too late for --connections to keep up".to_owned());
    }
    if results.interrupted {
        notes.push("it was ended before its time".to_owned());
    }
    notes
}

/// Milliseconds as people write them.
pub fn time(ms: f64) -> String {
    match ms {
        ms if ms < 0.9995 => format!("{:.0} µs", ms * 1000.0),
        ms if ms < 9.995 => format!("{ms:.2} ms"),
        ms if ms < 99.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}

/// `12,345`
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate or a level, with as many digits as say something.
pub fn number(value: f64) -> String {
    if value >= 1000.0 || value == value.trunc() {
        count(value.round() as u64)
    } else {
        format!("{value:.1}")
    }
}

pub fn percent(share: f64, of: u64) -> String {
    match (share, of) {
        (_, 0) => "of none".to_owned(),
        (0.0, _) => "0 %".to_owned(),
        (share, _) if share < 0.0001 => "< 0.01 %".to_owned(),
        (share, _) => format!("{:.2} %", share * 100.0),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        few if few < 10_240.0 => format!("{bytes} bytes"),
        some if some < 10.0 * 1024.0 * 1024.0 => format!("{:.0} KiB", some / 1024.0),
        many => format!("{:.0} MiB", many / 1024.0 / 1024.0),
    }
}

/// What came from elsewhere may hold anything, but doesn't steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_people_write_them() {
        let times = [0.0423, 0.9994, 0.9999, 5.0, 23.44, 234.4, 1234.0].map(time);
        assert_eq!(times, ["42 µs", "999 µs", "1.00 ms", "5.00 ms", "23.4 ms", "234 ms", "1.23 s"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 12.0, 12.34, 4999.6].map(number), ["0", "12", "12.3", "5,000"]);
        assert_eq!(
            [(0.0, 5), (0.1234, 5), (0.00001, 100), (1.0, 0)].map(|(s, n)| percent(s, n)),
            ["0 %", "12.34 %", "< 0.01 %", "of none"]
        );
        assert_eq!([100, 20_480, 20_971_520].map(bytes), ["100 bytes", "20 KiB", "20 MiB"]);
        assert_eq!(printable("a\x1b[31mb"), "a\u{fffd}[31mb");
    }
}
