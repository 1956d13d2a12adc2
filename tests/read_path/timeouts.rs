//! What a caller waits for, and for how long.

use std::time::Duration;

use crinkle_core::{EntryOptions, ErrorKind, Source};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, World, both_stale, gated, kind_of, load, options, pass, until};
use tokio::time::Instant;

const SOFT: Duration = Duration::from_millis(100);
const HARD: Duration = Duration::from_millis(500);

#[tokio::test(start_paused = true)]
async fn a_slow_factory_is_stood_in_for_after_the_soft_timeout_and_completes() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let (gate, loads) = (Gate::new(), Loads::new());
        let asked = Instant::now();
        let options = options().factory_soft_timeout(SOFT).factory_hard_timeout(HARD);
        let read = load(&cache, "key", &[], options.clone(), loads.gated(&gate, 2));
        let read = read.await.unwrap().unwrap();
        assert_eq!(
            (*read, read.meta().is_stale(), read.meta().source()),
            (1, true, Source::FailSafe)
        );
        assert_eq!(asked.elapsed().as_millis(), SOFT.as_millis());
        gate.open();
        until("it has completed", || cache.health().in_flight == 0).await;
        let read = cache.get_or_set("key", loads.value(3)).options(options).await.unwrap();
        assert_eq!((*read, read.meta().is_stale(), loads.count()), (2, false, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_fallback_only_the_hard_timeout_ends_the_wait() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gate, loads) = (Gate::new(), Loads::new());
        let options = options().factory_soft_timeout(SOFT).factory_hard_timeout(HARD);
        let asked = Instant::now();
        let read = load(&cache, "key", &[], options.clone(), loads.gated(&gate, 2));
        assert_eq!(kind_of(read.await.unwrap()), ErrorKind::FactoryTimeout);
        assert_eq!(asked.elapsed().as_millis(), HARD.as_millis());
        gate.open();
        until("it has completed", || cache.health().in_flight == 0).await;
        let read = cache.get_or_set("key", loads.value(3)).await.unwrap();
        assert_eq!((*read, loads.count()), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn without_background_completion_a_timed_out_factory_is_dropped() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let gate = Gate::new();
        let options = options().factory_hard_timeout(HARD).background_completion(false);
        let read = load(&cache, "key", &[], options, gated(&gate, 2));
        assert_eq!(kind_of(read.await.unwrap()), ErrorKind::FactoryTimeout);
        until("the key is free", || cache.health().in_flight == 0).await;
        gate.open();
        pass(SOFT).await;
        assert!(cache.get::<i32>("key").await.unwrap().is_none());
        assert_eq!(*cache.get_or_set("key", Loads::new().value(3)).await.unwrap(), 3);
    }
}

/// A waiter's patience is its own: it does not end the load of the caller that leads.
#[tokio::test(start_paused = true)]
async fn an_impatient_waiter_does_not_stop_the_leaders_factory() {
    let world = World::new().await;
    let cache = world.alone();
    let gate = Gate::new();
    let leader = load(&cache, "key", &[], options(), gated(&gate, 1));
    gate.reached().await;
    let impatient = options().factory_hard_timeout(SOFT).background_completion(false);
    let waiter = load(&cache, "key", &[], impatient, Loads::new().value(2));
    assert_eq!(kind_of(waiter.await.unwrap()), ErrorKind::FactoryTimeout);
    pass(SOFT).await;
    gate.open();
    assert_eq!(*leader.await.unwrap().unwrap(), 1);
    assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_factory_and_frees_the_key() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let deadline = EntryOptions::default().factory_deadline(Duration::from_secs(5));
        let asked = Instant::now();
        let read = load(&cache, "key", &[], deadline, gated(&Gate::new(), 1));
        assert_eq!(kind_of(read.await.unwrap()), ErrorKind::FactoryTimeout);
        assert_eq!(asked.elapsed().as_secs(), 5);
        assert_eq!(*cache.get_or_set("key", Loads::new().value(2)).await.unwrap(), 2);
        assert_eq!(cache.health().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_falls_back_too() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let deadline = options().factory_deadline(Duration::from_secs(5));
        let read = load(&cache, "key", &[], deadline, gated(&Gate::new(), 2));
        assert!(read.await.unwrap().unwrap().meta().is_stale());
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gives_up_after_wait_timeout_and_starts_nothing() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gate, loads) = (Gate::new(), Loads::new());
        let leader = load(&cache, "key", &[], options(), loads.gated(&gate, 1));
        gate.reached().await;
        let asked = Instant::now();
        let waiter = load(&cache, "key", &[], options().wait_timeout(SOFT), loads.value(2));
        assert_eq!(kind_of(waiter.await.unwrap()), ErrorKind::WaitTimeout);
        assert_eq!(asked.elapsed().as_millis(), SOFT.as_millis());
        gate.open();
        assert_eq!((*leader.await.unwrap().unwrap(), loads.count()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_with_a_fallback_answers_it_after_wait_timeout() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let gate = Gate::new();
        let leader = load(&cache, "key", &[], options(), gated(&gate, 2));
        gate.reached().await;
        let waiter = options().wait_timeout(SOFT);
        let read = load(&cache, "key", &[], waiter, Loads::new().value(3)).await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, true));
        gate.open();
        assert_eq!(*leader.await.unwrap().unwrap(), 2);
    }
}
