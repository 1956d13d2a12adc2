//! Caches that are read in a loop. Each cache is read with one line of code, as its documentation
//! shows it for a hit.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Result, ensure};
use crinkle::{Cache, EntryOptions};
use dashmap::DashMap;
use futures_util::future::LocalBoxFuture;

use crate::env::{Env, one_thread};
use crate::measure::{Contender, Side, thread_time};
use crate::workload::{Draws, Product};

/// A cache that holds every key of the draws.
pub(crate) trait Hits: Sync {
    fn name(&self) -> &'static str;

    fn side(&self) -> Side;

    /// Reads `n` keys and returns the sum of the ids that it found.
    fn read<'a>(&'a self, draws: &'a Draws, n: u64) -> Pin<Box<dyn Future<Output = u64> + 'a>>;
}

/// A cache whose entries have tags.
pub(crate) struct Tagged {
    pub(crate) hits: Box<dyn Hits>,
    /// Removes the entries with this tag.
    pub(crate) remove: Box<dyn Fn(String) -> LocalBoxFuture<'static, ()> + Send + Sync>,
}

/// Implements [`Hits`] for a type. The last argument is an expression that reads one key and
/// returns the id.
macro_rules! hits {
    ($of:ty, $name:expr, $side:expr, |$this:ident, $key:ident| $read:expr) => {
        impl $crate::hits::Hits for $of {
            fn name(&self) -> &'static str {
                $name
            }

            fn side(&self) -> $crate::measure::Side {
                $side
            }

            fn read<'a>(
                &'a self,
                draws: &'a $crate::workload::Draws,
                n: u64,
            ) -> std::pin::Pin<Box<dyn Future<Output = u64> + 'a>> {
                let $this = self;
                Box::pin(async move {
                    let mut sum = 0;
                    for $key in draws.take(n) {
                        sum += $read;
                    }
                    sum
                })
            }
        }
    };
}
#[cfg(feature = "peers")]
pub(crate) use hits;

/// A TTL that is long enough for every row.
pub(crate) const TTL: Duration = Duration::from_secs(3_600);

/// Crinkle's main call.
pub(crate) struct GetOrSet(pub(crate) Cache);

hits!(GetOrSet, "crinkle", Side::Crinkle, |this, key| {
    this.0.get_or_set(key, |_| missed()).await.map_or(0, |found| found.id)
});

/// The same with `N` tags, written in the call as users do.
pub(crate) struct GetOrSetTagged<const N: usize>(pub(crate) Cache);

hits!(GetOrSetTagged<1>, "crinkle", Side::Crinkle, |this, key| {
    this.0.get_or_set(key, |_| missed()).tags(TAGS_1).await.map_or(0, |found| found.id)
});
hits!(GetOrSetTagged<3>, "crinkle", Side::Crinkle, |this, key| {
    this.0.get_or_set(key, |_| missed()).tags(TAGS_3).await.map_or(0, |found| found.id)
});
hits!(GetOrSetTagged<10>, "crinkle", Side::Crinkle, |this, key| {
    this.0.get_or_set(key, |_| missed()).tags(TAGS_10).await.map_or(0, |found| found.id)
});

/// The same with a number of tags that is known only at run time.
pub(crate) struct GetOrSetNaming {
    pub(crate) cache: Cache,
    pub(crate) count: usize,
}

hits!(GetOrSetNaming, "crinkle", Side::Crinkle, |this, key| {
    let tags = tags(this.count);
    this.cache.get_or_set(key, |_| missed()).tags(tags).await.map_or(0, |found| found.id)
});

/// Crinkle's plain read.
pub(crate) struct Get(pub(crate) Cache);

hits!(Get, "crinkle", Side::Crinkle, |this, key| {
    this.0.get::<Product>(key).await.ok().flatten().map_or(0, |found| found.id)
});

/// Crinkle's read without `await`.
pub(crate) struct Peek(pub(crate) Cache);

hits!(Peek, "crinkle", Side::Crinkle, |this, key| {
    this.0.peek::<Product>(key).map_or(0, |found| found.id)
});

/// moka without anything around it.
pub(crate) struct MokaGet(moka::sync::Cache<String, Arc<Product>>);

hits!(MokaGet, "moka_sync_get", Side::Floor, |this, key| this
    .0
    .get(key)
    .map_or(0, |found| found.id));

/// A map without eviction and expiry.
pub(crate) struct DashMapGet(DashMap<String, Arc<Product>>);

hits!(DashMapGet, "dashmap_get_clone", Side::Floor, |this, key| {
    this.0.get(key).map(|found| Arc::clone(&found)).map_or(0, |found| found.id)
});

/// `quick_cache` without anything around it.
pub(crate) struct QuickGet(quick_cache::sync::Cache<String, Arc<Product>>);

hits!(QuickGet, "quick_cache_get", Side::Floor, |this, key| {
    this.0.get(key).map_or(0, |found| found.id)
});

