//! Reads that ask for a load lock and run late: bytes that were stuck on their way (S5).

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use crinkle_core::EntryOptions;
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{World, go, load, options, pass, until};
use tokio::time::Instant;

/// Long enough that nothing is given up in between, short enough that the first read is.
fn impatient() -> EntryOptions {
    options().l2_hard_timeout(Duration::from_millis(100))
}

/// A multi-read has no answer, so each key is read by itself; a `remove` voids the load lock; then the
/// multi-read runs after all. The load began before the `remove`: nothing of it may be stored.
#[tokio::test(start_paused = true)]
async fn a_multi_read_that_runs_late_does_not_bring_a_voided_lock_back() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (stuck, factory) = (Gate::new(), Gate::new());
    one.l2.next(L2Op::ReadMany, Fate::RunLateBehind(stuck.clone()));
    let (cache, gate) = (one.cache.clone(), factory.clone());
    let caller = go(async move {
        let load = move |_: Vec<String>| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                Ok::<_, Infallible>(HashMap::from([("key".to_owned(), 1)]))
            }
        };
        cache.get_or_set_many(["key"], load).options(impatient()).await
    });
    factory.reached().await;
    // What it does not hear of, L2 alone keeps it from storing over.
    one.bus.hold(true);
    let _ = two.cache.remove("key").await.unwrap();
    stuck.open();
    pass(Duration::from_millis(10)).await;
    factory.open();
    assert_eq!(*caller.await.unwrap().unwrap()[0], 1);
    until("the load has ended", || one.cache.health().in_flight == 0).await;
    let found = two.cache.get::<i32>("key").await.unwrap();
    assert!(found.is_none(), "what was loaded before the removal was stored after it");
}

/// The same through another node that fills without a lock of its own, over the lock that it saw.
#[tokio::test(start_paused = true)]
async fn a_multi_read_that_runs_late_does_not_help_others_to_fill_over_a_voided_lock() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (slow, gate) = (Gate::new(), Gate::new());
    one.l2.next(L2Op::ReadMany, Fate::LoseReply);
    one.l2.next(L2Op::Read, Fate::Hold(slow.clone()));
    let cache = one.cache.clone();
    let never = Gate::new();
    let held = never.clone();
    let caller = go(async move {
        let load = move |_: Vec<String>| {
            let held = held.clone();
            async move {
                held.pass().await;
                Ok::<_, Infallible>(HashMap::from([("key".to_owned(), 1)]))
            }
        };
        cache.get_or_set_many(["key"], load).options(impatient()).await
    });
    slow.reached().await;
    let unlocked = EntryOptions::default().load_lock(false);
    let other = load(&two.cache, "key", &[], unlocked, crinkle_tests::gated(&gate, 2));
    gate.reached().await;
    two.bus.hold(true);
    let _ = one.cache.remove("key").await.unwrap();
    slow.open();
    pass(Duration::from_millis(150)).await;
    gate.open();
    let _ = other.await.unwrap().unwrap();
    until("the load has ended", || two.cache.health().in_flight == 0).await;
    let found = two.cache.get::<i32>("key").await.unwrap();
    assert!(found.is_none(), "what was loaded before the removal was stored after it");
    never.open();
    let _ = caller.await.unwrap();
}

/// A clear is on its way; another node has heard of it and has loaded again, and here what was loaded counts
/// as hidden until the clear has its number. The read asks for the load lock, and is answered when there
/// is nothing to load any more: the lock must go back, or the caller that loads next waits for nobody.
#[tokio::test(start_paused = true)]
async fn a_lock_that_turns_out_not_to_be_needed_is_given_back() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).await.unwrap();
    let (numbered, asked) = (Gate::new(), Gate::new());
    one.l2.next(L2Op::Advance, Fate::HoldReply(numbered.clone()));
    one.bus.hold(true);
    let clear = go({
        let cache = one.cache.clone();
        async move { cache.expire_all().await }
    });
    numbered.reached().await;
    pass(Duration::from_millis(10)).await;
    let loads = crinkle_tests::Loads::new();
    assert_eq!(*two.cache.get_or_set("key", loads.value(2)).await.unwrap(), 2);
    one.l2.next(L2Op::Read, Fate::Pass);
    one.l2.next(L2Op::Read, Fate::Hold(asked.clone()));
    let reader = load(&one.cache, "key", &[], options(), loads.value(3));
    asked.reached().await;
    numbered.open();
    one.bus.hold(false);
    let _ = clear.await.unwrap().unwrap();
    asked.open();
    assert_eq!(*reader.await.unwrap().unwrap(), 2, "it is fresh by now");
    let _ = two.cache.expire_all().await.unwrap();
    let began = Instant::now();
    assert_eq!(*two.cache.get_or_set("key", loads.value(4)).await.unwrap(), 4);
    assert!(began.elapsed() < Duration::from_millis(200), "it waited {:?}", began.elapsed());
}
