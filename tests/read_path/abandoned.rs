//! Loads that nobody waits for any more.

use crinkle_core::{Cache, EntryOptions};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, World, go, load, ms, options, pass, until};

fn cancelling() -> EntryOptions {
    options().cancel_when_abandoned(true)
}

/// A load that has reached its factory, whose caller is dropped then.
async fn abandon(cache: &Cache, options: EntryOptions, gate: &Gate, loads: &Loads) {
    let call = load(cache, "key", &[], options, loads.gated(gate, 1));
    gate.reached().await;
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()));
}

async fn is_idle(cache: &Cache) {
    until("the key is free", || cache.health().in_flight == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_nobody_waits_for_is_stopped_if_asked() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gate, loads) = (Gate::new(), Loads::new());
        abandon(&cache, cancelling(), &gate, &loads).await;
        is_idle(&cache).await;
        gate.open();
        pass(ms(10)).await;
        assert!(cache.get::<i32>("key").await.unwrap().is_none());
        // It is no failure of the source, and the next caller loads at once.
        assert_eq!(cache.stats().factory_failures, 0);
        assert_eq!(*cache.get_or_set("key", loads.value(2)).await.unwrap(), 2);
        assert_eq!(loads.count(), 2);
    }
}

/// The default: the value is there for the next caller.
#[tokio::test(start_paused = true)]
async fn a_load_survives_its_callers_if_not_asked() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gate, loads) = (Gate::new(), Loads::new());
        abandon(&cache, options(), &gate, &loads).await;
        gate.open();
        is_idle(&cache).await;
        assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_goes_on_while_anybody_waits_for_it() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gate, loads) = (Gate::new(), Loads::new());
        let leader = load(&cache, "key", &[], cancelling(), loads.gated(&gate, 1));
        gate.reached().await;
        let joins = |options| load(&cache, "key", &[], options, loads.value(2));
        let (one, two) = (joins(options()), joins(cancelling()));
        until("they have joined", || cache.stats().joined == 2).await;
        leader.abort();
        two.abort();
        pass(ms(10)).await;
        assert_eq!(cache.health().in_flight, 1);
        gate.open();
        assert_eq!(*one.await.unwrap().unwrap(), 1);
        assert_eq!(loads.count(), 1);
        let _ = cache.remove("key").await.unwrap();
        // And it is stopped when the last of them goes.
        let gate = Gate::new();
        let leader = load(&cache, "key", &[], cancelling(), loads.gated(&gate, 3));
        gate.reached().await;
        let one = load(&cache, "key", &[], options(), loads.value(4));
        until("it has joined", || cache.stats().joined == 3).await;
        leader.abort();
        pass(ms(10)).await;
        one.abort();
        is_idle(&cache).await;
        assert!(cache.peek::<i32>("key").is_none());
    }
}

/// Its caller is dropped while L2 is still asked.
#[tokio::test(start_paused = true)]
async fn a_load_whose_caller_goes_early_calls_no_factory() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.always(L2Op::Read, Fate::Delay(ms(100)));
    let loads = Loads::new();
    let call = load(&node.cache, "key", &[], cancelling(), loads.value(1));
    until("L2 is asked", || node.cache.health().in_flight == 1).await;
    call.abort();
    is_idle(&node.cache).await;
    assert_eq!(loads.count(), 0);
    // Its lock is given back: another node does not wait for it.
    let other = world.node().await;
    let asked = tokio::time::Instant::now();
    assert_eq!(*other.cache.get_or_set("key", loads.value(2)).await.unwrap(), 2);
    assert!(asked.elapsed() < ms(500));
}

/// A stale value is not kept from being loaded again: nobody has failed.
#[tokio::test(start_paused = true)]
async fn an_abandoned_load_leaves_no_throttle() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let _ = cache.set("key", 0).options(options()).await.unwrap();
        let _ = cache.expire("key").await.unwrap();
        let (gate, loads) = (Gate::new(), Loads::new());
        abandon(&cache, cancelling(), &gate, &loads).await;
        is_idle(&cache).await;
        let read = cache.get_or_set("key", loads.value(2)).options(options()).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (2, false));
    }
}

/// Who times out is not gone: `background_completion` decides for it.
#[tokio::test(start_paused = true)]
async fn a_load_that_times_out_completes_in_the_background() {
    let world = World::new().await;
    let cache = world.alone();
    let (gate, loads) = (Gate::new(), Loads::new());
    let limited = cancelling().factory_hard_timeout(ms(50));
    let call = load(&cache, "key", &[], limited, loads.gated(&gate, 1));
    assert!(call.await.unwrap().is_err());
    gate.open();
    is_idle(&cache).await;
    assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_nobody_waits_for_is_stopped_if_asked() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gate, handle) = (Gate::new(), cache.clone());
        let reached = gate.clone();
        let call = go(async move {
            let load = move |keys: Vec<String>| {
                let gate = gate.clone();
                async move {
                    gate.pass().await;
                    crinkle_core::ok(keys.into_iter().map(|key| (key, 1)).collect::<Vec<_>>())
                }
            };
            let call = handle.get_or_set_many(["a", "b"], load).cancel_when_abandoned(true);
            call.await.map(drop)
        });
        reached.reached().await;
        call.abort();
        is_idle(&cache).await;
        reached.open();
        pass(ms(10)).await;
        assert!(cache.peek::<i32>("a").is_none() && cache.peek::<i32>("b").is_none());
    }
}
