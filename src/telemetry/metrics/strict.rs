//! A strict reader of both exposition forms, for tests: anything that one of the two specifications
//! does not allow is a panic.

use std::collections::{BTreeMap, BTreeSet};

use super::Format;

/// Labels sorted by name.
pub(super) type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(super) struct Exposition {
    samples: BTreeMap<(String, Labels), f64>,
    pub(super) types: BTreeMap<String, String>,
}

impl Exposition {
    /// `labels` in the form `route="a",status="200"`, without escapes.
    pub(super) fn value(&self, name: &str, labels: &str) -> Option<f64> {
        let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        self.samples.get(&(name.to_owned(), labels.collect())).copied()
    }

    pub(super) fn labels(&self, name: &str) -> Vec<&Labels> {
        self.samples.keys().filter(|(sample, _)| sample == name).map(|(_, labels)| labels).collect()
    }
}

pub(super) fn read(text: &str, format: Format) -> Exposition {
    let mut lines: Vec<_> = text.split('\n').collect();
    assert_eq!(lines.pop(), Some(""), "the last line ends");
    if format == Format::OpenMetrics {
        assert_eq!(lines.pop(), Some("# EOF"));
    }
    let mut read = Exposition::default();
    let mut family = None;
    let mut helped = BTreeSet::new();
    for line in lines {
        if let Some(text) = line.strip_prefix("# HELP ") {
            let (name, help) = text.split_once(' ').expect(line);
            assert!(is_name(name) && !help.is_empty() && !help.contains('\\'), "{line}");
            assert!(helped.insert(name), "helped twice: {line}");
            family = None;
        } else if let Some(text) = line.strip_prefix("# TYPE ") {
            let (name, kind) = text.split_once(' ').expect(line);
            let known: &[&str] = match format {
                Format::OpenMetrics => &["counter", "gauge", "histogram", "info"],
                Format::Prometheus => &["counter", "gauge", "histogram"],
            };
            assert!(known.contains(&kind) && helped.contains(name), "{line}");
            assert!(read.types.insert(name.into(), kind.into()).is_none(), "a family in two places: {line}");
            family = Some((name, kind));
        } else {
            let (name, labels, value) = sample(line);
            let (family, kind) = family.expect(line);
            assert!(belongs(&name, family, kind, format), "{name} is no sample of {family} {kind}");
            assert!(kind == "gauge" || value >= 0.0, "{line}");
            assert_eq!(labels.contains_key("le"), name.ends_with("_bucket") && kind == "histogram", "{line}");
            assert!(read.samples.insert((name, labels), value).is_none(), "twice: {line}");
        }
    }
    check_histograms(&read);
    read
}

fn belongs(sample: &str, family: &str, kind: &str, format: Format) -> bool {
    let suffixes: &[&str] = match (kind, format) {
        ("counter", Format::OpenMetrics) => &["_total"],
        ("info", _) => &["_info"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    // By convention the older form has counters that end so too.
    let named_well = kind != "counter" || sample.ends_with("_total");
    named_well && sample.strip_prefix(family).is_some_and(|suffix| suffixes.contains(&suffix))
}

fn sample(line: &str) -> (String, Labels, f64) {
    let name_end = line.find(['{', ' ']).expect(line);
    let (name, mut rest) = line.split_at(name_end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, after) = quoted(after);
            assert!(labels.insert(label.into(), value).is_none(), "{line}");
            match after.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').expect(line);
    assert!(!value.contains(' '), "{line}");
    (name.into(), labels, value.parse().expect(line))
}

/// The unescaped text up to the closing quote, and what follows.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().map(|(_, c)| c) {
                Some('n') => '\n',
                Some(c @ ('\\' | '"')) => c,
                other => panic!("no such escape: {other:?}"),
            }),
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}")
}

fn is_name(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// Buckets rise to `+Inf`, which is the count.
fn check_histograms(read: &Exposition) {
    let mut buckets: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), value) in &read.samples {
        if let (Some(family), Some(bound)) = (name.strip_suffix("_bucket"), labels.get("le")) {
            let mut others = labels.clone();
            others.remove("le");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            buckets.entry((family.into(), others)).or_default().push((bound, *value));
        }
    }
    for ((family, labels), mut buckets) in buckets {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{family}");
        let count = read.samples[&(format!("{family}_count"), labels.clone())];
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{family}");
        assert!(read.samples.contains_key(&(format!("{family}_sum"), labels)), "{family}");
    }
}
