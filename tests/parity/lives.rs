//! Lives per level, jitter, and lives that slide.

use std::time::Duration;

use crinkle_core::l2::L2;
use crinkle_core::{Cache, EntryOptions, FailSafe, Settings, Source, ok};
use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, World, both, long, ms, options, pass};

use crate::{SHORT, any, fresh, put, secs};

#[tokio::test(start_paused = true)]
async fn a_shorter_life_in_l1_is_followed_by_a_look_at_l2() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = node.cache.set("key", 1).options(long().l1_duration(secs(1))).await.unwrap();
    assert!(node.cache.peek::<i32>("key").is_some());
    pass(secs(1)).await;
    assert!(node.cache.peek::<i32>("key").is_none());
    node.l2.forget();
    let read = node.cache.get::<i32>("key").await.unwrap().unwrap();
    assert_eq!((*read, read.meta().source()), (1, Source::L2));
    assert_eq!(node.l2.count(L2Op::Look), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_may_limit_the_life_of_its_copy() {
    let world = World::new().await;
    let [one, two, three] = crate::nodes(&world).await;
    put(&one.cache, "key", 1, &[]).await;
    let read = two.cache.get::<i32>("key").l1_duration(secs(5)).await.unwrap();
    assert!(read.is_some());
    let read = three.cache.get_or_set("key", Loads::new().value(2)).l1_duration(secs(5));
    assert_eq!(*read.await.unwrap(), 1);
    for node in [&two, &three] {
        assert!(node.cache.peek::<i32>("key").is_some());
    }
    pass(secs(5)).await;
    for node in [&two, &three] {
        assert!(node.cache.peek::<i32>("key").is_none());
        assert_eq!(fresh(&node.cache, "key").await, Some(1));
    }
}

/// Upstream's 21: one second here, longer in L2, with fail-safe and without.
#[tokio::test(start_paused = true)]
async fn a_longer_life_in_l2_is_found_when_the_copy_is_over() {
    let world = World::new().await;
    for kept in [None, Some(FailSafe::default())] {
        let (one, two) = (world.node().await, world.node().await);
        let lives = EntryOptions::new(secs(1)).l2_duration(secs(60)).fail_safe(kept);
        let _ = one.cache.set("key", 21).options(lives).await.unwrap();
        pass(secs(2)).await;
        assert!(one.cache.peek::<i32>("key").is_none());
        for node in [&one, &two] {
            assert_eq!(fresh(&node.cache, "key").await, Some(21));
        }
        pass(secs(58)).await;
        assert_eq!(fresh::<i32>(&two.cache, "key").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_does_not_outlive_a_shorter_life_in_l2() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let lives = long().l1_duration(secs(300)).l2_duration(secs(2));
    let _ = one.cache.set("set", 1).options(lives.clone()).await.unwrap();
    one.cache.get_or_set("loaded", Loads::new().value(1)).options(lives).await.unwrap();
    pass(ms(1_900)).await;
    for key in ["set", "loaded"] {
        assert!(one.cache.peek::<i32>(key).is_some());
        assert_eq!(fresh(&two.cache, key).await, Some(1));
    }
    pass(ms(101)).await;
    for node in [&one, &two] {
        for key in ["set", "loaded"] {
            assert_eq!(fresh::<i32>(&node.cache, key).await, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_l2_only_the_life_in_l1_counts() {
    let world = World::new().await;
    let cache = world.alone();
    let lives = EntryOptions::new(secs(5)).l1_duration(secs(20)).l2_duration(secs(1));
    let _ = cache.set("key", 1).options(lives).await.unwrap();
    pass(secs(19)).await;
    assert_eq!(fresh(&cache, "key").await, Some(1));
    pass(secs(1)).await;
    assert_eq!(fresh::<i32>(&cache, "key").await, None);
}

#[tokio::test(start_paused = true)]
async fn the_longest_life_caps_those_of_each_level() {
    let world = World::new().await;
    let settings = Settings::default().max_lifetime(secs(60));
    let (one, two) = (
        world.node_with(|builder| builder.settings(settings.clone())).await,
        world.node_with(|builder| builder.settings(settings)).await,
    );
    let lives = long().l1_duration(secs(500)).l2_duration(secs(500)).jitter(secs(500));
    let _ = one.cache.set("key", 1).options(lives).await.unwrap();
    pass(secs(59)).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    pass(secs(1)).await;
    for node in [&one, &two] {
        assert_eq!(fresh::<i32>(&node.cache, "key").await, None);
    }
    assert!(world.store.keys().is_empty());
}

/// How many of a hundred keys are still in L1.
fn held(cache: &Cache) -> usize {
    (0..100).filter(|number| cache.peek::<i32>(number.to_string()).is_some()).count()
}

#[tokio::test(start_paused = true)]
async fn jitter_spreads_the_ends_of_lives_and_only_ever_adds() {
    let world = World::new().await;
    for cache in both(&world).await {
        let spread = EntryOptions::new(secs(10)).jitter(secs(10));
        for number in 0..100 {
            let key = number.to_string();
            let _ = cache.set(&key, number).options(spread.clone()).await.unwrap();
        }
        pass(ms(9_999)).await;
        assert_eq!(held(&cache), 100);
        pass(ms(5_000)).await;
        assert!((25..=75).contains(&held(&cache)), "half of them, about: {}", held(&cache));
        pass(ms(5_002)).await;
        assert_eq!(held(&cache), 0);
    }
}

/// Drawn once per entry: what one node stores ends on all of them together.
#[tokio::test(start_paused = true)]
async fn jitter_is_the_same_on_every_node() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let spread = EntryOptions::new(secs(10)).jitter(secs(10));
    for number in 0..100 {
        let key = number.to_string();
        let _ = one.cache.set(&key, number).options(spread.clone()).await.unwrap();
        assert_eq!(fresh(&two.cache, &key).await, Some(number));
    }
    for _ in 0..10 {
        pass(ms(1_900)).await;
        for number in 0..100 {
            let key = number.to_string();
            let left = one.cache.peek::<i32>(&key).is_some();
            assert_eq!(two.cache.peek::<i32>(&key).is_some(), left);
        }
    }
}

/// The throttle is a promise to the source and to the callers: it is what it says.
#[tokio::test(start_paused = true)]
async fn the_throttle_has_no_jitter() {
    let world = World::new().await;
    for cache in both(&world).await {
        let spread = options().jitter(secs(600));
        for number in 0..20 {
            let key = number.to_string();
            let _ = cache.set(&key, 1).options(spread.clone()).await.unwrap();
            let _ = cache.expire(&key).await.unwrap();
        }
        let loads = Loads::new();
        for expected in [20, 20, 40] {
            for number in 0..20 {
                let key = number.to_string();
                let call = cache.get_or_set(&key, loads.fail::<_, i32>());
                assert!(call.options(spread.clone()).await.unwrap().meta().is_stale());
            }
            assert_eq!(loads.count(), expected);
            pass(secs(if expected == 20 { 16 } else { 0 })).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sliding_life_goes_on_with_every_hit() {
    let world = World::new().await;
    for cache in both(&world).await {
        let sliding = EntryOptions::new(secs(10)).sliding(true);
        for key in ["used", "unused"] {
            let _ = cache.set(key, 1).options(sliding.clone()).await.unwrap();
        }
        for _ in 0..10 {
            pass(secs(8)).await;
            assert!(cache.peek::<i32>("used").is_some());
        }
        assert!(cache.peek::<i32>("unused").is_none());
        pass(ms(10_001)).await;
        assert!(cache.peek::<i32>("used").is_none(), "not used for a whole life");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sliding_life_ends_with_the_longest() {
    let world = World::new().await;
    let settings = Settings::default().max_lifetime(secs(60));
    let node = world.node_with(|builder| builder.settings(settings)).await;
    let sliding = EntryOptions::new(secs(10)).sliding(true);
    let _ = node.cache.set("key", 1).options(sliding).await.unwrap();
    for _ in 0..11 {
        pass(secs(5)).await;
        assert!(node.cache.peek::<i32>("key").is_some());
    }
    pass(secs(5)).await;
    assert!(node.cache.peek::<i32>("key").is_none());
}

/// The record keeps its own end: sliding is a matter of the node that is asked.
#[tokio::test(start_paused = true)]
async fn a_sliding_life_is_of_this_node_only() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let sliding = EntryOptions::new(secs(10)).sliding(true);
    let _ = one.cache.set("key", 1).options(sliding).await.unwrap();
    for _ in 0..3 {
        pass(secs(5)).await;
        assert_eq!(fresh(&one.cache, "key").await, Some(1));
    }
    assert_eq!(any(&two.cache, "key").await, None);
}

/// However often it is used: a removal is a removal, a write a write.
#[tokio::test(start_paused = true)]
async fn a_sliding_entry_yields_to_removals_and_writes() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let sliding = EntryOptions::new(secs(10)).sliding(true);
    for key in ["tagged", "removed", "set", "expired"] {
        let set = one.cache.set(key, 1).tags([key]).options(sliding.clone());
        let _ = set.await.unwrap();
    }
    pass(secs(8)).await;
    for key in ["tagged", "removed", "set", "expired"] {
        assert_eq!(fresh(&one.cache, key).await, Some(1));
    }
    let _ = two.cache.remove_by_tag("tagged").await.unwrap();
    let _ = two.cache.remove("removed").await.unwrap();
    let _ = two.cache.expire("expired").await.unwrap();
    put(&two.cache, "set", 2, &[]).await;
    pass(SHORT).await;
    let mut answers = Vec::new();
    for key in ["tagged", "removed", "set", "expired"] {
        answers.push(fresh::<i32>(&one.cache, key).await);
    }
    assert_eq!(answers, [None, None, Some(2), None]);
}

/// The record of a key as it is in the store, with another end.
async fn plant_with(world: &World, key: &str, ttl: Duration) {
    let record = World::record(key);
    let found =
        world.store.read(&record, None).await.expect("no trouble").found.expect("no trouble");
    world.store.plant(&record, found.bytes, ttl);
}

/// Somebody has moved the end of a record (`PEXPIRE`, by hand): nobody can tell its age.
#[tokio::test(start_paused = true)]
async fn a_record_whose_end_was_moved_counts_as_over_however_it_is_read() {
    let lives = EntryOptions::new(secs(60)).fail_safe(FailSafe::for_up_to(secs(60)));
    for reader in [lives.clone(), lives.clone().sliding(true), lives.clone().strict(true)] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let keys = ["key", "other"];
        for key in keys {
            let _ = one.cache.set(key, 1).options(lives.clone()).await.unwrap();
            plant_with(&world, key, secs(3600)).await;
        }
        pass(SHORT).await;
        let get = || two.cache.get::<i32>("key").options(reader.clone());
        assert!(get().await.unwrap().is_none());
        assert!(get().allow_stale().await.unwrap().is_none());
        let many = two.cache.get_many::<i32>(keys).options(reader.clone()).allow_stale(true);
        assert!(many.await.unwrap().iter().all(Option::is_none));
        assert!(!two.cache.contains("key").await.unwrap());
        let loads = Loads::new();
        let read = two.cache.get_or_set("key", loads.value(2)).options(reader.clone());
        assert_eq!((*read.await.unwrap(), loads.count()), (2, 1));
        let read = two.cache.get_or_set_many(keys, |missing| async move {
            ok(missing.into_iter().map(|key| (key, 3)))
        });
        let read: Vec<_> = read.options(reader.clone()).await.unwrap();
        assert_eq!(read.iter().map(|value| **value).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(fresh(&world.node().await.cache, "key").await, Some(2), "it was replaced");
    }
}

/// A clock that is behind, or counts in seconds, makes no copy live longer than its record.
#[tokio::test(start_paused = true)]
async fn a_copy_ends_with_the_life_of_its_record_whatever_the_store_says_is_left() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let lives = EntryOptions::new(secs(30)).fail_safe(FailSafe::for_up_to(secs(60)));
    let _ = one.cache.set("key", 1).options(lives).await.unwrap();
    plant_with(&world, "key", secs(64)).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    let here = || two.cache.get::<i32>("key").skip_l2_read(true).allow_stale();
    pass(secs(59)).await;
    assert!(here().await.unwrap().is_some_and(|read| read.meta().is_stale()));
    pass(secs(2)).await;
    assert!(here().await.unwrap().is_none());
}

/// The record was stored by a node with a longer `max_lifetime`: a copy of it is kept for the reader's own.
#[tokio::test(start_paused = true)]
async fn the_longest_life_of_a_reader_caps_its_copies_of_what_others_stored() {
    for sliding in [false, true] {
        let world = World::new().await;
        let settings = Settings::default().max_lifetime(secs(60));
        let (one, two) =
            (world.node().await, world.node_with(|builder| builder.settings(settings)).await);
        put(&one.cache, "key", 1, &[]).await;
        pass(secs(90)).await;
        let read = || two.cache.get::<i32>("key").options(long().sliding(sliding)).allow_stale();
        assert!(read().await.unwrap().is_some(), "older than that, but there");
        two.l2.down();
        pass(secs(59)).await;
        assert!(read().await.unwrap().is_some(), "a copy of 59 s");
        pass(secs(2)).await;
        assert!(read().await.unwrap().is_none(), "a copy of 61 s");
    }
}
