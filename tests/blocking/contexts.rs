//! Where a blocking call may be made.

use std::sync::mpsc::channel;

use crinkle_core::blocking::Cache;
use crinkle_core::{ErrorKind, Source};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{current_thread, gated, multi_thread};
use tokio::task::{LocalSet, spawn_blocking};

use crate::{alone, built_in, every_call, on_a_thread, with_l2, yield_until};

#[test]
fn every_call_works_without_a_runtime() {
    on_a_thread(|| every_call(&alone())).unwrap();
    on_a_thread(|| every_call(&with_l2())).unwrap();
}

#[test]
fn every_call_works_on_the_only_worker_of_a_runtime() {
    for cache in [alone(), with_l2()] {
        on_a_thread(move || {
            let runtime = multi_thread();
            runtime.block_on(runtime.spawn(async move { every_call(&cache) })).unwrap().unwrap();
        });
    }
}

#[test]
fn every_call_works_on_the_main_thread_of_a_multi_thread_runtime() {
    for cache in [alone(), with_l2()] {
        on_a_thread(move || multi_thread().block_on(async { every_call(&cache) })).unwrap();
    }
}

#[test]
fn every_call_works_in_spawn_blocking_of_any_runtime() {
    for runtime in [multi_thread, current_thread] {
        for cache in [alone(), with_l2()] {
            on_a_thread(move || {
                runtime().block_on(async { spawn_blocking(move || every_call(&cache)).await })
            })
            .unwrap()
            .unwrap();
        }
    }
}

#[test]
fn every_call_works_where_a_current_thread_runtime_is_entered_but_not_driven() {
    on_a_thread(|| {
        let runtime = current_thread();
        let _context = runtime.enter();
        every_call(&with_l2())
    })
    .unwrap();
}

#[test]
fn every_call_works_on_a_runtime_that_was_given() {
    on_a_thread(|| {
        let runtime = multi_thread();
        every_call(&Cache::on(built_in(runtime.handle()), runtime.handle().clone()))
    })
    .unwrap();
}

/// The load it waits for is a task of the worker that it blocks.
#[test]
fn a_call_on_the_only_worker_waits_for_an_async_load_of_the_same_worker() {
    let value = on_a_thread(|| {
        let (runtime, cache, gate) = (multi_thread(), alone(), Gate::new());
        runtime.block_on(async {
            let leader = cache.inner().clone();
            let load = gated(&gate, 7);
            let leader = tokio::spawn(async move { leader.get_or_set("key", load).await });
            while cache.inner().stats().factory_calls == 0 {
                tokio::task::yield_now().await;
            }
            let joined = cache.clone();
            let join =
                tokio::spawn(async move { joined.get_or_set("key", |_| Err::<i32, _>("joins")) });
            yield_until(|| cache.inner().stats().joined == 1);
            gate.open();
            let (led, joined) = (leader.await.unwrap().unwrap(), join.await.unwrap().unwrap());
            assert_eq!(*led, *joined);
            *joined
        })
    });
    assert_eq!(value, 7);
}

fn refused(cache: &Cache) {
    let load = |_| -> Result<u32, String> { panic!("it must not begin") };
    let error = cache.get_or_set("absent", load).expect_err("refused");
    assert_eq!((error.kind(), error.cache()), (ErrorKind::WouldBlock, "shop"));
    assert!(error.to_string().contains("spawn_blocking"), "{error}");
}

/// Nothing has begun: no load that the thread could be needed for, and no half of a write.
#[test]
fn a_thread_that_drives_a_current_thread_runtime_is_refused_before_anything_begins() {
    for cache in [alone(), with_l2()] {
        on_a_thread(move || {
            let _ = cache.set("key", 1).unwrap();
            current_thread().block_on(async {
                refused(&cache);
                assert_eq!(cache.set("key", 2).unwrap_err().kind(), ErrorKind::WouldBlock);
                assert_eq!(cache.remove("key").unwrap_err().kind(), ErrorKind::WouldBlock);
            });
            assert_eq!(cache.inner().stats().factory_calls, 0);
            assert_eq!(*cache.get_or_set("key", |_| crinkle_core::ok(3)).unwrap(), 1);
        });
    }
}

#[test]
fn a_fresh_value_of_l1_is_answered_on_any_thread() {
    on_a_thread(|| {
        let cache = alone();
        let _ = cache.set("key", 1).unwrap();
        current_thread().block_on(async {
            let hit = cache.get_or_set("key", |_| Err::<i32, _>("no load")).unwrap();
            assert_eq!((*hit, hit.meta().source()), (1, Source::L1));
            assert_eq!(cache.get::<i32>("key").unwrap().as_deref(), Some(&1));
            assert_eq!(*cache.get_or("key", 2).unwrap(), 1);
        });
    });
}

#[test]
fn a_local_set_of_a_multi_thread_runtime_is_refused() {
    on_a_thread(|| {
        let (cache, (go, wait)) = (alone(), channel());
        LocalSet::new().block_on(&multi_thread(), async {
            let error = cache.get_or_set("key", move |_| wait.recv().map(|()| 1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        });
        // It had begun, as if an async caller had given up.
        go.send(()).unwrap();
        yield_until(|| cache.peek::<i32>("key").is_some());
    });
}

/// A runtime that is gone is not missed by a hit.
#[test]
fn a_hit_enters_no_runtime() {
    on_a_thread(|| {
        let runtime = multi_thread();
        let cache = Cache::on(alone().inner().clone(), runtime.handle().clone());
        assert_eq!(*cache.get_or_set("key", |_| crinkle_core::ok(1)).unwrap(), 1);
        drop(runtime);
        assert_eq!(*cache.get_or_set("key", |_| Err::<i32, _>("no load")).unwrap(), 1);
        assert_eq!(cache.get::<i32>("key").unwrap().as_deref(), Some(&1));
    });
}
