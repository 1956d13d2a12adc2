//! How long values live, and by whose choice.

use crinkle_core::{EntryOptions, FailSafe, Source};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, World, both, gated, load, long, ms, options, pass};

use crate::{any, fresh, secs};

#[tokio::test(start_paused = true)]
async fn a_value_is_loaded_again_when_its_life_is_over_and_not_before() {
    let world = World::new().await;
    for cache in both(&world).await {
        let loads = Loads::new();
        for (wait, value, count) in [(0, 1, 1), (9_999, 1, 1), (1, 2, 2), (9_999, 2, 2), (1, 3, 3)]
        {
            pass(ms(wait)).await;
            let ten = EntryOptions::new(secs(10));
            let read = cache.get_or_set("key", loads.value(value)).options(ten).await.unwrap();
            assert_eq!((*read, loads.count()), (value, count));
        }
    }
}

/// FusionCache counts the life in L2 from the factory's start: a slow one stores what is over.
#[tokio::test(start_paused = true)]
async fn a_life_begins_when_the_factory_ends() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let slow = load(&one.cache, "key", &[], EntryOptions::new(secs(10)), gated(&gate, 1));
    gate.reached().await;
    pass(secs(60)).await;
    gate.open();
    let read = slow.await.unwrap().unwrap();
    assert!(!read.meta().is_stale() && read.meta().age() < ms(10), "{:?}", read.meta().age());
    pass(secs(9)).await;
    for node in [&one, &two] {
        assert_eq!(fresh(&node.cache, "key").await, Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_value_begins_again_with_each_load() {
    let world = World::new().await;
    for cache in both(&world).await {
        let read = cache.get_or_set("key", Loads::new().value(1)).options(options());
        assert_eq!(read.await.unwrap().meta().age(), secs(0));
        pass(secs(7)).await;
        let hit = cache.peek::<i32>("key").unwrap();
        assert_eq!(hit.meta().age(), secs(7));
        pass(secs(7)).await;
        assert_eq!(hit.meta().age(), secs(7), "as of when it was read");
        let read = cache.get_or_set("key", Loads::new().value(2)).options(options());
        assert_eq!(read.await.unwrap().meta().age(), secs(0));
    }
}

/// The second node asks for ten seconds; the record has two.
#[tokio::test(start_paused = true)]
async fn a_copy_lives_no_longer_than_its_record() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 21).duration(secs(2)).await.unwrap();
    pass(secs(1)).await;
    let asked = two.cache.get_or_set("key", Loads::new().value(42)).duration(secs(10));
    let read = asked.await.unwrap();
    assert_eq!((*read, read.meta().source()), (21, Source::L2));
    pass(ms(1_001)).await;
    assert_eq!(fresh::<i32>(&two.cache, "key").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_options_uses_the_caches() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.default_options(EntryOptions::new(secs(5)))).await;
    let _ = node.cache.set("set", 1).await.unwrap();
    node.cache.get_or_set("loaded", Loads::new().value(1)).await.unwrap();
    let _ = node.cache.set("own", 1).duration(secs(60)).await.unwrap();
    pass(secs(4)).await;
    for key in ["set", "loaded", "own"] {
        assert_eq!(fresh(&node.cache, key).await, Some(1));
    }
    pass(secs(2)).await;
    for (key, left) in [("set", None), ("loaded", None), ("own", Some(1))] {
        assert_eq!(fresh(&node.cache, key).await, left, "{key}");
    }
}

/// A setter on the call changes that field of the defaults; `options` replaces them all.
#[tokio::test(start_paused = true)]
async fn a_setter_keeps_the_other_defaults_and_options_replaces_them() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.default_options(options())).await;
    let _ = node.cache.set("one", 1).duration(secs(1)).await.unwrap();
    let _ = node.cache.set("all", 1).options(EntryOptions::new(secs(1))).await.unwrap();
    pass(secs(2)).await;
    for (key, left) in [("one", Some(1)), ("all", None)] {
        assert_eq!(fresh::<i32>(&node.cache, key).await, None);
        assert_eq!(any(&node.cache, key).await, left, "{key}: fail-safe keeps it");
    }
}

#[tokio::test(start_paused = true)]
async fn options_chosen_for_one_call_are_gone_with_it() {
    let world = World::new().await;
    let cache = world.alone();
    let _ = cache.set("first", 1).duration(secs(1)).await.unwrap();
    let _ = cache.set("second", 1).await.unwrap();
    pass(secs(29)).await;
    assert_eq!(fresh(&cache, "second").await, Some(1), "the default of 30 s");
    pass(secs(2)).await;
    assert_eq!(fresh::<i32>(&cache, "second").await, None);
}

/// The shortest life there is: fresh for callers of now, gone for those who come later.
#[tokio::test(start_paused = true)]
async fn a_life_of_one_millisecond_is_a_life() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).duration(ms(1)).await.unwrap();
        assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&1));
        pass(ms(1)).await;
        assert!(cache.peek::<i32>("key").is_none());
    }
}

/// Without fail-safe nothing is kept past its life, even for callers that would take it.
#[tokio::test(start_paused = true)]
async fn what_is_over_and_has_no_fail_safe_is_not_even_stale() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).duration(secs(10)).await.unwrap();
        pass(secs(10)).await;
        assert_eq!(any(&cache, "key").await, None);
    }
    assert!(world.store.keys().is_empty(), "nor in L2");
}

/// A fallback may be kept for less than the value is fresh: the value is fresh all the same.
#[tokio::test(start_paused = true)]
async fn a_fail_safe_shorter_than_the_life_does_not_shorten_it() {
    let world = World::new().await;
    for cache in both(&world).await {
        let short = long().fail_safe(FailSafe::for_up_to(secs(1)));
        let _ = cache.set("key", 1).options(short.clone()).await.unwrap();
        pass(secs(599)).await;
        assert_eq!(fresh(&cache, "key").await, Some(1));
        pass(secs(2)).await;
        assert_eq!(any(&cache, "key").await, None);
    }
}

/// A record stays in L2 as long as it may stand in, and then goes by itself.
#[tokio::test(start_paused = true)]
async fn a_record_leaves_l2_with_the_end_of_its_fallback() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = node.cache.set("key", 1).options(options()).await.unwrap();
    pass(secs(3_590)).await;
    assert_eq!(world.store.keys(), [World::record("key")]);
    pass(secs(11)).await;
    assert!(world.store.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_set_and_a_load_of_the_same_life_end_together() {
    let world = World::new().await;
    for cache in both(&world).await {
        let five = EntryOptions::new(secs(5));
        let _ = cache.set("set", 1).options(five.clone()).await.unwrap();
        cache.get_or_set("loaded", Loads::new().value(1)).options(five).await.unwrap();
        pass(ms(4_999)).await;
        assert!(cache.peek::<i32>("set").is_some() && cache.peek::<i32>("loaded").is_some());
        pass(ms(1)).await;
        assert!(cache.peek::<i32>("set").is_none() && cache.peek::<i32>("loaded").is_none());
    }
}
