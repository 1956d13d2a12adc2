//! Factories that block.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crinkle_core::blocking;
use crinkle_core::{BoxError, Cache, EagerRefresh, EntryOptions, ErrorKind, ManualClock};
use crinkle_tests::TestError;
use tokio::runtime::{Builder, Handle};

use crate::{alone, on_a_thread, with_l2, yield_until};

#[test]
fn a_stampede_of_threads_loads_once() {
    for cache in [alone(), with_l2()] {
        on_a_thread(move || {
            let (loads, together) = (Arc::new(AtomicUsize::new(0)), Barrier::new(100));
            thread::scope(|scope| {
                for _ in 0..100 {
                    scope.spawn(|| {
                        let (loads, stats) = (Arc::clone(&loads), cache.inner().clone());
                        together.wait();
                        let load = move |_| {
                            loads.fetch_add(1, Ordering::SeqCst);
                            yield_until(|| stats.stats().joined == 99);
                            crinkle_core::ok(7)
                        };
                        assert_eq!(*cache.get_or_set("key", load).unwrap(), 7);
                    });
                }
            });
            assert_eq!(loads.load(Ordering::SeqCst), 1);
        });
    }
}

/// tokio panics where a worker would block.
#[test]
fn a_factory_runs_where_blocking_is_allowed() {
    on_a_thread(|| {
        let load = |_| crinkle_core::ok(Handle::current().block_on(async { 7 }));
        assert_eq!(*alone().get_or_set("key", load).unwrap(), 7);
    });
}

#[test]
fn a_factory_sees_its_context() {
    on_a_thread(|| {
        let cache = alone();
        let loaded = cache.get_or_set("key", |context| {
            context.add_tag(format!("of {}", context.key()));
            crinkle_core::ok(context.stale().is_none())
        });
        assert!(*loaded.unwrap());
        let _ = cache.remove_by_tag("of key").unwrap();
        assert!(cache.get::<bool>("key").unwrap().is_none());
    });
}

/// Deeper than the number of blocking threads that tokio allows by default.
#[test]
fn loads_that_load_never_wait_for_a_thread() {
    fn nested(cache: &blocking::Cache, depth: usize) -> Result<usize, BoxError> {
        if depth == 0 {
            return Ok(0);
        }
        let inner = cache.clone();
        let load = move |_| nested(&inner, depth - 1).map(|below| below + 1);
        Ok(*cache.get_or_set(depth.to_string(), load)?)
    }
    assert_eq!(on_a_thread(|| nested(&alone(), 600)).unwrap(), 600);
}

#[test]
fn an_error_and_a_panic_of_a_factory_are_told() {
    on_a_thread(|| {
        let cache = alone();
        let error = cache.get_or_set::<i32, _>("key", |_| Err(TestError::new())).unwrap_err();
        assert!(error.factory_error::<TestError>().is_some(), "{error}");
        let error = cache.get_or_set::<i32, BoxError>("key", |_| panic!("ouch")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FactoryPanicked);
        assert!(error.to_string().contains("ouch"), "{error}");
        assert_eq!(*cache.get_or_set("key", |_| crinkle_core::ok(1)).unwrap(), 1);
    });
}

#[test]
fn a_factory_that_takes_too_long_fills_the_cache_later() {
    on_a_thread(|| {
        let (cache, (go, wait)) = (alone(), channel());
        let load = blocking::factory(move |_| wait.recv().map(|()| 7));
        let request = cache.inner().get_or_set("key", load);
        let error = cache.wait(request.factory_hard_timeout(Duration::from_millis(20)));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::FactoryTimeout);
        go.send(()).unwrap();
        yield_until(|| cache.peek::<i32>("key").is_some());
    });
}

#[test]
fn async_factories_run_there_too_and_may_block() {
    on_a_thread(|| {
        let cache = alone();
        let within = cache.clone();
        let request = cache.inner().get_or_set("outer", |_| async move {
            let inner = within.get_or_set("inner", |_| crinkle_core::ok(1))?;
            crinkle_core::ok(*inner + 1)
        });
        assert_eq!(*cache.wait(request).unwrap(), 2);
    });
}

/// On every thread, also where the call could not have waited.
#[test]
fn a_hit_that_is_due_is_answered_and_loaded_again_on_another_thread() {
    on_a_thread(|| {
        let clock = Arc::new(ManualClock::new());
        let options =
            EntryOptions::new(Duration::from_secs(10)).eager_refresh(EagerRefresh::After(0.5));
        let builder = Cache::builder("shop").clock(Arc::clone(&clock)).default_options(options);
        let cache = builder.build().unwrap().blocking();
        assert_eq!(*cache.get_or_set("key", |_| crinkle_core::ok(1)).unwrap(), 1);
        let here = Builder::new_current_thread().build().unwrap();
        for (read, next) in [(1, 2), (2, 3)] {
            clock.advance(Duration::from_secs(6));
            let load = move |_| crinkle_core::ok(next);
            let hit = match next {
                2 => cache.get_or_set("key", load),
                _ => here.block_on(async { cache.get_or_set("key", load) }),
            };
            assert_eq!(*hit.unwrap(), read);
            yield_until(|| cache.peek::<i32>("key").as_deref() == Some(&next));
        }
    });
}

#[test]
fn a_call_that_skips_l1_does_not_look_there() {
    on_a_thread(|| {
        let options = EntryOptions::new(Duration::from_secs(10)).skip_l1_read(true);
        let cache = Cache::builder("shop").default_options(options).build().unwrap().blocking();
        for value in [1, 2] {
            assert_eq!(*cache.get_or_set("key", move |_| crinkle_core::ok(value)).unwrap(), value);
            assert!(cache.get::<i32>("key").unwrap().is_none());
            assert_eq!(*cache.get_or("key", 3).unwrap(), 3);
        }
    });
}
