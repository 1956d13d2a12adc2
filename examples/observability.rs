//! What a cache reports while its source fails and its L2 fails and recovers: events, health, and
//! metrics as Prometheus scrapes them. Needs no server.
//!
//! ```text
//! cargo run --release --example observability
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crinkle::backplane::MemoryBackplane;
use crinkle::l2::MemoryL2;
use crinkle::telemetry::BUCKETS;
use crinkle::{Cache, EntryOptions, Event, Events, FailSafe, Settings};
use crinkle_examples::Expectations;
use crinkle_testkit::chaos::{self, L2Handle};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Install the recorder before building the cache, which uses the recorder of that time.
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)?
        .install_recorder()?;
    let (cache, l2) = cache()?;
    cache.ready().await?;
    let mut show = Show { events: cache.events(), cache, expectations: Expectations::new() };
    loads(&mut show).await?;
    outage(&mut show, &l2).await?;
    scrape(&mut show, &prometheus);
    show.expectations.conclude()
}

/// A cache with an L2 in which the example injects faults.
fn cache() -> anyhow::Result<(Cache, L2Handle)> {
    let bus = MemoryBackplane::new();
    let clock = Arc::new(crinkle::SystemClock);
    let (store, handle) = chaos::l2(Arc::new(MemoryL2::announcing(clock, bus.clone())));
    let settings = Settings::default().poll(Duration::from_millis(50)).breaker_failures(3);
    let options = EntryOptions::new(Duration::from_secs(1)).fail_safe(FailSafe::default());
    let builder = Cache::builder("shop").settings(settings).default_options(options);
    Ok((builder.l2(store).backplane(bus).build()?, handle))
}

async fn loads(show: &mut Show) -> anyhow::Result<()> {
    println!("\n1. A load, hits, and a load that fails");
    let cache = show.cache.clone();
    let price =
        cache.get_or_set("price:1", |_| async { crinkle::ok(100) }).tags(["prices"]).await?;
    for _ in 0..1_000 {
        cache.get::<i32>("price:1").await?;
    }
    sleep(Duration::from_millis(1100)).await;
    let down = |_| async { Err::<i32, _>(io::Error::other("the database is down")) };
    let stale = cache.get_or_set("price:1", down).await?;
    show.expectations
        .expect(stale.meta().is_stale() && *stale == *price, "fail-safe served the stale price");
    let emitted = show.emitted();
    show.expect(&emitted, &["Miss", "FactorySuccess", "Set", "FactoryError", "FailSafe"]);
    show.expectations.expect(
        !emitted.contains_key("Hit") || emitted["Hit"] < 10,
        "the 1,000 hits of L1 are counted but emit no events",
    );
    Ok(())
}

async fn outage(show: &mut Show, l2: &L2Handle) -> anyhow::Result<()> {
    println!("\n2. L2 fails while keys are removed, and recovers");
    l2.down();
    for id in 0..4 {
        let _ = show.cache.remove(format!("price:{id}")).await?;
    }
    let health = show.cache.health();
    println!("     L2 up: {}, pending: {}", health.l2_up, health.recovery_backlog);
    if let Some(error) = health.last_l2_error {
        println!("     {:?} ago: {}", error.ago, error.what);
    }
    l2.heal();
    while show.cache.health().recovery_backlog > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let emitted = show.emitted();
    show.expect(&emitted, &["Remove", "L2Failed", "L2Breaker", "Queued", "Session", "Recovered"]);
    Ok(())
}

fn scrape(show: &mut Show, prometheus: &PrometheusHandle) {
    println!("\n3. What Prometheus scrapes, without zeros");
    show.cache.record_metrics();
    let text = prometheus.render();
    let shown = |line: &&str| {
        let bucket = line.contains("_bucket") || line.contains("_sum");
        line.starts_with("crinkle_") && !line.ends_with(" 0") && !bucket
    };
    for line in text.lines().filter(shown) {
        println!("     {line}");
    }
    for series in [
        r#"crinkle_hits_total{cache="shop",source="l1"} 1000"#,
        r#"crinkle_factory_failures_total{cache="shop"} 1"#,
        r#"crinkle_l2_up{cache="shop"} 1"#,
        r#"crinkle_recovery_queued_total{cache="shop"} 4"#,
    ] {
        show.expectations.expect(text.contains(series), series);
    }
}

struct Show {
    cache: Cache,
    events: Events,
    expectations: Expectations,
}

impl Show {
    /// Prints the events since the last call, and counts them by name.
    fn emitted(&mut self) -> BTreeMap<String, usize> {
        let mut names = BTreeMap::new();
        let quiet = |event: &Event| matches!(event, Event::Received { .. });
        while let Some(event) = self.events.try_next() {
            let text = format!("{event:?}");
            if !quiet(&event) {
                println!("   · {text}");
            }
            let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            *names.entry(name.to_owned()).or_default() += 1;
        }
        names
    }

    fn expect(&mut self, emitted: &BTreeMap<String, usize>, names: &[&str]) {
        for name in names {
            self.expectations.expect(emitted.contains_key(*name), &format!("{name} was emitted"));
        }
    }
}
