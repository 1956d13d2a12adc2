//! `fail_safe_default`: what is answered when there is nothing else.

use crinkle_core::{EntryOptions, ErrorKind, FailSafe, Source};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{
    Loads, TestError, World, both, gated, kind_of, load, ms, options, pass, until,
};

use crate::{SHORT, any, secs};

#[tokio::test(start_paused = true)]
async fn the_default_is_answered_when_nothing_else_can_be() {
    let world = World::new().await;
    for cache in both(&world).await {
        let loads = Loads::new();
        for count in 1..=3 {
            let read = cache.get_or_set("key", loads.fail()).fail_safe_default(7).await.unwrap();
            assert_eq!(
                (*read, read.meta().is_stale(), read.meta().source()),
                (7, true, Source::Default)
            );
            assert_eq!(loads.count(), count, "without fail-safe nothing is throttled");
        }
        assert_eq!(any(&cache, "key").await, None);
        let read = cache.get_or_set("key", loads.value(1)).fail_safe_default(7).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, false));
    }
}

/// With fail-safe it stands in like a stale value: for one throttle.
#[tokio::test(start_paused = true)]
async fn with_fail_safe_the_default_spares_the_source_for_a_throttle() {
    let world = World::new().await;
    for cache in both(&world).await {
        let loads = Loads::new();
        let chosen = options().fail_safe(FailSafe::for_up_to(secs(3600)).throttle(secs(5)));
        for (wait, count) in [(0, 1), (4, 1), (2, 2)] {
            pass(secs(wait)).await;
            let read = cache.get_or_set("key", loads.fail()).options(chosen.clone());
            let read = read.fail_safe_default(7).await.unwrap();
            assert_eq!((*read, read.meta().is_stale(), loads.count()), (7, true, count));
        }
        pass(secs(6)).await;
        let read = cache.get_or_set("key", loads.value(1)).options(chosen).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_better_than_the_default() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        pass(secs(11)).await;
        let read = cache.get_or_set("key", Loads::new().fail()).options(options());
        let read = read.fail_safe_default(7).await.unwrap();
        assert_eq!((*read, read.meta().source()), (1, Source::FailSafe));
    }
}

/// Nobody else gets it from L2, and no plain read finds it.
#[tokio::test(start_paused = true)]
async fn the_default_is_of_this_node_and_of_nobody_who_does_not_load() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let read = one.cache.get_or_set("key", Loads::new().fail()).options(options());
    assert_eq!(*read.fail_safe_default(7).await.unwrap(), 7);
    pass(SHORT).await;
    assert!(one.cache.get::<i32>("key").await.unwrap().is_none());
    assert!(world.store.keys().is_empty(), "neither a value nor a load lock");
    assert_eq!(any(&two.cache, "key").await, None);
}

#[tokio::test(start_paused = true)]
async fn the_default_is_answered_for_panics_and_timeouts_too() {
    let world = World::new().await;
    for cache in both(&world).await {
        let panics = |_| -> std::future::Ready<Result<i32, TestError>> { panic!("no") };
        let read = cache.get_or_set("panic", panics).fail_safe_default(7).await.unwrap();
        assert_eq!(*read, 7);
        let gate = Gate::new();
        let slow = cache.get_or_set("slow", gated(&gate, 1)).factory_hard_timeout(ms(100));
        assert_eq!(*slow.fail_safe_default(7).await.unwrap(), 7);
        let waiter = cache.get_or_set("slow", Loads::new().value(2)).wait_timeout(ms(100));
        assert_eq!(*waiter.fail_safe_default(8).await.unwrap(), 8, "each has its own");
        gate.open();
        until("it has completed", || cache.peek::<i32>("slow").as_deref() == Some(&1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiters_default_is_its_own() {
    let world = World::new().await;
    let cache = world.alone();
    let gate = Gate::new();
    let held = gate.clone();
    let leader = load(&cache, "key", &[], EntryOptions::default(), move |_| async move {
        held.pass().await;
        Err::<i32, _>(TestError::new())
    });
    gate.reached().await;
    let clone = cache.clone();
    let waiter = crinkle_tests::go(async move {
        clone.get_or_set("key", Loads::new().value(2)).fail_safe_default(7).await
    });
    until("it has joined", || cache.stats().joined == 1).await;
    gate.open();
    assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::Factory);
    assert_eq!(*waiter.await.unwrap().unwrap(), 7);
}

/// It stands in for a load that failed, not for a call that was wrong.
#[tokio::test(start_paused = true)]
async fn a_default_does_not_hide_a_wrong_call() {
    let world = World::new().await;
    let cache = world.alone();
    let read = cache.get_or_set("", Loads::new().value(1)).fail_safe_default(7).await;
    assert_eq!(kind_of(read), ErrorKind::InvalidKey);
    let read = cache.get_or_set("key", Loads::new().value(1)).tags([""]).fail_safe_default(7).await;
    assert_eq!(kind_of(read), ErrorKind::InvalidTag);
}
