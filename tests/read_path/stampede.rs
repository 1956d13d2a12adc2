//! Stampedes: however many callers ask, one factory call answers them.

use std::time::Duration;

use crinkle_core::{ErrorKind, Source};
use crinkle_testkit::chaos::{Gate, L2Op};
use crinkle_tests::{Loads, World, gated, kind_of, load, long, pass, until};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_share_one_load() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gate, loads) = (Gate::new(), Loads::new());
        let value = || "shared".to_owned();
        let callers: Vec<_> = (0..10_000)
            .map(|_| load(&cache, "key", &["tag"], long(), loads.gated(&gate, value())))
            .collect();
        until("all have joined", || cache.stats().joined == 9_999).await;
        gate.open();
        let mut first = None;
        for caller in callers {
            let read = caller.await.unwrap().unwrap();
            let first: &crinkle_core::Cached<String> = first.get_or_insert_with(|| read.clone());
            assert!(std::ptr::eq(&raw const **first, &raw const *read), "one value, shared");
            assert!(!read.meta().is_stale());
        }
        assert_eq!(loads.count(), 1);
        assert_eq!(cache.health().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn different_keys_do_not_wait_for_each_other() {
    let world = World::new().await;
    let cache = world.alone();
    let gate = Gate::new();
    let slow = load(&cache, "slow", &[], long(), gated(&gate, 1));
    gate.reached().await;
    assert_eq!(*cache.get_or_set("quick", Loads::new().value(2)).await.unwrap(), 2);
    gate.open();
    slow.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_nodes_share_one_load_and_the_waiting_one_is_woken() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (world.node().await, world.node().await);
        let (gate, loads) = (Gate::new(), Loads::new());
        let leader = load(&one.cache, "key", &[], long(), loads.gated(&gate, 1));
        gate.reached().await;
        let waiter = load(&two.cache, "key", &[], long(), loads.value(2));
        until("the other node waits", || two.cache.stats().load_lock_waits >= 5).await;
        let opened = Instant::now();
        gate.open();
        let read = waiter.await.unwrap().unwrap();
        assert_eq!((*read, read.meta().source()), (1, Source::L2));
        // It naps at least 20 ms otherwise; a test under virtual time sees every millisecond.
        assert!(opened.elapsed() < Duration::from_millis(2), "{:?}", opened.elapsed());
        assert_eq!((*leader.await.unwrap().unwrap(), loads.count()), (1, 1));
    }
}

/// Without a notification the waiting node looks again by itself.
#[tokio::test(start_paused = true)]
async fn a_waiting_node_that_receives_nothing_still_finds_the_fill() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    two.bus.mute(true);
    let (gate, loads) = (Gate::new(), Loads::new());
    let leader = load(&one.cache, "key", &[], long(), loads.gated(&gate, 1));
    gate.reached().await;
    let waiter = load(&two.cache, "key", &[], long(), loads.value(2));
    pass(Duration::from_millis(100)).await;
    gate.open();
    assert_eq!(*waiter.await.unwrap().unwrap(), 1);
    assert_eq!((*leader.await.unwrap().unwrap(), loads.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_load_lock_holder_delays_the_others_by_load_lock_wait() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let dead = load(&one.cache, "key", &[], long(), gated(&gate, 1));
    gate.reached().await;
    one.l2.hang();
    let asked = Instant::now();
    let options = long().load_lock_wait(Duration::from_secs(2));
    let read = two.cache.get_or_set("key", Loads::new().value(2)).options(options).await.unwrap();
    assert_eq!((*read, read.meta().source()), (2, Source::Factory));
    let waited = asked.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_millis(2100), "{waited:?}");
    // The dead one comes back to life and may not overwrite.
    one.l2.heal();
    gate.open();
    assert_eq!(*dead.await.unwrap().unwrap(), 1);
    for node in [&one, &two] {
        assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_lock_is_renewed_as_long_as_its_factory_runs() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (gate, loads) = (Gate::new(), Loads::new());
    let leader = load(&one.cache, "key", &[], long(), loads.gated(&gate, 1));
    gate.reached().await;
    pass(Duration::from_secs(25)).await;
    assert!(one.l2.count(L2Op::Renew) >= 7);
    let patient = long().load_lock_wait(Duration::from_secs(60));
    let waiter = load(&two.cache, "key", &[], patient, loads.value(2));
    pass(Duration::from_secs(25)).await;
    gate.open();
    assert_eq!(*waiter.await.unwrap().unwrap(), 1);
    assert_eq!((*leader.await.unwrap().unwrap(), loads.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn without_a_load_lock_nobody_waits_for_another_node() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let slow = load(&one.cache, "key", &[], long(), gated(&gate, 1));
    gate.reached().await;
    let asked = Instant::now();
    let read = two.cache.get_or_set("key", Loads::new().value(2)).options(long().load_lock(false));
    assert_eq!(*read.await.unwrap(), 2);
    assert_eq!(asked.elapsed(), Duration::ZERO);
    gate.open();
    slow.await.unwrap().unwrap();
}

/// The flight's error is its waiters'; it is not cached.
#[tokio::test(start_paused = true)]
async fn an_error_is_shared_by_the_waiters_of_its_flight_only() {
    let world = World::new().await;
    let cache = world.alone();
    let (gate, loads) = (Gate::new(), Loads::new());
    let held = gate.clone();
    let leader = load(&cache, "key", &[], long(), move |_| async move {
        held.pass().await;
        Err::<i32, _>(crinkle_tests::TestError::new())
    });
    gate.reached().await;
    let joined = load(&cache, "key", &[], long(), loads.value(1));
    until("it has joined", || cache.stats().joined == 1).await;
    gate.open();
    for caller in [leader, joined] {
        assert_eq!(kind_of(caller.await.unwrap()), ErrorKind::Factory);
    }
    assert_eq!(*cache.get_or_set("key", loads.value(2)).await.unwrap(), 2);
    assert_eq!(loads.count(), 1);
}
