//! Metrics through OpenTelemetry, with the meter provider that is installed when a cache is built.
//!
//! Counters and gauges are observed when a reader collects. An instrument cannot be removed; once
//! its cache no longer exists, it observes nothing.

use std::sync::Arc;

use opentelemetry::metrics::AsyncInstrument;
use opentelemetry::{KeyValue, global};

use super::meters::Label;
use super::series::{BUCKETS, GAUGES};
use super::stats::COUNTERS;
use super::{Health, Series, Stats, TARGET};

/// A histogram of the global meter provider.
#[derive(Debug)]
pub(super) struct Histogram {
    histogram: opentelemetry::metrics::Histogram<f64>,
    attributes: Vec<KeyValue>,
}

impl Histogram {
    pub(super) fn new(cache: &str, name: &'static str, label: Option<Label>) -> Self {
        let meter = global::meter(TARGET);
        let histogram = meter.f64_histogram(name).with_unit("s");
        Self {
            histogram: histogram.with_boundaries(BUCKETS.to_vec()).build(),
            attributes: attributes(cache, label),
        }
    }

    pub(super) fn record(&self, seconds: f64) {
        self.histogram.record(seconds, &self.attributes);
    }
}

/// Lets the global meter provider observe a cache while it exists.
pub(crate) fn observe<C: Send + Sync + 'static>(
    cache: &Arc<C>,
    name: &str,
    stats: fn(&C) -> Stats,
    health: fn(&C) -> Health,
) {
    let meter = global::meter(TARGET);
    for series in COUNTERS {
        let observe = callback(cache, name, series, stats);
        meter.u64_observable_counter(series.metric).with_callback(observe).build();
    }
    for series in GAUGES {
        let observe = callback(cache, name, series, health);
        meter.f64_observable_gauge(series.metric).with_callback(observe).build();
    }
}

/// Reads one series if the cache still exists and the series applies to it.
fn callback<C: Send + Sync + 'static, S: 'static, N: 'static>(
    cache: &Arc<C>,
    name: &str,
    series: &'static Series<S, N>,
    snapshot: fn(&C) -> S,
) -> impl Fn(&dyn AsyncInstrument<N>) + Send + Sync + 'static {
    let (cache, attributes) = (Arc::downgrade(cache), attributes(name, series.label));
    move |instrument| {
        let read = cache.upgrade().and_then(|cache| (series.read)(&snapshot(&cache)));
        if let Some(value) = read {
            instrument.observe(value, &attributes);
        }
    }
}

fn attributes(cache: &str, label: Option<Label>) -> Vec<KeyValue> {
    let cache = KeyValue::new("cache", cache.to_owned());
    let own = label.map(|(name, value)| KeyValue::new(name, value));
    std::iter::once(cache).chain(own).collect()
}
