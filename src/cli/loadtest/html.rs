//! The results as a page: one file that needs no network and no script, readable on a phone.

mod chart;

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use super::results::{Counts, LoadKind, QUANTILES, Results, SliceLatency};
use super::table::{self, count, number, percent, time};
use chart::{Chart, Line};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--dim:#5b6675;--line:#dfe4ea;--back:#fff;--card:#f5f7f9;\
--a:#1a66c2;--b:#b8730a;--c:#b3261e;--good:#2c7a4b}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#9aa5b3;--line:#333b46;--back:#14181d;--card:#1d232b;\
--a:#6fb0ff;--b:#e8a94a;--c:#ff7b72;--good:#6fcf97}}\
*{box-sizing:border-box}body{margin:0 auto;padding:1rem;max-width:60rem;background:var(--back);color:var(--ink);\
font:16px/1.45 system-ui,sans-serif}h1{font-size:1.3rem;margin:.2rem 0;overflow-wrap:anywhere}\
h2{font-size:1.1rem;margin:1.6rem 0 .5rem}p{margin:.3rem 0;color:var(--dim)}\
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;margin:1rem 0}\
.cards div{background:var(--card);border-radius:.5rem;padding:.6rem .8rem}\
.cards b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}.cards span{color:var(--dim);font-size:.85rem}\
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));gap:.6rem}\
figure{margin:0;background:var(--card);border-radius:.5rem;padding:.6rem}figcaption{font-size:.9rem;margin-bottom:.3rem}\
svg{display:block;width:100%;height:auto}text{font-size:12px;fill:var(--dim)}.end{text-anchor:end}.mid{text-anchor:middle}\
.grid{stroke:var(--line);fill:none}.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}\
.line.a{stroke:var(--a)}.line.b{stroke:var(--b)}.line.c{stroke:var(--c)}\
.key::before{content:'';display:inline-block;width:.7em;height:.7em;border-radius:50%;margin:0 .25em 0 .6em}\
.key.a::before{background:var(--a)}.key.b::before{background:var(--b)}.key.c::before{background:var(--c)}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:.35rem .7rem .35rem 0;border-bottom:1px solid var(--line);white-space:nowrap}\
th{color:var(--dim);font-weight:500;font-size:.85rem}td.n,th.n{text-align:right}td.wrap{white-space:normal;min-width:9rem}\
.bad{color:var(--c)}.note{background:var(--card);border-left:3px solid var(--b);padding:.5rem .8rem;color:var(--ink)}";

/// Sections of other parts of the program that stand before the charts.
pub struct Section {
    pub title: &'static str,
    /// Rows of text; the first one heads the table.
    pub rows: Vec<Vec<String>>,
    pub note: Option<String>,
}

pub fn page(results: &Results, sections: &[Section]) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write(results, sections, &mut out);
    out
}

fn write(results: &Results, sections: &[Section], out: &mut String) -> std::fmt::Result {
    let target = escape(&results.target);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">\n\
         <title>Load test of {target}</title>\n<style>{STYLE}</style></head>\n<body><h1>Load test of {target}</h1>\n"
    )?;
    let started = UNIX_EPOCH + Duration::from_secs(results.started.min(1 << 40));
    writeln!(out, "<p>{} · {}</p>", escape(&table::load(results)), httpdate::fmt_http_date(started))?;
    cards(results, out)?;
    for note in table::notes(results) {
        writeln!(out, "<p class=\"note\">{}</p>", escape(&note))?;
    }
    for section in sections {
        writeln!(out, "<h2>{}</h2>", section.title)?;
        rows(&section.rows, out)?;
        if let Some(note) = &section.note {
            writeln!(out, "<p>{}</p>", escape(note))?;
        }
    }
    writeln!(out, "<h2>Over time</h2><div class=\"charts\">")?;
    out.push_str(&throughput(results).svg());
    out.push_str(&latencies(results).svg());
    writeln!(out, "</div>\n<h2>Latency</h2><div class=\"charts\">")?;
    out.push_str(&percentiles(results).svg());
    writeln!(out, "</div>")?;
    percentile_table(results, out)?;
    routes(results, out)?;
    writeln!(out, "<p>gatehouse {}</p></body></html>", escape(&results.gatehouse))
}

