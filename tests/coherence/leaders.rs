//! T15, S14: whatever happens to the caller that leads, no key stays locked and nobody hangs.

use std::future::IntoFuture;
use std::time::Duration;

use crinkle_core::{Cache, EntryOptions, ErrorKind};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, World, both, current_thread, gated, kind_of, load, pass, until};
use futures_util::FutureExt;
use tokio::time::timeout;

#[tokio::test(start_paused = true)]
async fn a_leader_dropped_mid_factory_leaves_its_value_to_the_others() {
    let world = World::new().await;
    for cache in both(&world).await {
        let (gate, loads) = (Gate::new(), Loads::new());
        let leader = load(&cache, "key", &[], EntryOptions::default(), loads.gated(&gate, 1));
        gate.reached().await;
        let waiter = load(&cache, "key", &[], EntryOptions::default(), loads.value(2));
        until("the waiter has joined", || cache.stats().joined == 1).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        gate.open();
        assert_eq!(*waiter.await.unwrap().unwrap(), 1);
        assert_eq!(loads.count(), 1);
        assert_eq!(cache.health().in_flight, 0);
        assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_dropped_with_nobody_waiting_still_fills() {
    let world = World::new().await;
    for cache in both(&world).await {
        let gate = Gate::new();
        let leader = load(&cache, "key", &[], EntryOptions::default(), gated(&gate, 1));
        gate.reached().await;
        leader.abort();
        gate.open();
        until("the load has ended", || cache.health().in_flight == 0).await;
        assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&1));
    }
}

/// Dropped before its task ran at all, and while it asked L2.
#[tokio::test(start_paused = true)]
async fn a_leader_dropped_before_its_factory_leaves_the_key_free() {
    let world = World::new().await;
    let node = world.node().await;
    let gate = Gate::new();
    node.l2.next(L2Op::Read, Fate::Hold(gate.clone()));
    let loads = Loads::new();
    let leader = load(&node.cache, "key", &[], EntryOptions::default(), loads.value(1));
    gate.reached().await;
    leader.abort();
    gate.open();
    until("the load has ended", || node.cache.health().in_flight == 0).await;
    let read = node.cache.get_or_set("key", loads.value(2)).await.unwrap();
    assert_eq!((*read, loads.count()), (1, 1));
}

/// A call that is held and not polled, while its owner waits for another of the same key.
#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_polled_keeps_nobody_waiting() {
    let world = World::new().await;
    let node = world.node().await;
    let (gate, loads) = (Gate::new(), Loads::new());
    node.l2.next(L2Op::Read, Fate::Hold(gate.clone()));
    let mut leader = node.cache.get_or_set("key", loads.value(1)).into_future();
    assert!((&mut leader).now_or_never().is_none(), "L2 has not answered");
    gate.open();
    let joined = node.cache.get_or_set("key", loads.value(2));
    let read = timeout(Duration::from_secs(60), joined.into_future()).await;
    assert_eq!(*read.expect("a task went on").unwrap(), 1);
    assert_eq!(*leader.await.unwrap(), 1);
    assert_eq!(loads.count(), 1);
}

