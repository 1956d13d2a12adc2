//! Pinned entries: what L1 does not evict, and within which bounds.

use crinkle_core::{Cache, EntryOptions, Eviction};
use crinkle_tests::{World, long};

use crate::{any, fresh, put, secs};

async fn pin(cache: &Cache, key: &str, options: EntryOptions) {
    let _ = cache.set(key, 1).tags(["pinned"]).options(options.pinned(true)).await.expect("sound");
}

/// A cache for a hundred entries.
fn small(world: &World) -> Cache {
    let builder = Cache::builder("shop").clock(world.clock).eviction(Eviction::Lru);
    builder.capacity(100).build().expect("sound settings")
}

async fn flood(cache: &Cache) {
    for number in 0..500 {
        put(cache, &format!("flood:{number}"), 1, &[]).await;
        let _ = cache.entry_count();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pinned_entry_stays_however_full_l1_is() {
    let world = World::new().await;
    let cache = small(&world);
    put(&cache, "plain", 1, &[]).await;
    pin(&cache, "pinned", long()).await;
    flood(&cache).await;
    assert!(cache.peek::<i32>("plain").is_none());
    assert!(cache.peek::<i32>("pinned").is_some());
}

/// A quarter of the capacity at most: what is more is kept like any other entry.
#[tokio::test(start_paused = true)]
async fn pinned_entries_take_a_bounded_share() {
    let world = World::new().await;
    let cache = small(&world);
    for number in 0..60 {
        pin(&cache, &number.to_string(), long()).await;
    }
    flood(&cache).await;
    let left: Vec<_> =
        (0..60).filter(|number| cache.peek::<i32>(number.to_string()).is_some()).collect();
    assert_eq!(left, (0..25).collect::<Vec<_>>());
    assert!(cache.entry_count() <= 125);
}

#[tokio::test(start_paused = true)]
async fn a_pinned_entry_yields_to_removals_and_writes() {
    let world = World::new().await;
    for how in ["remove", "tag", "clear", "set"] {
        let cache = small(&world);
        pin(&cache, "key", long()).await;
        match how {
            "remove" => drop(cache.remove("key").await.unwrap()),
            "tag" => drop(cache.remove_by_tag("pinned").await.unwrap()),
            "clear" => drop(cache.remove_all().await.unwrap()),
            _ => put(&cache, "key", 2, &[]).await,
        }
        assert_eq!(any(&cache, "key").await, (how == "set").then_some(2), "{how}");
        flood(&cache).await;
        assert!(cache.peek::<i32>("key").is_none(), "{how}: what replaced it is not pinned");
    }
}

/// Pinned while it lives, and no longer: others may have its place then.
#[tokio::test(start_paused = true)]
async fn the_place_of_a_pinned_entry_is_free_when_its_life_is_over() {
    let world = World::new().await;
    let cache = small(&world);
    for number in 0..25 {
        pin(&cache, &format!("old:{number}"), EntryOptions::new(secs(10))).await;
    }
    crinkle_tests::pass(secs(11)).await;
    pin(&cache, "new", long()).await;
    flood(&cache).await;
    assert_eq!(fresh(&cache, "new").await, Some(1));
}

/// A copy from L2 is pinned by the options of the node that reads it.
#[tokio::test(start_paused = true)]
async fn a_copy_is_pinned_where_its_reader_says_so() {
    let world = World::new().await;
    let one = world.node().await;
    let pinned = long().pinned(true);
    let two = world.node_with(|b| b.capacity(100).default_options(pinned)).await;
    put(&one.cache, "key", 1, &[]).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    flood(&two.cache).await;
    assert!(two.cache.peek::<i32>("key").is_some());
}
