//! How metrics become the text that Prometheus reads.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text::encode_registry};
use prometheus_client::metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge};
use prometheus_client::registry::Registry;

/// One value with its labels.
pub type Row<'a> = (Vec<(&'static str, &'a str)>, u64);

/// The content type of what [`page`] writes.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a scrape shows, in `OpenMetrics` text. Every name begins with `anyserve_`.
pub fn page(scrape: impl Collector) -> String {
    let mut registry = Registry::with_prefix("anyserve");
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode_registry(&mut text, &registry).expect("a String takes all that is written");
    text.push_str("# EOF\n");
    text
}

/// A counter with labels.
pub fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = Row<'a>>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in rows {
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A gauge with labels.
pub fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl Iterator<Item = Row<'a>>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, count) in rows {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// A counter without labels.
pub fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, count: u64) -> fmt::Result {
    ConstCounter::new(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

/// A gauge without labels.
pub fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, count: u64) -> fmt::Result {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    ConstGauge::new(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
