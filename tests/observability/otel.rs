//! OpenTelemetry reads the same metrics through its meter provider.

use std::collections::BTreeSet;

use crinkle_core::l2::MemoryL2;
use crinkle_core::telemetry::metric_names;
use crinkle_core::{Cache, ok};
use opentelemetry::global;
use opentelemetry_sdk::metrics::data::{
    AggregatedMetrics, MetricData, ResourceMetrics, SumDataPoint,
};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};

/// The name of the one cache that is looked at: tests of this binary share the meter provider.
const CACHE: &str = "observed";

/// What one series of a metric counts.
fn sum(metrics: &ResourceMetrics, name: &str, label: &str) -> Option<u64> {
    let mut all = metrics.scope_metrics().flat_map(|scope| scope.metrics());
    let metric = all.find(|metric| metric.name() == name)?;
    let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else { return None };
    let has = |point: &SumDataPoint<u64>, value: &str| {
        point.attributes().any(|pair| pair.value.as_str() == value)
    };
    let mut points = sum.data_points();
    points.find(|point| has(point, CACHE) && has(point, label)).map(|point| point.value())
}

#[tokio::test]
async fn opentelemetry_reads_the_same_metrics() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    global::set_meter_provider(provider.clone());
    let cache = Cache::builder(CACHE).l2(MemoryL2::new()).build().unwrap();
    cache.ready().await.unwrap();
    cache.get_or_set("key", |_| async { ok(1) }).await.unwrap();
    for _ in 0..3 {
        cache.get::<i32>("key").await.unwrap();
    }
    provider.force_flush().unwrap();
    let metrics = exporter.get_finished_metrics().unwrap().pop().expect("something was exported");
    assert_eq!(sum(&metrics, "crinkle_hits_total", "l1"), Some(3));
    assert_eq!(sum(&metrics, "crinkle_misses_total", "absent"), Some(1));
    let known: BTreeSet<_> = metric_names().collect();
    let mut seen = 0;
    for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
        assert!(known.contains(metric.name()), "{}", metric.name());
        seen += 1;
    }
    assert!(seen > 20, "{seen}");

    drop(cache);
    exporter.reset();
    provider.shutdown().unwrap();
}
