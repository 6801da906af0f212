//! Metrics as text, in either of two forms.
//!
//! `prometheus-client` writes OpenMetrics 1.0. The older Prometheus text format differs in the names
//! of counters and in what its comments may be, and is derived from the first line by line.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::cells::{BOUNDS, Distribution};
use super::{Gauges, Metrics, families};

/// The two forms of exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

pub(super) fn render(metrics: Arc<Metrics>, gauges: Gauges, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { metrics, gauges }));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("writing to a String does not fail");
    match format {
        Format::OpenMetrics => out,
        Format::Prometheus => prometheus_text(&out),
    }
}

#[derive(Debug)]
struct Scrape {
    metrics: Arc<Metrics>,
    gauges: Gauges,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        families::write(&self.metrics, &self.gauges, &mut Families { encoder })
    }
}

/// Writes one family after the other. Names are as in the data model: counters without `_total`.
pub(super) struct Families<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl Families<'_> {
    /// The one value of a family without labels.
    pub(super) fn single_counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn single_seconds_counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn single_gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.begin(name, help, MetricType::Gauge)?)
    }

    pub(super) fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, MetricType::Counter)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn seconds_counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, MetricType::Counter)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, i64)>,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, MetricType::Gauge)?;
        for (labels, value) in series {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn histogram<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (L, Distribution)>,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, MetricType::Histogram)?;
        for (labels, all) in series {
            let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(all.buckets).collect();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                all.sum_seconds,
                all.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    pub(super) fn info<L: EncodeLabelSet>(&mut self, name: &str, help: &str, labels: L) -> fmt::Result {
        self.begin(name, help, MetricType::Info)?.encode_info(&labels)
    }

    fn begin<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, None, kind)
    }
}

/// OpenMetrics → Prometheus text 0.0.4. There, `HELP` and `TYPE` name counters and infos as their
/// samples do, there is no type `info`, and the end is not marked.
fn prometheus_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + open_metrics.len() / 64);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            help = text.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|text| text.split_once(' '))
        {
            let (name, kind): (Cow<str>, _) = match kind {
                "counter" => (format!("{name}_total").into(), kind),
                "info" => (format!("{name}_info").into(), "gauge"),
                kind => (name.into(), kind),
            };
            if let Some((_, text)) = help.take() {
                out.extend(["# HELP ", &name, " ", text, "\n"]);
            }
            out.extend(["# TYPE ", &name, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([line, "\n"]);
        }
    }
    out
}
