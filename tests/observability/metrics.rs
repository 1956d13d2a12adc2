//! Metrics: what a node records, and that the table in the docs names all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crinkle_core::telemetry::metric_names;
use crinkle_core::{Cache, CacheBuilder, ok};
use crinkle_tests::{Loads, Node, World, options, pass};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// What a recorder holds: counts and gauges as they are, of histograms how much was recorded.
#[derive(Debug)]
struct Recorded(BTreeMap<String, f64>);

impl Recorded {
    fn of(snapshotter: &Snapshotter) -> Self {
        let snapshot = snapshotter.snapshot().into_vec();
        let series = snapshot.into_iter().map(|(key, _, _, value)| {
            let key = key.key();
            let labels = key.labels().filter(|label| label.key() != "cache");
            let labels: Vec<_> = labels.map(|l| format!("{}={}", l.key(), l.value())).collect();
            assert!(key.labels().any(|label| label.key() == "cache" && label.value() == "shop"));
            let value = match value {
                DebugValue::Counter(count) => f64::from(u32::try_from(count).expect("few")),
                DebugValue::Gauge(gauge) => gauge.into_inner(),
                DebugValue::Histogram(times) => f64::from(u32::try_from(times.len()).expect("few")),
            };
            (format!("{}{{{}}}", key.name(), labels.join(",")), value)
        });
        Self(series.collect())
    }

    fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("{series} is not in {:#?}", self.0))
    }
}

fn recorded_node(
    world: &World,
    change: impl FnOnce(CacheBuilder) -> CacheBuilder,
) -> (Node, Snapshotter) {
    let recorder = DebuggingRecorder::new();
    let node = metrics::with_local_recorder(&recorder, || world.cold(change, |_, _| ()));
    (node, recorder.snapshotter())
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_measured() {
    let world = World::new().await;
    let (node, snapshotter) = recorded_node(&world, |builder| builder);
    let cache = &node.cache;
    cache.ready().await.unwrap();
    let loads = Loads::new();
    let slow = |_| async {
        pass(Duration::from_millis(20)).await;
        ok(1)
    };
    cache.get_or_set("key", slow).options(options()).await.unwrap();
    for _ in 0..200 {
        cache.get::<i32>("key").await.unwrap();
    }
    cache.get_or_set("absent", loads.fail::<_, i32>()).await.unwrap_err();
    let _ = cache.set("other", 1).await.unwrap();
    let _ = cache.remove_by_tag("tag").await.unwrap();
    cache.record_metrics();
    let now = Recorded::of(&snapshotter);
    assert_eq!(now.get("crinkle_hits_total{source=l1}"), 200.0);
    assert_eq!(now.get("crinkle_misses_total{reason=absent}"), 2.0);
    assert_eq!(now.get("crinkle_factory_calls_total{}"), 2.0);
    assert_eq!(now.get("crinkle_factory_failures_total{}"), 1.0);
    assert_eq!(now.get("crinkle_factory_seconds{outcome=ok}"), 1.0);
    assert_eq!(now.get("crinkle_factory_seconds{outcome=failed}"), 1.0);
    assert_eq!(now.get("crinkle_l2_seconds{op=put}"), 1.0);
    assert_eq!(now.get("crinkle_l2_seconds{op=set}"), 1.0);
    assert_eq!(now.get("crinkle_l2_seconds{op=advance}"), 1.0);
    assert!(now.get("crinkle_publish_seconds{}") >= 1.0, "the heartbeat");
    assert_eq!(now.get("crinkle_hit_age_seconds{source=l1}"), 4.0, "one hit in 64");
    assert_eq!(now.get("crinkle_l2_up{}"), 1.0);
    assert_eq!(now.get("crinkle_coherent{}"), 1.0);
    assert_eq!(now.get("crinkle_ledger_tags{}"), 1.0);
    assert_eq!(now.get("crinkle_session_changes_total{cause=connected}"), 1.0);
    assert!(now.get("crinkle_checks_total{path=memo}") > 190.0);
}

#[tokio::test(start_paused = true)]
async fn trouble_is_measured_once_a_second_without_anybody_asking() {
    let world = World::new().await;
    let (node, snapshotter) = recorded_node(&world, |builder| builder);
    node.cache.ready().await.unwrap();
    node.l2.down();
    let _ = node.cache.remove("key").await.unwrap();
    pass(Duration::from_secs(10)).await;
    let now = Recorded::of(&snapshotter);
    assert_eq!(now.get("crinkle_l2_up{}"), 0.0);
    assert_eq!(now.get("crinkle_recovery_backlog{}"), 1.0);
    let lag = now.get("crinkle_ledger_lag_seconds{}");
    assert!((8.0..12.0).contains(&lag), "{lag}");
    assert!(now.get("crinkle_l2_errors_total{kind=unreachable}") >= 5.0);
}

#[tokio::test(start_paused = true)]
async fn every_metric_of_the_table_is_recorded_and_no_other() {
    let world = World::new().await;
    let (node, snapshotter) = recorded_node(&world, |builder| builder);
    node.cache.record_metrics();
    let name = |series: String| series.split('{').next().map(str::to_owned);
    let recorded: BTreeSet<_> = Recorded::of(&snapshotter).0.into_keys().filter_map(name).collect();
    let table: BTreeSet<_> = metric_names().map(str::to_owned).collect();
    assert_eq!(recorded, table);
}

#[tokio::test(start_paused = true)]
async fn a_cache_without_l2_has_no_gauges_of_l2() {
    let recorder = DebuggingRecorder::new();
    let cache = metrics::with_local_recorder(&recorder, || Cache::builder("shop").build().unwrap());
    let snapshotter = recorder.snapshotter();
    cache.record_metrics();
    let recorded = Recorded::of(&snapshotter);
    assert!(!recorded.0.contains_key("crinkle_l2_up{}"), "an alert would fire");
    assert_eq!(recorded.get("crinkle_coherent{}"), 1.0);
    assert_eq!(cache.health().ledger_lag, None);
}
