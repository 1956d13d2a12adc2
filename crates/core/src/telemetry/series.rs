//! The table of metrics. Names follow Prometheus: `_total` counts, `_seconds` measures.

use super::health::Health;
use super::meters::{HISTOGRAMS, Label};
use super::stats::COUNTERS;

/// One time series: a metric, at most one label besides the cache's name, and how to read it.
/// `read` returns `None` if the series does not apply to the cache.
#[derive(Debug)]
#[cfg_attr(
    not(any(feature = "metrics", feature = "otel")),
    expect(dead_code, reason = "read by the features `metrics` and `otel`")
)]
pub(crate) struct Series<S, N> {
    pub(crate) metric: &'static str,
    pub(crate) label: Option<Label>,
    pub(crate) read: fn(&S) -> Option<N>,
}

/// Buckets to configure for the histograms in your exporter, in seconds: from 100 µs to an hour.
pub const BUCKETS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// The names of all metrics, in the order of `docs/observability.md`.
///
/// ```
/// assert!(crinkle_core::telemetry::metric_names().any(|name| name == "crinkle_hits_total"));
/// ```
pub fn metric_names() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = COUNTERS.iter().map(|series| series.metric).collect();
    names.extend(GAUGES.iter().map(|series| series.metric));
    names.extend(HISTOGRAMS);
    let mut seen = std::collections::HashSet::new();
    names.into_iter().filter(move |name| seen.insert(*name))
}

/// The gauges, read from [`Health`].
pub(crate) const GAUGES: &[Series<Health, f64>] = &[
    gauge("crinkle_entries", |h| Some(count(h.entries))),
    gauge("crinkle_in_flight", |h| Some(count(h.in_flight as u64))),
    gauge("crinkle_l2_up", |h| h.has_l2.then(|| flag(h.l2_up))),
    gauge("crinkle_subscribed", |h| h.has_backplane.then(|| flag(h.subscribed))),
    gauge("crinkle_coherent", |h| Some(flag(h.coherent))),
    gauge("crinkle_peers", |h| h.has_backplane.then(|| count(h.peers as u64))),
    gauge("crinkle_ledger_tags", |h| Some(count(h.ledger_size as u64))),
    gauge("crinkle_ledger_lag_seconds", |h| h.ledger_lag.map(|lag| lag.as_secs_f64())),
    gauge("crinkle_pending_removals", |h| h.has_l2.then(|| count(h.pending_removals as u64))),
    gauge("crinkle_recovery_backlog", |h| h.has_l2.then(|| count(h.recovery_backlog as u64))),
];

const fn gauge(metric: &'static str, read: fn(&Health) -> Option<f64>) -> Series<Health, f64> {
    Series { metric, label: None, read }
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn count(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
