//! Eager refresh: the caller has its answer at once, one load replaces it.

use std::time::Duration;

use crinkle_core::{EagerRefresh, EntryOptions, Source};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, World, gated, go, options, pass};

/// A life of ten seconds, due after eight.
fn eager() -> EntryOptions {
    options().eager_refresh(EagerRefresh::after(0.8))
}

#[tokio::test(start_paused = true)]
async fn the_caller_that_finds_it_due_has_the_old_value_and_the_next_has_the_new() {
    let world = World::new().await;
    let node = world.node().await;
    let loads = Loads::new();
    let read = |value: i32| node.cache.get_or_set("key", loads.value(value)).options(eager());
    assert_eq!(*read(1).await.unwrap(), 1);
    pass(Duration::from_millis(7_900)).await;
    assert_eq!((*read(2).await.unwrap(), loads.count()), (1, 1));
    pass(Duration::from_millis(200)).await;
    let due = read(3).await.unwrap();
    assert_eq!((*due, due.meta().source(), due.meta().is_stale()), (1, Source::L1, false));
    pass(Duration::from_millis(10)).await;
    let next = read(4).await.unwrap();
    assert_eq!((*next, next.meta().age(), loads.count()), (3, Duration::from_millis(10), 2));
    assert_eq!(node.cache.stats().eager_refreshes, 1);
    pass(Duration::from_secs(5)).await;
    assert_eq!(*read(5).await.unwrap(), 3, "a new life of ten seconds");
}

