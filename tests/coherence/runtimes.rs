//! Several runtimes: each test has one, a thread brings its own, and they end before the cache does. In real time.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use crinkle_core::backplane::MemoryBackplane;
use crinkle_core::l2::MemoryL2;
use crinkle_core::{
    Cache, CacheBuilder, EntryOptions, Error, ErrorKind, Settings, SystemClock, Token, blocking, ok,
};
use crinkle_testkit::chaos::{self, Fate, Gate, L2Handle, L2Op};
use crinkle_tests::redis::{comes_true, in_time};
use crinkle_tests::{Loads, current_thread, gated, multi_thread};
use futures_util::FutureExt;
use tokio::runtime::Runtime;
use tokio::task::yield_now;

const KINDS: [fn() -> Runtime; 2] = [current_thread, multi_thread];

/// What two nodes share.
pub(super) struct Shared {
    store: MemoryL2,
    bus: MemoryBackplane,
}

impl Shared {
    pub(super) fn new() -> Self {
        let bus = MemoryBackplane::new();
        Self { store: MemoryL2::announcing(Arc::new(SystemClock), bus.clone()), bus }
    }

    /// A node that trusts what it holds for an hour, unless a message says otherwise.
    pub(super) fn node(&self, l2_timeout: Duration) -> (Cache, L2Handle) {
        self.polling(Duration::from_millis(50), l2_timeout)
    }

    pub(super) fn polling(&self, poll: Duration, l2_timeout: Duration) -> (Cache, L2Handle) {
        let (store, l2) = chaos::l2(Arc::new(self.store.clone()));
        let hour = Duration::from_secs(3600);
        let settings = Settings::default().poll(poll).coherence_ttl(hour);
        let options = EntryOptions::new(hour).l2_hard_timeout(l2_timeout);
        let builder = Cache::builder("shop").settings(settings).default_options(options);
        (builder.l2(store).backplane(self.bus.clone()).build().expect("sound settings"), l2)
    }

    /// A node that relays to another region.
    pub(super) fn with_region(&self, other: &Self) -> Cache {
        let settings = Settings::default().poll(Duration::from_millis(50));
        let builder = Cache::builder("shop").settings(settings);
        let builder = builder.l2(self.store.clone()).backplane(self.bus.clone());
        let builder = builder.region("other", other.store.clone(), other.bus.clone());
        builder.build().expect("sound settings")
    }

    pub(super) async fn ready(&self) -> (Cache, L2Handle) {
        let (cache, l2) = self.node(Duration::from_secs(1));
        in_time(cache.ready()).await.expect("ready");
        (cache, l2)
    }
}

#[test]
fn a_node_receives_changes_after_the_runtime_of_its_build_has_ended() {
    for runtime in KINDS {
        let (shared, first, second) = (Shared::new(), runtime(), runtime());
        let (cache, _) = first.block_on(shared.ready());
        second.block_on(async {
            let (peer, _) = shared.ready().await;
            for key in ["a", "b", "c"] {
                let _ = in_time(cache.set(key, 1).tags(["t"])).await.unwrap();
            }
            thread::spawn(move || drop(first)).join().unwrap();
            let _ = in_time(peer.remove("a")).await.unwrap();
            let _ = in_time(peer.set("b", 2)).await.unwrap();
            comes_true("a is gone", async || cache.peek::<i32>("a").is_none()).await;
            comes_true("b is the new one", async || {
                in_time(cache.get::<i32>("b")).await.unwrap().as_deref() == Some(&2)
            })
            .await;
            let _ = in_time(peer.remove_by_tag("t")).await.unwrap();
            comes_true("c is gone", async || cache.peek::<i32>("c").is_none()).await;
            comes_true("it is in step", async || cache.health().coherent).await;
        });
    }
}

#[test]
fn what_is_queued_leaves_after_the_runtime_of_the_build_has_ended() {
    for runtime in KINDS {
        let (shared, first, second) = (Shared::new(), runtime(), runtime());
        let (cache, l2) = first.block_on(async {
            let (cache, l2) = shared.ready().await;
            let _ = in_time(cache.set("key", 1).tags(["t"])).await.unwrap();
            l2.down();
            let _ = in_time(cache.remove("key")).await.unwrap();
            let _ = in_time(cache.remove_by_tag("t")).await.unwrap();
            (cache, l2)
        });
        drop(first);
        assert_eq!(cache.health().recovery_backlog, 1);
        l2.heal();
        second.block_on(comes_true("everything is sent", async || {
            let health = cache.health();
            health.recovery_backlog == 0 && health.pending_removals == 0
        }));
    }
}