fn cards(results: &Results, out: &mut String) -> std::fmt::Result {
    let at =
        |name: &str| results.whole.latency.quantile(name).map_or("–".to_owned(), |value| time(value.value));
    let asked = match results.load.kind {
        LoadKind::Open if results.load.constant => format!(" of {}", number(results.load.level)),
        _ => String::new(),
    };
    writeln!(out, "<div class=\"cards\">")?;
    for (name, value) in [
        (format!("requests in {:.1} s", results.seconds), count(results.whole.requests)),
        (format!("a second{asked}"), number(results.rate)),
        (
            format!("errors: {}", count(results.whole.errors)),
            percent(results.error_ratio(), results.whole.requests),
        ),
        ("p50".to_owned(), at("p50")),
        ("p99".to_owned(), at("p99")),
        ("slowest".to_owned(), time(results.whole.latency.max)),
    ] {
        writeln!(out, "<div><b>{}</b><span>{}</span></div>", escape(&value), escape(&name))?;
    }
    writeln!(out, "</div>")
}

fn throughput(results: &Results) -> Chart<'static> {
    let rates = |of: fn(&super::results::SliceResults) -> u64| {
        let seconds = |index: usize| {
            // The last slice may be shorter than the others.
            let left = results.seconds - index as f64 * results.slice_seconds;
            left.min(results.slice_seconds).max(results.slice_seconds / 100.0)
        };
        let slices = results.slices.iter().enumerate();
        slices.map(|(index, slice)| (middle(results, index), of(slice) as f64 / seconds(index))).collect()
    };
    Chart {
        title: "Requests a second",
        lines: vec![
            Line { name: "all", class: "a", points: rates(|slice| slice.requests) },
            Line { name: "errors", class: "c", points: rates(|slice| slice.errors) },
        ],
        marks: seconds(results),
        logarithmic: false,
        label: number,
    }
}

fn latencies(results: &Results) -> Chart<'static> {
    let line = |name, class, of: fn(&SliceLatency) -> f64| {
        let slices = results.slices.iter().enumerate();
        let points =
            slices.filter_map(|(index, slice)| Some((middle(results, index), of(slice.latency.as_ref()?))));
        Line { name, class, points: points.collect() }
    };
    Chart {
        title: "Latency",
        lines: vec![
            line("p50", "a", |latency| latency.p50),
            line("p90", "b", |latency| latency.p90),
            line("p99", "c", |latency| latency.p99),
        ],
        marks: seconds(results),
        logarithmic: true,
        label: time,
    }
}

fn middle(results: &Results, index: usize) -> f64 {
    (index as f64 + 0.5) * results.slice_seconds
}

fn seconds(results: &Results) -> Vec<(f64, String)> {
    let whole = results.slices.len() as f64 * results.slice_seconds;
    let mark = |part: f64| (part * whole, format!("{:.*} s", usize::from(whole < 8.0), part * whole));
    [0.0, 0.5, 1.0].map(mark).into()
}

/// How slow the slowest are: to the right ten times fewer with each step.
fn percentiles(results: &Results) -> Chart<'static> {
    let all: u64 = results.histogram.iter().map(|(_, times)| times).sum();
    let mut below = 0;
    let mut points = Vec::new();
    for (latency, times) in &results.histogram {
        points.push((nines(below as f64 / all.max(1) as f64), *latency));
        below += times;
        if below < all {
            points.push((nines(below as f64 / all as f64), *latency));
        }
    }
    let end = points.last().map_or(1.0, |point| point.0);
    let mark = |(text, share): (&str, f64)| (nines(share), text.to_owned());
    let marks = [
        ("0", 0.0),
        ("90 %", 0.9),
        ("99 %", 0.99),
        ("99.9 %", 0.999),
        ("99.99 %", 0.9999),
        ("99.999 %", 0.99999),
    ];
    Chart {
        title: "Latency by percentile",
        lines: vec![Line { name: "latency", class: "a", points }],
        marks: marks.into_iter().map(mark).filter(|(at, _)| *at <= end).collect(),
        logarithmic: true,
        label: time,
    }
}