#[tokio::test(start_paused = true)]
async fn one_refresh_runs_however_many_callers_find_it_due() {
    let world = World::new().await;
    let node = world.node().await;
    let (loads, gate) = (Loads::new(), Gate::new());
    let _ = node.cache.get_or_set("key", loads.value(1)).options(eager()).await.unwrap();
    pass(Duration::from_secs(9)).await;
    for _ in 0..100 {
        let hit = node.cache.get_or_set("key", loads.gated(&gate, 2)).options(eager()).await;
        assert_eq!(*hit.unwrap(), 1);
    }
    gate.reached().await;
    assert_eq!(loads.count(), 2);
    // Its life is over meanwhile: callers wait for the refresh that runs.
    pass(Duration::from_secs(2)).await;
    let cache = node.cache.clone();
    let late = go(async move { cache.get_or_set("key", |_| async { crinkle_core::ok(9) }).await });
    pass(Duration::from_millis(10)).await;
    gate.open();
    assert_eq!(*late.await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_takes_what_another_node_has_stored_already() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let loads = Loads::new();
    let _ = one.cache.get_or_set("key", loads.value(1)).options(eager()).await.unwrap();
    one.bus.mute(true);
    pass(Duration::from_secs(9)).await;
    two.cache.set("key", 2).options(eager()).await.unwrap();
    let _ = one.cache.get_or_set("key", loads.value(3)).options(eager()).await.unwrap();
    pass(Duration::from_millis(10)).await;
    let read = one.cache.get_or_set("key", loads.value(4)).options(eager()).await.unwrap();
    assert_eq!((*read, loads.count()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn one_node_refreshes_and_the_others_keep_what_they_have_until_it_is_done() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (loads, gate) = (Loads::new(), Gate::new());
    for node in [&one, &two] {
        let _ = node.cache.get_or_set("key", loads.value(1)).options(eager()).await.unwrap();
    }
    pass(Duration::from_secs(9)).await;
    let factory = loads.gated(&gate, 2);
    let _ = one.cache.get_or_set("key", factory).options(eager()).await.unwrap();
    gate.reached().await;
    let hit = two.cache.get_or_set("key", loads.value(3)).options(eager()).await.unwrap();
    pass(Duration::from_millis(100)).await;
    assert_eq!((*hit, loads.count()), (1, 2), "the other node has the load lock");
    gate.open();
    pass(Duration::from_millis(10)).await;
    let read = two.cache.get_or_set("key", loads.value(4)).options(eager()).await.unwrap();
    assert_eq!((*read, loads.count()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_is_left_alone_for_the_throttle() {
    let world = World::new().await;
    let node = world.node().await;
    let loads = Loads::new();
    let long = EntryOptions::new(Duration::from_secs(100)).eager_refresh(EagerRefresh::after(0.1));
    let _ = node.cache.get_or_set("key", loads.value(1)).options(long.clone()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    for _ in 0..3 {
        let hit = node
            .cache
            .get_or_set("key", loads.fail::<_, i32>())
            .options(long.clone())
            .await
            .unwrap();
        assert_eq!((*hit, hit.meta().is_stale()), (1, false));
        pass(Duration::from_secs(1)).await;
    }
    assert_eq!(loads.count(), 2, "tried once in 30 s");
    pass(Duration::from_secs(29)).await;
    let _ = node.cache.get_or_set("key", loads.value(2)).options(long.clone()).await.unwrap();
    pass(Duration::from_millis(10)).await;
    assert_eq!(*node.cache.get_or_set("key", loads.value(3)).options(long).await.unwrap(), 2);
}

/// T1: the refresh began before the removal, so what it brings is not kept.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_removal_overtakes_is_not_kept() {
    for by_tag in [true, false] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let (gate, cache) = (Gate::new(), &one.cache);
        let _ = cache.get_or_set("key", gated(&opened(), 1)).tags(["t"]).options(eager()).await;
        pass(Duration::from_secs(9)).await;
        let _ = cache.get_or_set("key", gated(&gate, 2)).tags(["t"]).options(eager()).await;
        gate.reached().await;
        match by_tag {
            true => two.cache.remove_by_tag("t").await.unwrap(),
            false => two.cache.remove("key").await.unwrap(),
        };
        pass(Duration::from_millis(10)).await;
        gate.open();
        pass(Duration::from_millis(10)).await;
        for node in [&one, &two] {
            assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probabilistic_refresh_is_the_earlier_the_longer_the_factory_takes() {
    let world = World::new().await;
    let node = world.node().await;
    let early =
        EntryOptions::new(Duration::from_secs(100)).eager_refresh(EagerRefresh::probabilistic(1.0));
    let mut refreshed_at = Vec::new();
    for (key, took) in [("slow", 10), ("quick", 1)] {
        let factory = move |_| async move {
            pass(Duration::from_secs(took)).await;
            crinkle_core::ok(1)
        };
        let _ = node.cache.get_or_set(key, factory).options(early.clone()).await.unwrap();
        let before = node.cache.stats().eager_refreshes;
        let mut second = 0;
        while node.cache.stats().eager_refreshes == before {
            pass(Duration::from_secs(1)).await;
            second += 1;
            let _ = node.cache.get_or_set(key, factory).options(early.clone()).await.unwrap();
        }
        assert!(second < 100, "before its life is over");
        refreshed_at.push(second);
    }
    assert!(refreshed_at[0] < refreshed_at[1], "{refreshed_at:?}");
}

#[tokio::test(start_paused = true)]
async fn with_l2_down_a_refresh_goes_to_the_source() {
    let world = World::new().await;
    let node = world.node().await;
    let loads = Loads::new();
    let _ = node.cache.get_or_set("key", loads.value(1)).options(eager()).await.unwrap();
    pass(Duration::from_secs(9)).await;
    node.l2.always(L2Op::Read, Fate::Hang);
    let hit = node.cache.get_or_set("key", loads.value(2)).options(eager()).await.unwrap();
    assert_eq!(*hit, 1, "nobody waits for it");
    pass(Duration::from_secs(1)).await;
    assert_eq!(*node.cache.get_or_set("key", loads.value(3)).options(eager()).await.unwrap(), 2);
}

fn opened() -> Gate {
    let gate = Gate::new();
    gate.open();
    gate
}