/// Where its task goes, the load goes; who joined it loads himself.
#[test]
fn a_load_whose_runtime_ends_keeps_nobody_waiting() {
    for runtime in KINDS {
        for with_l2 in [false, true] {
            let (shared, first, second) = (Shared::new(), runtime(), multi_thread());
            let cache = first.block_on(async {
                if with_l2 { shared.ready().await.0 } else { Cache::builder("a").build().unwrap() }
            });
            let gate = Gate::new();
            let end = Gate::new();
            let driven = thread::spawn({
                let (leader, load, end) = (cache.clone(), gated(&gate, 1), end.clone());
                move || {
                    first.block_on(async {
                        tokio::spawn(async move { leader.get_or_set("key", load).await });
                        end.pass().await;
                    });
                    first.shutdown_background();
                }
            });
            second.block_on(async {
                in_time(gate.reached()).await;
                let (joiner, many) = (cache.clone(), cache.clone());
                let joiner = tokio::spawn(async move {
                    *joiner.get_or_set("key", Loads::new().value(2)).await.unwrap()
                });
                let many = tokio::spawn(async move {
                    let load = |keys: Vec<String>| async { ok(keys.into_iter().map(|k| (k, 2))) };
                    *many.get_or_set_many(["key"], load).await.unwrap()[0]
                });
                comes_true("they have joined", async || cache.stats().joined >= 2).await;
                end.open();
                assert_eq!(in_time(joiner).await.unwrap(), 2);
                assert_eq!(in_time(many).await.unwrap(), 2);
                assert_eq!(cache.health().in_flight, 0);
                let next = in_time(cache.get_or_set("next", Loads::new().value(3))).await;
                assert_eq!(*next.unwrap(), 3);
            });
            driven.join().unwrap();
        }
    }
}

/// The same if the runtime has not ended, but nobody drives it any more.
#[test]
fn a_load_whose_runtime_is_not_driven_keeps_nobody_waiting() {
    for with_l2 in [false, true] {
        let (shared, first, second) = (Shared::new(), current_thread(), multi_thread());
        let (cache, gate) = first.block_on(async {
            let cache =
                if with_l2 { shared.ready().await.0 } else { Cache::builder("a").build().unwrap() };
            let gate = Gate::new();
            let load = cache.get_or_set("key", gated(&gate, 1));
            let mut load = Box::pin(load.into_future());
            assert!((&mut load).now_or_never().is_none());
            drop(load);
            in_time(gate.reached()).await;
            let _ = in_time(cache.set("other", 1)).await.unwrap();
            (cache, gate)
        });
        second.block_on(async {
            let read = cache.get_or_set("key", Loads::new().value(2));
            assert_eq!(*in_time(read).await.unwrap(), 2);
            if with_l2 {
                let (peer, _) = shared.ready().await;
                let _ = in_time(peer.remove("other")).await.unwrap();
                comes_true("it is heard", async || cache.peek::<i32>("other").is_none()).await;
            }
        });
        // What is left there does no harm if it is driven again after all.
        gate.open();
        first.block_on(async {
            for _ in 0..1000 {
                yield_now().await;
            }
        });
        assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&2));
        assert_eq!(cache.health().in_flight, 0);
    }
}

/// Its caller drives a load as far as L2 goes, with timers that must outlive the caller's runtime.
#[test]
fn a_load_survives_the_runtime_of_the_caller_that_leads_it() {
    for answers in [true, false] {
        let (shared, home, other) = (Shared::new(), multi_thread(), current_thread());
        let (cache, l2) = home.block_on(async { shared.node(Duration::from_millis(500)) });
        home.block_on(in_time(cache.ready())).unwrap();
        let gate = Gate::new();
        l2.next(L2Op::Read, Fate::Hold(gate.clone()));
        other.block_on(async {
            let (leader, load) = (cache.clone(), Loads::new().value(1));
            tokio::spawn(async move { leader.get_or_set("key", load).await });
            in_time(gate.reached()).await;
        });
        drop(other);
        if answers {
            gate.open();
        }
        home.block_on(async {
            let read = in_time(cache.get_or_set("key", Loads::new().value(2))).await.unwrap();
            assert_eq!(*read, 1, "the load went on");
        });
    }
}

