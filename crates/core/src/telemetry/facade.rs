//! Metrics through the `metrics` facade.

use metrics::{Counter, Gauge};

use super::Health;
use super::meters::Label;
use super::series::GAUGES;
use super::stats::COUNTERS;
use super::{Series, Stats};

/// A histogram of the recorder that is installed when the cache is built.
pub(super) struct Histogram(metrics::Histogram);

impl Histogram {
    pub(super) fn new(cache: &str, name: &'static str, label: Option<Label>) -> Self {
        Self(metrics::histogram!(name, labels(cache, label)))
    }

    pub(super) fn record(&self, seconds: f64) {
        self.0.record(seconds);
    }
}

/// The counters and gauges that apply to a cache.
pub(crate) struct Exported {
    counters: Vec<(Counter, &'static Series<Stats, u64>)>,
    gauges: Vec<(Gauge, &'static Series<Health, f64>)>,
}

impl Exported {
    pub(crate) fn new(cache: &str, health: &Health) -> Self {
        let counter = |series: &'static Series<Stats, u64>| {
            (metrics::counter!(series.metric, labels(cache, series.label)), series)
        };
        let gauge = |series: &'static Series<Health, f64>| {
            (metrics::gauge!(series.metric, labels(cache, series.label)), series)
        };
        let applies = |series: &&Series<Health, f64>| (series.read)(health).is_some();
        Self {
            counters: COUNTERS.iter().map(counter).collect(),
            gauges: GAUGES.iter().filter(applies).map(gauge).collect(),
        }
    }

    pub(crate) fn export(&self, stats: &Stats, health: &Health) {
        for (counter, series) in &self.counters {
            counter.absolute((series.read)(stats).unwrap_or_default());
        }
        for (gauge, series) in &self.gauges {
            gauge.set((series.read)(health).unwrap_or_default());
        }
    }
}

fn labels(cache: &str, label: Option<Label>) -> Vec<metrics::Label> {
    let cache = metrics::Label::new("cache", cache.to_owned());
    let own = label.map(|(name, value)| metrics::Label::from_static_parts(name, value));
    std::iter::once(cache).chain(own).collect()
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Histogram")
    }
}

impl std::fmt::Debug for Exported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exported")
    }
}
