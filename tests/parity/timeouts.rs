//! Soft and hard timeouts of the factory: who waits how long, and what comes of it afterwards.

use crinkle_core::{EntryOptions, ErrorKind};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{
    Loads, TestError, World, both, both_stale, gated, kind_of, load, ms, options, pass, until,
};
use tokio::time::Instant;

use crate::{SHORT, any, fresh, secs};

fn soft(timeout: u64) -> EntryOptions {
    options().factory_soft_timeout(ms(timeout))
}

#[tokio::test(start_paused = true)]
async fn a_factory_quicker_than_the_soft_timeout_is_waited_for() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let asked = Instant::now();
        let read = load(&cache, "key", &[], soft(100), |_| async {
            pass(ms(99)).await;
            crinkle_core::ok(2)
        });
        let read = read.await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale()), (2, false));
        assert_eq!(asked.elapsed(), ms(99));
    }
}

/// Fail-safe is off for this call: there is no fallback to answer with, so nothing is soft.
#[tokio::test(start_paused = true)]
async fn a_soft_timeout_without_fail_safe_is_no_timeout() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let gate = Gate::new();
        let options = EntryOptions::new(secs(10)).factory_soft_timeout(ms(100));
        let read = load(&cache, "key", &[], options, gated(&gate, 2));
        pass(secs(5)).await;
        assert!(!read.is_finished());
        gate.open();
        assert_eq!(*read.await.unwrap().unwrap(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hard_timeout_answers_with_a_fallback_where_there_is_one() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let gate = Gate::new();
        let asked = Instant::now();
        let hard = options().factory_hard_timeout(ms(500));
        let read = load(&cache, "key", &[], hard, gated(&gate, 2)).await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, true));
        assert_eq!(asked.elapsed(), ms(500));
        gate.open();
        until("it has completed", || cache.peek::<i32>("key").as_deref() == Some(&2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_two_timeouts_decides() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let gate = Gate::new();
        let asked = Instant::now();
        let both = soft(500).factory_hard_timeout(ms(100));
        let read = load(&cache, "key", &[], both, gated(&gate, 2)).await.unwrap().unwrap();
        assert!(read.meta().is_stale());
        assert_eq!(asked.elapsed(), ms(100));
        gate.open();
    }
}

/// Nobody waits twice for one slow factory: after the first soft timeout the others get the stale
/// value at once, until the throttle ends or the value is there.
#[tokio::test(start_paused = true)]
async fn after_a_soft_timeout_the_next_callers_do_not_wait() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let (gate, loads) = (Gate::new(), Loads::new());
        let first = load(&cache, "key", &[], soft(100), loads.gated(&gate, 2));
        assert!(first.await.unwrap().unwrap().meta().is_stale());
        let asked = Instant::now();
        let second = cache.get_or_set("key", loads.value(3)).options(soft(100)).await.unwrap();
        assert_eq!((*second, second.meta().is_stale()), (1, true));
        assert_eq!((asked.elapsed(), loads.count()), (secs(0), 1));
        gate.open();
        until("it has completed", || cache.health().in_flight == 0).await;
        let third = cache.get_or_set("key", loads.value(3)).options(soft(100)).await.unwrap();
        assert_eq!((*third, third.meta().is_stale(), loads.count()), (2, false, 1));
    }
}

/// A background failure is nobody's error. It is counted, and the throttle goes on from it.
#[tokio::test(start_paused = true)]
async fn a_factory_that_fails_in_the_background_harms_nobody() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let gate = Gate::new();
        let held = gate.clone();
        let read = load(&cache, "key", &[], soft(100), move |_| async move {
            held.pass().await;
            Err::<i32, _>(TestError::new())
        });
        assert!(read.await.unwrap().unwrap().meta().is_stale());
        gate.open();
        until("it has failed", || cache.stats().factory_failures == 1).await;
        until("the key is free", || cache.health().in_flight == 0).await;
        let loads = Loads::new();
        let read = cache.get_or_set("key", loads.value(2)).options(soft(100)).await.unwrap();
        assert!(read.meta().is_stale());
        pass(secs(31)).await;
        let read = cache.get_or_set("key", loads.value(2)).options(soft(100)).await.unwrap();
        assert_eq!((*read, read.meta().is_stale(), loads.count()), (2, false, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_background_completion_reaches_the_other_nodes() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 10).options(options()).await.unwrap();
    assert_eq!(fresh(&two.cache, "key").await, Some(10));
    pass(secs(11)).await;
    let gate = Gate::new();
    let read = load(&one.cache, "key", &[], soft(50), gated(&gate, 30));
    assert_eq!(*read.await.unwrap().unwrap(), 10);
    assert_eq!(any(&two.cache, "key").await, Some(10));
    pass(secs(3)).await;
    gate.open();
    pass(SHORT).await;
    for node in [&one, &two] {
        assert_eq!(fresh(&node.cache, "key").await, Some(30));
    }
}

