//! A hot key with a factory of 50 ms: after the first load, no reader waits for it.
//!
//! ```text
//! cargo run --release --example eager_refresh
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crinkle::{Cache, EagerRefresh, EntryOptions, FactoryContext, Source};
use crinkle_examples::{Expectations, human, now};
use tokio::time::sleep;

const FACTORY: Duration = Duration::from_millis(50);
const TTL: Duration = Duration::from_millis(400);

/// Reads the key every 5 ms for two seconds. Returns how many reads waited, and the longest wait.
async fn read_all_the_time(
    cache: &Cache,
    loads: &Arc<AtomicUsize>,
) -> anyhow::Result<(usize, Duration)> {
    let (mut waited, mut longest) = (0, Duration::ZERO);
    for _ in 0..400 {
        let began = now();
        let count = Arc::clone(loads);
        let load = move |_: FactoryContext<usize>| async move {
            sleep(FACTORY).await;
            crinkle::ok(count.fetch_add(1, Ordering::SeqCst))
        };
        let read = cache.get_or_set("hot", load).await?;
        waited += usize::from(read.meta().source() == Source::Factory);
        longest = longest.max(now().since(began));
        sleep(Duration::from_millis(5)).await;
    }
    Ok((waited, longest))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut show = Expectations::new();
    let options = EntryOptions::new(TTL);
    let plans = [
        ("without", options.clone()),
        ("after 60 % of the TTL", options.clone().eager_refresh(EagerRefresh::after(0.6))),
        ("probabilistic (XFetch)", options.eager_refresh(EagerRefresh::probabilistic(2.0))),
    ];
    println!(
        "A key with a TTL of {} that takes {} to load, read continuously:",
        human(TTL),
        human(FACTORY)
    );
    let mut without = 0;
    for (name, options) in plans {
        let cache = Cache::builder("hot").default_options(options.clone()).build()?;
        let loads = Arc::new(AtomicUsize::new(0));
        let (waited, longest) = read_all_the_time(&cache, &loads).await?;
        let loads = loads.load(Ordering::SeqCst);
        println!(
            "  {name}: {waited} of 400 reads waited for a load, one read took {} at most; {loads} loads",
            human(longest)
        );
        if options == EntryOptions::new(TTL) {
            show.expect(waited > 1, "a reader waits whenever the key expires");
            without = waited;
        } else {
            show.expect(cache.stats().eager_refreshes > 0, "it was refreshed in the background");
            show.expect(waited < without, "fewer wait: on an idle machine, none but the first");
        }
    }
    show.conclude()
}