fn nines(share: f64) -> f64 {
    -(1.0 - share).max(1e-12).log10()
}

fn percentile_table(results: &Results, out: &mut String) -> std::fmt::Result {
    let heads = ["percentile", "latency", "95 % sure: from", "to"].map(str::to_owned).to_vec();
    let latency = &results.whole.latency;
    let told = QUANTILES.iter().filter(|(_, quantile)| latency.count as f64 * (1.0 - quantile) >= 1.0);
    let row = |(name, _): &(&str, f64)| {
        let value = latency.quantile(name)?;
        Some(vec![(*name).to_owned(), time(value.value), time(value.low), time(value.high)])
    };
    rows(&std::iter::once(heads).chain(told.filter_map(row)).collect::<Vec<_>>(), out)
}

fn routes(results: &Results, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>By route</h2><div class=\"scroll\"><table><tr><th>route</th><th class=\"n\">requests</th>"
    )?;
    writeln!(
        out,
        "<th class=\"n\">errors</th><th class=\"n\">p50</th><th class=\"n\">p99</th><th class=\"n\">slowest</th>"
    )?;
    writeln!(out, "<th>statuses and reasons</th></tr>")?;
    for target in &results.targets {
        let counts = &target.counts;
        let at =
            |name: &str| counts.latency.quantile(name).map_or("–".to_owned(), |value| time(value.value));
        let bad = if counts.errors > 0 { " bad" } else { "" };
        writeln!(
            out,
            "<tr><td class=\"wrap\">{}</td><td class=\"n\">{}</td>",
            escape(&target.name),
            count(counts.requests)
        )?;
        writeln!(out, "<td class=\"n{bad}\">{}</td>", count(counts.errors))?;
        let slowest = if counts.latency.count == 0 { "–".to_owned() } else { time(counts.latency.max) };
        for value in [at("p50"), at("p99"), slowest] {
            writeln!(out, "<td class=\"n\">{value}</td>")?;
        }
        writeln!(out, "<td class=\"wrap\">{}</td></tr>", escape(&breakdown(counts)))?;
    }
    writeln!(out, "</table></div>")
}

/// `200 × 1,234, 429 × 12, rate_limited × 12`
fn breakdown(counts: &Counts) -> String {
    let statuses = counts.statuses.iter().map(|(status, times)| format!("{status} × {}", count(*times)));
    let reasons = counts.reasons.iter().map(|(reason, times)| format!("{reason} × {}", count(*times)));
    let faults = counts
        .faults
        .iter()
        .map(|(fault, told)| format!("{} × {} ({})", fault.name(), count(told.count), told.first));
    statuses.chain(reasons).chain(faults).collect::<Vec<_>>().join(", ")
}

fn rows(rows: &[Vec<String>], out: &mut String) -> std::fmt::Result {
    writeln!(out, "<div class=\"scroll\"><table>")?;
    for (index, row) in rows.iter().enumerate() {
        let cell = if index == 0 { "th" } else { "td" };
        write!(out, "<tr>")?;
        for (column, text) in row.iter().enumerate() {
            let class = if column == 0 { "" } else { " class=\"n\"" };
            write!(out, "<{cell}{class}>{}</{cell}>", escape(text))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</table></div>")
}

/// Text as it stands in elements and attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_elsewhere_is_markup() {
        assert_eq!(escape("<a href='x'>\"&\u{1b}"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;\u{fffd}");
    }
}