/// Its leader goes on in a task, and that does not wake it by itself.
#[tokio::test(start_paused = true)]
async fn a_caller_whose_leader_was_joined_is_answered_too() {
    let world = World::new().await;
    let node = world.node().await;
    let (gate, loads) = (Gate::new(), Loads::new());
    node.l2.next(L2Op::Read, Fate::Hold(gate.clone()));
    let leader = load(&node.cache, "key", &[], EntryOptions::default(), loads.value(1));
    gate.reached().await;
    let waiter = load(&node.cache, "key", &[], EntryOptions::default(), loads.value(2));
    until("the waiter has joined", || node.cache.stats().joined == 1).await;
    gate.open();
    for caller in [leader, waiter] {
        let read = timeout(Duration::from_secs(60), caller).await.expect("somebody woke it");
        assert_eq!(*read.unwrap().unwrap(), 1);
    }
    assert_eq!(loads.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_leader_fails_its_waiters_and_frees_the_key() {
    let world = World::new().await;
    for cache in both(&world).await {
        let gate = Gate::new();
        let held = gate.clone();
        let leader = load(&cache, "key", &[], EntryOptions::default(), move |_| async move {
            held.pass().await;
            if held.count() == 1 {
                panic!("the source said no");
            }
            crinkle_core::ok(0)
        });
        gate.reached().await;
        let waiters: Vec<_> = (0..5)
            .map(|_| load(&cache, "key", &[], EntryOptions::default(), Loads::new().value(9)))
            .collect();
        until("the waiters have joined", || cache.stats().joined == 5).await;
        gate.open();
        for waiter in waiters.into_iter().chain([leader]) {
            let error = waiter.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FactoryPanicked);
            assert!(error.to_string().contains("the source said no"));
        }
        assert_eq!(*cache.get_or_set("key", Loads::new().value(2)).await.unwrap(), 2);
    }
}

/// A panic in the closure itself, before there is a future.
#[tokio::test(start_paused = true)]
async fn a_factory_that_panics_at_once_is_caught_too() {
    let world = World::new().await;
    for cache in both(&world).await {
        let factory = |_| -> std::future::Ready<Result<i32, std::fmt::Error>> { panic!("at once") };
        let read = cache.get_or_set("key", factory).await;
        assert_eq!(kind_of(read), ErrorKind::FactoryPanicked);
        assert_eq!(*cache.get_or_set("key", Loads::new().value(2)).await.unwrap(), 2);
    }
}

/// The load lock of a panicked or failed load is given back: another node does not wait for it.
#[tokio::test(start_paused = true)]
async fn a_failed_load_gives_its_load_lock_back() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let read = one.cache.get_or_set("key", Loads::new().fail::<_, i32>()).await;
    assert_eq!(kind_of(read), ErrorKind::Factory);
    pass(Duration::from_millis(1)).await;
    let before = tokio::time::Instant::now();
    assert_eq!(*two.cache.get_or_set("key", Loads::new().value(2)).await.unwrap(), 2);
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(two.cache.stats().load_lock_waits, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cache_closed_mid_factory_ends_and_answers() {
    let world = World::new().await;
    for cache in both(&world).await {
        let gate = Gate::new();
        let leader = load(&cache, "key", &[], EntryOptions::default(), gated(&gate, 1));
        gate.reached().await;
        let closing = crinkle_tests::go({
            let cache = cache.clone();
            async move { cache.close().await }
        });
        pass(Duration::from_millis(10)).await;
        let late = cache.get_or_set("other", Loads::new().value(1)).await;
        assert_eq!(kind_of(late), ErrorKind::Closed);
        gate.open();
        assert_eq!(*leader.await.unwrap().unwrap(), 1);
        closing.await.unwrap().unwrap();
        assert_eq!(cache.health().in_flight, 0);
    }
}

/// L7: `close` does not wait for ever for a factory that hangs, and says so.
#[tokio::test(start_paused = true)]
async fn closing_ends_though_a_factory_hangs() {
    let world = World::new().await;
    for cache in both(&world).await {
        let gate = Gate::new();
        let options = EntryOptions::default().factory_deadline(Duration::from_secs(60));
        let leader = load(&cache, "key", &[], options, gated(&gate, 1));
        gate.reached().await;
        let error = cache.close().await.unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");
        assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::FactoryTimeout);
        assert_eq!(cache.health().in_flight, 0);
    }
}

/// The last handle is dropped while a caller still waits: it is answered.
#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_mid_factory_answers_the_callers() {
    let world = World::new().await;
    for cache in both(&world).await {
        let gate = Gate::new();
        let leader = load(&cache, "key", &[], EntryOptions::default(), gated(&gate, 1));
        gate.reached().await;
        drop(cache);
        gate.open();
        assert_eq!(*leader.await.unwrap().unwrap(), 1);
    }
}

/// `ready` of a cache that is closed is an error, not a hang.
#[tokio::test(start_paused = true)]
async fn waiting_for_a_closed_cache_ends() {
    let world = World::new().await;
    let node = world.cold(|builder| builder, |l2, _| l2.down());
    let ready = crinkle_tests::go({
        let cache = node.cache.clone();
        async move { cache.ready().await }
    });
    pass(Duration::from_secs(3)).await;
    assert!(!ready.is_finished());
    let _ = node.cache.close().await;
    assert_eq!(ready.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

/// The task of a batch is dropped before it was polled: its runtime ended first.
#[test]
fn a_batch_whose_runtime_ends_before_it_begins_leaves_its_keys_free() {
    // In real time: the second load runs on another thread.
    let cache = Cache::builder("shop").build().unwrap();
    let first = current_thread();
    first.block_on(async {
        let load = |keys: Vec<String>| async { crinkle_core::ok(keys.into_iter().map(|k| (k, 1))) };
        let many = cache.get_or_set_many(["key"], load).into_future();
        assert!(many.now_or_never().is_none());
    });
    drop(first);
    assert_eq!(cache.health().in_flight, 0);
    current_thread().block_on(async {
        let read = cache.get_or_set("key", Loads::new().value(2));
        let read = timeout(Duration::from_secs(60), read.into_future()).await;
        assert_eq!(*read.expect("nobody holds the key").unwrap(), 2);
    });
}

/// However long a time an option names, nothing panics over it.
#[tokio::test(start_paused = true)]
async fn a_wait_without_end_is_waited() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let first = load(&one.cache, "key", &[], EntryOptions::default(), gated(&gate, 1));
    gate.reached().await;
    let patient = EntryOptions::default().load_lock_wait(Duration::MAX);
    let second = load(&two.cache, "key", &[], patient, Loads::new().value(2));
    pass(Duration::from_secs(60)).await;
    gate.open();
    for read in [first, second] {
        assert_eq!(*read.await.unwrap().unwrap(), 1);
    }
}
