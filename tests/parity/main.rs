//! Scenarios that FusionCache users look for, one by one; `docs/parity.md` is the map.

use std::time::Duration;

use crinkle_core::l2::{Codec, MessagePack};
use crinkle_core::{Cache, WriteStatus};
use crinkle_tests::{Loads, Node, World, long};

mod adaptive;
mod background;
mod backplane;
mod clear;
mod conditional;
mod counters;
mod dead_entries;
mod durations;
mod eager;
mod eager_early;
mod fail_safe;
mod l1_bounds;
mod l2;
mod last_resort;
mod ledger_only;
mod lifecycle;
mod lives;
mod operations;
mod pages;
mod per_key;
mod pinned;
mod recovery;
mod settings;
mod skips;
mod stampede;
mod tags;
mod tags_on_nodes;
mod timeouts;

/// Long enough for a message and its effects.
const SHORT: Duration = Duration::from_millis(50);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn nodes(world: &World) -> [Node; 3] {
    [world.node().await, world.node().await, world.node().await]
}

async fn put(cache: &Cache, key: &str, value: i32, tags: &[&str]) {
    let set = cache.set(key, value).options(long()).tags(tags.iter().copied());
    let reach = set.await.expect("no trouble").l2();
    assert!(!matches!(reach, WriteStatus::Queued | WriteStatus::Unknown), "{reach:?}");
}

/// The fresh value, if there is one.
async fn fresh<T>(cache: &Cache, key: &str) -> Option<T>
where
    MessagePack: Codec<T>,
    T: Clone + Send + Sync + 'static,
{
    let read = cache.get::<T>(key).await.expect("no trouble")?;
    assert!(!read.meta().is_stale(), "a plain get answers nothing stale");
    Some(crinkle_core::Cached::into_inner(read))
}

/// The value, fresh or stale, if there is one.
async fn any(cache: &Cache, key: &str) -> Option<i32> {
    let read = cache.get::<i32>(key).allow_stale().await.expect("no trouble");
    read.map(|read| *read)
}

/// Returns the answer of a `get_or_set`, and whether it ran the factory.
async fn load_or(cache: &Cache, key: &str, value: i32, tags: &[&str]) -> (i32, bool) {
    let loads = Loads::new();
    let request = cache.get_or_set(key, loads.value(value)).options(long());
    let read = request.tags(tags.iter().copied()).await.expect("no trouble");
    (*read, loads.count() == 1)
}
