//! Fail-safe: which failures a stale value stands in for, and for how long.

use std::time::Duration;

use crinkle_core::{EntryOptions, ErrorKind, FailSafe, Source};
use crinkle_tests::{Loads, TestError, World, both_stale, go, kind_of, options, pass};

#[tokio::test(start_paused = true)]
async fn a_stale_value_stands_in_for_an_error_and_the_factory_is_left_alone() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let loads = Loads::new();
        for _ in 0..3 {
            let read = cache.get_or_set("key", loads.fail::<_, i32>()).options(options());
            let read = read.await.unwrap();
            assert_eq!(
                (*read, read.meta().is_stale(), read.meta().source()),
                (1, true, Source::FailSafe)
            );
        }
        assert_eq!(loads.count(), 1, "throttled");
        assert_eq!(cache.stats().factory_failures, 1);
        pass(Duration::from_millis(30_001)).await;
        let read = cache.get_or_set("key", loads.fail::<_, i32>()).options(options());
        assert!(read.await.unwrap().meta().is_stale());
        assert_eq!(loads.count(), 2, "tried again");
        pass(Duration::from_millis(30_001)).await;
        let read = cache.get_or_set("key", loads.value(2)).options(options()).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (2, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_stands_in_for_a_panic() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let factory = |_| async {
            if cfg!(test) {
                panic!("no");
            }
            crinkle_core::ok(0)
        };
        let read = cache.get_or_set("key", factory).options(options()).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_read_does_not_end_the_throttle_of_an_expired_value() {
    let world = World::new().await;
    let cache = world.node().await.cache;
    let _ = cache.set("key", 1).options(options()).await.unwrap();
    let _ = cache.expire("key").await.unwrap();
    let loads = Loads::new();
    let call = || cache.get_or_set("key", loads.fail::<_, i32>()).options(options());
    assert!(call().await.unwrap().meta().is_stale());
    assert!(cache.get::<i32>("key").await.unwrap().is_none());
    assert!(call().await.unwrap().meta().is_stale());
    assert_eq!(loads.count(), 1, "the factory does not run");
}

#[tokio::test(start_paused = true)]
async fn a_throttle_set_by_one_call_is_its_own() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let short = FailSafe::for_up_to(Duration::from_secs(3600)).throttle(Duration::from_secs(2));
        let loads = Loads::new();
        let call = || cache.get_or_set("key", loads.fail::<_, i32>()).fail_safe(short);
        assert!(call().await.unwrap().meta().is_stale());
        assert!(call().await.unwrap().meta().is_stale());
        assert_eq!(loads.count(), 1);
        pass(Duration::from_millis(2_001)).await;
        assert!(call().await.unwrap().meta().is_stale());
        assert_eq!(loads.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_fail_safe_gets_the_error() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let plain = EntryOptions::new(Duration::from_secs(10));
        let loads = Loads::new();
        for _ in 0..2 {
            let read = cache.get_or_set("key", loads.fail::<_, i32>()).options(plain.clone());
            let error = read.await.unwrap_err();
            assert_eq!(error.factory_error::<TestError>(), Some(&TestError::new()));
        }
        assert_eq!(loads.count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_ends_with_its_longest_age() {
    for at in 0..2 {
        let world = World::new().await;
        let cache = &both_stale(&world).await[at];
        pass(Duration::from_secs(3580)).await;
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        assert!(read.await.unwrap().meta().is_stale());
        pass(Duration::from_secs(31)).await;
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        assert_eq!(kind_of(read.await), ErrorKind::Factory);
    }
}

/// A node that never held the entry finds the fallback in L2.
#[tokio::test(start_paused = true)]
async fn a_fallback_comes_from_l2_too() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    let loads = Loads::new();
    for _ in 0..2 {
        let read = two.cache.get_or_set("key", loads.fail::<_, i32>()).options(options());
        assert_eq!(*read.await.unwrap(), 1);
    }
    assert_eq!(loads.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_factory_sees_the_stale_value() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let factory = |ctx: crinkle_core::FactoryContext<i32>| async move {
            assert_eq!(ctx.key(), "key");
            crinkle_core::ok(ctx.stale().map_or(0, |stale| **stale) + 1)
        };
        assert_eq!(*cache.get_or_set("key", factory).options(options()).await.unwrap(), 2);
    }
}

/// All waiters of a failing flight get the stand-in.
#[tokio::test(start_paused = true)]
async fn every_waiter_gets_the_fallback() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let loads = Loads::new();
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let (cache, factory) = (cache.clone(), loads.fail::<_, i32>());
                go(async move { cache.get_or_set("key", factory).options(options()).await })
            })
            .collect();
        for caller in callers {
            assert!(caller.await.unwrap().unwrap().meta().is_stale());
        }
        assert_eq!(loads.count(), 1);
    }
}