/// FusionCache stores what a timed-out factory brings over what was set meanwhile.
#[tokio::test(start_paused = true)]
async fn a_background_completion_does_not_replace_what_was_set_meanwhile() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 10).options(options()).await.unwrap();
    pass(secs(11)).await;
    let gate = Gate::new();
    let read = load(&one.cache, "key", &[], soft(50), gated(&gate, 30));
    assert_eq!(*read.await.unwrap().unwrap(), 10);
    let _ = two.cache.set("key", 40).options(options()).await.unwrap();
    pass(SHORT).await;
    gate.open();
    until("it has completed", || one.cache.health().in_flight == 0).await;
    for node in [&one, &two] {
        assert_eq!(fresh(&node.cache, "key").await, Some(40));
    }
}

/// Each caller of one flight has its own patience.
#[tokio::test(start_paused = true)]
async fn callers_of_one_load_wait_as_long_as_each_of_them_likes() {
    let world = World::new().await;
    let cache = world.alone();
    let gate = Gate::new();
    let asked = Instant::now();
    let leader = load(&cache, "key", &[], options(), gated(&gate, 1));
    gate.reached().await;
    for limit in [100, 300] {
        let hard = options().factory_hard_timeout(ms(limit));
        let waiter = load(&cache, "key", &[], hard, Loads::new().value(2));
        assert_eq!(kind_of(waiter.await.unwrap()), ErrorKind::FactoryTimeout);
    }
    assert_eq!(asked.elapsed(), ms(400));
    gate.open();
    assert_eq!(*leader.await.unwrap().unwrap(), 1);
}

/// The caller's own timeout around a call is as good as any: the load goes on without it.
#[tokio::test(start_paused = true)]
async fn a_caller_that_stops_waiting_leaves_the_load_running() {
    let world = World::new().await;
    for cache in both(&world).await {
        let (gate, loads) = (Gate::new(), Loads::new());
        let call = cache.get_or_set("key", loads.gated(&gate, 1)).into_future();
        assert!(tokio::time::timeout(ms(100), call).await.is_err());
        gate.open();
        until("it has completed", || cache.health().in_flight == 0).await;
        assert_eq!(*cache.get_or_set("key", loads.value(2)).await.unwrap(), 1);
        assert_eq!(loads.count(), 1);
    }
}

/// With nothing to answer, the hard timeout frees the caller; the next one joins the same load.
#[tokio::test(start_paused = true)]
async fn after_a_hard_timeout_the_next_caller_waits_for_the_same_factory() {
    let world = World::new().await;
    for cache in both(&world).await {
        let (gate, loads) = (Gate::new(), Loads::new());
        let hard = options().factory_hard_timeout(ms(100));
        let first = load(&cache, "key", &[], hard, loads.gated(&gate, 1));
        assert_eq!(kind_of(first.await.unwrap()), ErrorKind::FactoryTimeout);
        let second = load(&cache, "key", &[], options(), loads.value(2));
        pass(ms(100)).await;
        gate.open();
        assert_eq!((*second.await.unwrap().unwrap(), loads.count()), (1, 1));
    }
}

/// Options that a factory gives its entry count when it ends, in the background or not.
#[tokio::test(start_paused = true)]
async fn what_a_factory_chooses_holds_when_it_completes_in_the_background() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let gate = Gate::new();
        let held = gate.clone();
        let read = load(&cache, "key", &[], soft(100), move |ctx| async move {
            ctx.set_duration(secs(500));
            ctx.add_tag("late");
            held.pass().await;
            crinkle_core::ok(2)
        });
        assert!(read.await.unwrap().unwrap().meta().is_stale());
        gate.open();
        until("it has completed", || cache.health().in_flight == 0).await;
        pass(secs(499)).await;
        assert_eq!(fresh(&cache, "key").await, Some(2));
        let _ = cache.remove_by_tag("late").await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
    }
}