static ALL_TAGS: [&str; 32] = [
    "products",
    "category:7",
    "brand:21",
    "shelf:3",
    "region:eu",
    "region:us",
    "sale",
    "season:12",
    "campaign:1",
    "campaign:2",
    "campaign:3",
    "campaign:4",
    "list:1",
    "list:2",
    "list:3",
    "list:4",
    "list:5",
    "list:6",
    "list:7",
    "list:8",
    "page:1",
    "page:2",
    "page:3",
    "page:4",
    "page:5",
    "page:6",
    "page:7",
    "page:8",
    "tenant:1",
    "tenant:2",
    "tenant:3",
    "tenant:4",
];
const TAGS_1: [&str; 1] = ["products"];
const TAGS_3: [&str; 3] = ["products", "category:7", "brand:21"];
const TAGS_10: [&str; 10] = [
    "products",
    "category:7",
    "brand:21",
    "shelf:3",
    "region:eu",
    "region:us",
    "sale",
    "season:12",
    "campaign:1",
    "campaign:2",
];

/// The first `n` tags; every filled entry has them.
pub(crate) fn tags(n: usize) -> impl Iterator<Item = &'static str> + Clone + Send {
    ALL_TAGS[..n.min(ALL_TAGS.len())].iter().copied()
}

/// The factory of a hit, which must not run.
#[expect(clippy::unused_async, reason = "a factory returns a future")]
async fn missed() -> Result<Product, crinkle::BoxError> {
    Err("a hit calls no factory".into())
}

/// Creates a cache with L1 only that holds the products, each with this many tags.
pub(crate) async fn crinkle_of(draws: &Draws, tags_each: usize) -> Result<Cache> {
    let capacity = 100_000.max(draws.keys.len() as u64 * 2);
    let cache = Cache::builder("bench")
        .capacity(capacity)
        .default_options(EntryOptions::new(TTL))
        .build()?;
    fill(&cache, draws, tags_each).await?;
    Ok(cache)
}

/// The same, read with a call that names this many tags.
pub(crate) async fn crinkle_tagged(draws: &Draws, count: usize) -> Result<Tagged> {
    let cache = crinkle_of(draws, count).await?;
    let hits: Box<dyn Hits> = match count {
        0 => Box::new(GetOrSet(cache.clone())),
        1 => Box::new(GetOrSetTagged::<1>(cache.clone())),
        3 => Box::new(GetOrSetTagged::<3>(cache.clone())),
        10 => Box::new(GetOrSetTagged::<10>(cache.clone())),
        _ => Box::new(GetOrSetNaming { cache: cache.clone(), count }),
    };
    let remove = move |tag: String| {
        let cache = cache.clone();
        Box::pin(async move { drop(cache.remove_by_tag(tag).await) }) as LocalBoxFuture<'static, ()>
    };
    Ok(Tagged { hits, remove: Box::new(remove) })
}

/// Stores every product of the draws in the cache.
pub(crate) async fn fill(cache: &Cache, draws: &Draws, tags_each: usize) -> Result<()> {
    for (id, key) in draws.keys.iter().enumerate() {
        cache.set(key, Product::new(id)).tags(tags(tags_each)).await?;
    }
    Ok(())
}

/// The filled floors.
pub(crate) fn floors(draws: &Draws) -> Vec<Box<dyn Hits>> {
    let capacity = 100_000.max(draws.keys.len() * 2);
    let moka = moka::sync::Cache::new(capacity as u64);
    let (map, quick) = (DashMap::new(), quick_cache::sync::Cache::new(capacity));
    for (id, key) in draws.keys.iter().enumerate() {
        let product = Arc::new(Product::new(id));
        moka.insert(key.clone(), Arc::clone(&product));
        map.insert(key.clone(), Arc::clone(&product));
        quick.insert(key.clone(), product);
    }
    moka.run_pending_tasks();
    vec![Box::new(MokaGet(moka)), Box::new(DashMapGet(map)), Box::new(QuickGet(quick))]
}

/// Runs the loop on this thread and measures its processor time.
pub(crate) fn on_one_thread<'a>(
    env: &'a Env,
    draws: &'a Draws,
    hits: &'a dyn Hits,
) -> Contender<'a> {
    Contender::new(hits.name(), hits.side(), move |n| {
        let begun = thread_time();
        let sum = env.runtime.block_on(hits.read(draws, n));
        let took = thread_time() - begun;
        ensure!(sum == draws.sum(n), "a read found nothing, or another product");
        Ok(took)
    })
}

/// Runs the loop on two threads that read the same keys. The time is the sum of both.
pub(crate) fn on_two_threads<'a>(draws: &'a Draws, hits: &'a dyn Hits) -> Contender<'a> {
    Contender::new(hits.name(), hits.side(), move |n| {
        let start = Barrier::new(2);
        let half = n / 2;
        let reader = || -> Result<Duration> {
            let runtime = one_thread()?;
            start.wait();
            let begun = thread_time();
            let sum = runtime.block_on(hits.read(draws, half));
            let took = thread_time() - begun;
            ensure!(sum == draws.sum(half), "a read found nothing, or another product");
            Ok(took)
        };
        std::thread::scope(|scope| {
            let (one, two) = (scope.spawn(reader), scope.spawn(reader));
            let joined = |thread: std::thread::ScopedJoinHandle<'_, Result<Duration>>| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a reader panicked")))
            };
            Ok(joined(one)? + joined(two)?)
        })
    })
}

/// Allocations per read on this thread.
pub(crate) fn allocations(env: &Env, draws: &Draws, hits: &dyn Hits) -> f64 {
    let reads = 10_000;
    let count = allocation_counter::measure(|| {
        env.runtime.block_on(hits.read(draws, reads));
    });
    count.count_total as f64 / reads as f64
}