/// Ends a runtime within a poll, when what wakes it happens there.
struct EndsRuntime(Mutex<Option<Runtime>>);

impl Wake for EndsRuntime {
    fn wake(self: Arc<Self>) {
        let runtime = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread::spawn(move || drop(runtime)).join().unwrap_or_else(|_| panic!("it ends"));
    }
}

/// Its timers panic in the caller that polls them, which must see an error and no panic.
#[test]
fn a_runtime_that_ends_while_a_caller_polls_its_timers_is_an_error() {
    for op in [L2Op::Read, L2Op::Set] {
        let (shared, first, second) = (Shared::new(), multi_thread(), multi_thread());
        let (cache, l2) = first.block_on(shared.ready());
        let gate = Gate::new();
        l2.next(op, Fate::Hold(gate.clone()));
        let waker = Waker::from(Arc::new(EndsRuntime(Mutex::new(Some(first)))));
        let mut reached = Box::pin(gate.reached());
        assert!(reached.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        second.block_on(async {
            if op == L2Op::Read {
                let read = in_time(cache.get_or_set("key", Loads::new().value(1))).await;
                assert_eq!(read.expect_err("its load ended").kind(), ErrorKind::NoRuntime);
            } else {
                let _ = in_time(cache.set("key", 1).background_l2(true)).await.unwrap();
            }
            gate.open();
            let _ = in_time(cache.set("key", 2)).await.unwrap();
            let (peer, _) = shared.ready().await;
            assert_eq!(in_time(peer.get::<i32>("key")).await.unwrap().as_deref(), Some(&2));
            let next = in_time(cache.get_or_set("next", Loads::new().value(3))).await;
            assert_eq!(*next.unwrap(), 3);
            comes_true("it is in step", async || cache.health().coherent).await;
        });
    }
}

/// A background write begins with its caller and goes on with the cache.
#[test]
fn a_write_behind_survives_the_runtime_of_its_caller() {
    let (shared, home) = (Shared::new(), multi_thread());
    let (cache, l2) = home.block_on(shared.ready());
    let gate = Gate::new();
    l2.next(L2Op::Set, Fate::Hold(gate.clone()));
    let other = current_thread();
    let _ = other.block_on(in_time(cache.set("key", 1).background_l2(true))).unwrap();
    drop(other);
    gate.open();
    home.block_on(async {
        let (peer, _) = shared.ready().await;
        comes_true("L2 has it", async || peer.get::<i32>("key").await.unwrap().is_some()).await;
    });
}

/// A cache in a `static`, built before there is any runtime, and used by one after the other.
#[test]
fn a_cache_without_l2_loads_on_any_runtime() {
    let cache = Cache::builder("shop").build().unwrap();
    for (at, runtime) in KINDS.into_iter().cycle().take(6).enumerate() {
        let (key, value) = (at.to_string(), i32::try_from(at).unwrap());
        runtime().block_on(async {
            let read = in_time(cache.get_or_set(&key, Loads::new().value(value))).await.unwrap();
            assert_eq!(*read, value);
            let _ = in_time(cache.remove("0")).await.unwrap();
        });
    }
}

/// The caller whose own load ended with a runtime cannot load again: its factory is used.
#[test]
fn the_caller_of_a_load_that_ended_with_its_runtime_is_told() {
    let (first, second) = (current_thread(), multi_thread());
    let cache = first.block_on(async { Cache::builder("shop").build().unwrap() });
    let gate = Gate::new();
    let (leader, load) = (cache.clone(), gated::<_, i32>(&gate, 1));
    let driven = thread::spawn(move || {
        // Driven for as long as the load takes to begin.
        first.block_on(async { in_time(gate.reached()).await });
    });
    let error = second.block_on(async {
        in_time(leader.get_or_set("key", load)).await.expect_err("its load is gone")
    });
    driven.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::NoRuntime);
    assert!(error.to_string().contains("call again"), "{error}");
    let again = second.block_on(in_time(cache.get_or_set("key", Loads::new().value(2)))).unwrap();
    assert_eq!(*again, 2);
}

type Call = Box<dyn FnOnce(&Cache) -> Option<Result<(), Error>>>;

