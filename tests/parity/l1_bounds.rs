//! What L1 holds, and what goes first.

use crinkle_core::l2::Raw;
use crinkle_core::{Cache, Eviction, Settings, Source};
use crinkle_tests::{Loads, World, long};

use crate::{fresh, load_or, put};

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_entry_goes_first() {
    let builder = Cache::builder("shop").eviction(Eviction::Lru);
    let cache = builder.capacity(3).build().unwrap();
    for key in ["a", "b", "c"] {
        put(&cache, key, 1, &[]).await;
        assert!(cache.entry_count() <= 3);
    }
    assert!(cache.peek::<i32>("a").is_some(), "used just now");
    assert_eq!(cache.entry_count(), 3);
    put(&cache, "d", 1, &[]).await;
    assert_eq!(cache.entry_count(), 3);
    let left = ["a", "b", "c", "d"].map(|key| cache.peek::<i32>(key).is_some());
    assert_eq!(left, [true, false, true, true]);
}

/// Entries that are read again are not driven out by those that are read once.
#[tokio::test(start_paused = true)]
async fn a_scan_leaves_what_is_read_again() {
    let hot =
        |cache: &Cache| (0..50).filter(|n| cache.peek::<i32>(format!("hot:{n}")).is_some()).count();
    for (eviction, kept) in [(Eviction::S3Fifo, 50), (Eviction::Lru, 0)] {
        let cache = Cache::builder("shop").eviction(eviction).capacity(100).build().unwrap();
        for number in 0..50 {
            put(&cache, &format!("hot:{number}"), 1, &[]).await;
        }
        assert_eq!(hot(&cache), 50, "read once more");
        for number in 0..1000 {
            put(&cache, &format!("scan:{number}"), 1, &[]).await;
        }
        assert!(cache.peek::<i32>("scan:999").is_some(), "what is new is kept");
        assert!(cache.entry_count() <= 100);
        assert_eq!(hot(&cache), kept, "{eviction:?}");
    }
}

/// A policy that refuses what is new, for those who know that they want it.
#[tokio::test(start_paused = true)]
async fn tiny_lfu_keeps_what_is_read_most() {
    let cache = Cache::builder("shop").eviction(Eviction::TinyLfu).capacity(100).build().unwrap();
    for number in 0..100 {
        let key = format!("hot:{number}");
        put(&cache, &key, 1, &[]).await;
        for _ in 0..10 {
            assert!(cache.peek::<i32>(&key).is_some());
        }
    }
    for number in 0..200 {
        put(&cache, &format!("new:{number}"), 1, &[]).await;
        let _ = cache.entry_count();
    }
    let new = (0..200).filter(|n| cache.peek::<i32>(format!("new:{n}")).is_some()).count();
    assert!(new < 20, "{new} new ones kept");
}

#[tokio::test(start_paused = true)]
async fn a_heavy_entry_takes_the_room_of_many() {
    let cache = Cache::builder("shop").capacity(10).build().unwrap();
    for number in 0..10 {
        put(&cache, &number.to_string(), 1, &[]).await;
    }
    assert_eq!(cache.entry_count(), 10);
    let _ = cache.set("heavy", 1).options(long().weight(8)).await.unwrap();
    assert_eq!(cache.entry_count(), 3, "itself and two of weight 1");
    assert!(cache.peek::<i32>("heavy").is_some());
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_does_not_fit_at_all_is_answered_and_not_kept() {
    let cache = Cache::builder("shop").capacity(10).build().unwrap();
    put(&cache, "other", 1, &[]).await;
    let request = cache.get_or_set("key", Loads::new().value(1)).options(long().weight(11));
    assert_eq!(*request.await.unwrap(), 1);
    assert_eq!(cache.entry_count(), 1);
    assert!(cache.peek::<i32>("key").is_none() && cache.peek::<i32>("other").is_some());
}

/// Bytes count, weights do not: what a value holds on the heap is known from its encoding.
#[tokio::test(start_paused = true)]
async fn a_capacity_in_bytes_is_kept() {
    let world = World::new().await;
    let settings = Settings::default().capacity_bytes(100_000);
    let node = world.node_with(|builder| builder.codec(Raw).settings(settings)).await;
    for number in 0..100 {
        let key = number.to_string();
        let _ = node.cache.set(&key, vec![7_u8; 10_000]).options(long()).await.unwrap();
    }
    let held = node.cache.entry_count();
    assert!((8..=9).contains(&held), "{held} of 10 kB each, and what each has besides");
    for number in 0..50 {
        let _ = node.cache.set(format!("s{number}"), vec![7_u8; 100]).await.unwrap();
    }
    assert!(node.cache.entry_count() > 50, "small ones take little");
}

#[tokio::test(start_paused = true)]
async fn what_l1_has_no_room_for_is_found_in_l2() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.capacity(2)).await;
    for number in 0..10 {
        put(&node.cache, &number.to_string(), number, &[]).await;
    }
    assert_eq!(node.cache.entry_count(), 2);
    for number in 0..10 {
        assert_eq!(load_or(&node.cache, &number.to_string(), 99, &[]).await, (number, false));
    }
    assert_eq!(node.cache.entry_count(), 2);
}

/// The size of an entry travels through L2: the other node counts it too.
#[tokio::test(start_paused = true)]
async fn a_weight_travels_with_the_record() {
    let world = World::new().await;
    let one = world.node().await;
    let two = world.node_with(|builder| builder.capacity(10)).await;
    for key in ["light", "also light"] {
        put(&two.cache, key, 1, &[]).await;
    }
    let _ = one.cache.set("heavy", 1).options(long().weight(9)).await.unwrap();
    let read = two.cache.get::<i32>("heavy").await.unwrap().unwrap();
    assert_eq!(read.meta().source(), Source::L2);
    assert_eq!(two.cache.entry_count(), 2);
    let _ = one.cache.set("too heavy", 1).options(long().weight(11)).await.unwrap();
    assert_eq!(fresh(&two.cache, "too heavy").await, Some(1));
    assert_eq!(two.cache.entry_count(), 2);
    assert!(two.cache.peek::<i32>("too heavy").is_none());
}

/// Removals make room, and say so.
#[tokio::test(start_paused = true)]
async fn what_was_removed_does_not_count() {
    let world = World::new().await;
    for cache in crinkle_tests::both(&world).await {
        for number in 0..5 {
            put(&cache, &number.to_string(), 1, &[]).await;
        }
        assert_eq!(cache.entry_count(), 5);
        let _ = cache.remove("0").await.unwrap();
        assert_eq!(cache.entry_count(), 4);
        let _ = cache.remove_all().await.unwrap();
        assert_eq!(cache.entry_count(), 0, "a hard clear gives the memory back");
    }
}

/// Two caches of one name in one process share nothing but what L2 gives both.
#[tokio::test(start_paused = true)]
async fn caches_of_one_name_have_an_l1_each() {
    let world = World::new().await;
    let (one, two) = (world.alone(), world.alone());
    put(&one, "key", 1, &[]).await;
    assert_eq!(fresh::<i32>(&two, "key").await, None);
    let _ = two.remove_all().await.unwrap();
    assert_eq!(fresh(&one, "key").await, Some(1));
}