/// Every call that may wait, polled once.
fn calls(barrier: Token) -> Vec<(&'static str, Call)> {
    macro_rules! calls {
        ($($name:literal: |$cache:ident| $call:expr;)*) => {
            vec![$(($name, {
                let call: Call = Box::new(move |$cache| {
                    $call.into_future().now_or_never().map(|result| result.map(|_| ()))
                });
                call
            })),*]
        };
    }
    let many = |keys: Vec<String>| async { ok(keys.into_iter().map(|key| (key, 1))) };
    calls! {
        "get": |cache| cache.get::<i32>("key");
        "get_or": |cache| cache.get_or("key", 1);
        "get_many": |cache| cache.get_many::<i32>(["key"]);
        "get_or_set": |cache| cache.get_or_set("key", |_| async { ok(1) });
        "get_or_set_many": |cache| cache.get_or_set_many(["key"], many);
        "contains": |cache| cache.contains("key");
        "warm": |cache| cache.warm::<i32>(["key"]);
        "set": |cache| cache.set("key", 1);
        "set, behind": |cache| cache.set("key", 1).background_l2(true);
        "set_many": |cache| cache.set_many([("key", 1)]);
        "remove": |cache| cache.remove("key");
        "remove, behind": |cache| cache.remove("key").background_l2(true);
        "remove_many": |cache| cache.remove_many(["key"]);
        "expire": |cache| cache.expire("key");
        "remove_by_tag": |cache| cache.remove_by_tag("tag");
        "remove_by_tags": |cache| cache.remove_by_tags(["tag", "other"]);
        "expire_by_tag": |cache| cache.expire_by_tag("tag");
        "clear": |cache| cache.expire_all();
        "clear_hard": |cache| cache.remove_all();
        "reserve": |cache| cache.reserve("key");
        "after": |cache| cache.wait_for(barrier);
        "ready": |cache| cache.ready();
        "close": |cache| cache.close();
    }
}

#[test]
fn every_call_outside_of_a_runtime_is_an_error_that_says_what_to_do() {
    let (shared, runtime) = (Shared::new(), multi_thread());
    let (with_l2, _) = runtime.block_on(shared.ready());
    let removed = runtime.block_on(in_time(with_l2.remove_by_tag("tag"))).unwrap();
    let barrier = removed.token().expect("a number");
    for cache in [Cache::builder("shop").build().unwrap(), with_l2] {
        for (name, call) in calls(barrier) {
            let error = call(&cache).unwrap_or_else(|| panic!("{name} waits")).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::NoRuntime, "{name}: {error}");
            assert!(error.to_string().contains("`block_on`"), "{name}: {error}");
        }
    }
}

#[test]
fn a_fresh_value_of_l1_needs_no_runtime() {
    let cache = Cache::builder("shop").build().unwrap();
    let _ = multi_thread().block_on(in_time(cache.set("key", 1))).unwrap();
    let read = cache.get::<i32>("key").into_future().now_or_never().expect("at once");
    assert_eq!(read.unwrap().as_deref(), Some(&1));
    let load = cache.get_or_set("key", Loads::new().value(2)).into_future().now_or_never();
    assert_eq!(*load.expect("at once").unwrap(), 1);
    let many = cache.get_many::<i32>(["key"]).into_future().now_or_never().expect("at once");
    assert!(many.unwrap()[0].is_some());
}

#[test]
fn a_cache_with_an_l2_is_not_built_outside_of_a_runtime() {
    let build = |builder: CacheBuilder| builder.build().map(|_| ()).map_err(|e| e.kind());
    let builder = || Cache::builder("shop");
    assert_eq!(build(builder()), Ok(()));
    assert_eq!(build(builder().l2(MemoryL2::new())), Err(ErrorKind::NoRuntime));
    assert_eq!(build(builder().ledger(MemoryL2::new())), Err(ErrorKind::NoRuntime));
}

#[test]
fn blocking_calls_outlive_the_runtime_they_were_given() {
    for with_l2 in [false, true] {
        let (shared, runtime) = (Shared::new(), multi_thread());
        let cache = runtime.block_on(async {
            if with_l2 { shared.ready().await.0 } else { Cache::builder("a").build().unwrap() }
        });
        let cache = blocking::Cache::on(cache, runtime.handle().clone());
        let _ = cache.set("key", 1).unwrap();
        drop(runtime);
        assert_eq!(*cache.get_or_set("other", |_| ok(2)).unwrap(), 2);
        let _ = cache.remove("key").unwrap();
    }
}
