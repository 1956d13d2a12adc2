//! How long a caller waits for the loads of others: as long as it says itself.

use std::time::Duration;

use crinkle_core::ErrorKind;
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, World, gated, go, kind_of, load, ms, options, pass};
use tokio::time::Instant;

use crate::joined::{many, plain, slow};

/// Two other nodes load one after the other: the wait for them does not begin again.
#[tokio::test(start_paused = true)]
async fn load_lock_wait_is_of_the_call_and_not_of_each_holder() {
    let world = World::new().await;
    let (one, two, three) = (world.node().await, world.node().await, world.node().await);
    let (gate, loads) = (Gate::new(), Loads::new());
    let first = load(&one.cache, "key", &[], plain(), gated(&gate, 1));
    gate.reached().await;
    let asked = Instant::now();
    let waits = |wait| plain().load_lock_wait(ms(wait));
    let second = load(&two.cache, "key", &[], waits(1000), gated(&gate, 2));
    let third = load(&three.cache, "key", &[], waits(1500), loads.value(3));
    assert_eq!(*third.await.unwrap().unwrap(), 3);
    assert!(asked.elapsed() >= ms(1500) && asked.elapsed() < ms(1600), "{:?}", asked.elapsed());
    gate.open();
    for caller in [first, second] {
        caller.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hard_timeout_ends_the_wait_for_another_nodes_load_and_for_l2() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let first = load(&one.cache, "key", &[], plain(), gated(&gate, 1));
    gate.reached().await;
    let hasty = || plain().factory_hard_timeout(ms(300));
    for (hangs, single) in [(false, true), (false, false), (true, true), (true, false)] {
        if hangs {
            two.l2.always(L2Op::Read, Fate::Hang);
            two.l2.always(L2Op::ReadMany, Fate::Hang);
        }
        let asked = Instant::now();
        let kind = if single {
            kind_of(load(&two.cache, "key", &[], hasty(), Loads::new().value(2)).await.unwrap())
        } else {
            many(&two.cache, hasty()).await.unwrap().unwrap_err().kind()
        };
        assert_eq!((kind, asked.elapsed()), (ErrorKind::FactoryTimeout, ms(300)));
    }
    gate.open();
    assert_eq!(*first.await.unwrap().unwrap(), 1);
}

/// Of two callers that wait for another node, each waits for as long as it says.
#[tokio::test(start_paused = true)]
async fn a_joiner_waits_for_another_nodes_load_as_long_as_it_says_itself() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    let gate = Gate::new();
    let first = load(&one.cache, "key", &[], plain(), gated(&gate, 2));
    gate.reached().await;
    let leader =
        load(&two.cache, "key", &[], plain().load_lock_wait(ms(5000)), Loads::new().value(3));
    pass(ms(10)).await;
    let asked = Instant::now();
    let hasty = options().load_lock_wait(ms(100));
    let read = load(&two.cache, "key", &[], hasty, Loads::new().value(4)).await.unwrap().unwrap();
    assert_eq!((*read, read.meta().is_stale(), asked.elapsed()), (1, true, ms(100)));
    // Without a fallback it would load too: so this node does, for the caller that waits.
    let hasty = plain().load_lock_wait(ms(200));
    let read = load(&two.cache, "key", &[], hasty, Loads::new().value(4)).await.unwrap().unwrap();
    assert_eq!((*read, asked.elapsed()), (3, ms(300)));
    assert_eq!(*leader.await.unwrap().unwrap(), 3);
    gate.open();
    first.await.unwrap().unwrap();
}

/// The caller that leads is content with a stale value: its joiner is not.
#[tokio::test(start_paused = true)]
async fn a_joiner_loads_though_its_leader_is_content_with_something_stale() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    let gate = Gate::new();
    let first = load(&one.cache, "key", &[], plain(), gated(&gate, 2));
    gate.reached().await;
    let content = load(&two.cache, "key", &[], options().load_lock_wait(ms(200)), gated(&gate, 3));
    pass(ms(10)).await;
    let joiner =
        load(&two.cache, "key", &[], plain().load_lock_wait(ms(400)), Loads::new().value(4));
    let read = content.await.unwrap().unwrap();
    assert_eq!((*read, read.meta().is_stale()), (1, true));
    let read = joiner.await.unwrap().unwrap();
    assert_eq!((*read, read.meta().is_stale()), (4, false));
    gate.open();
    first.await.unwrap().unwrap();
}

/// However many loads that are not strict follow each other, a strict caller waits for one of them.
#[tokio::test(start_paused = true)]
async fn a_strict_caller_has_its_turn_among_loads_that_are_not() {
    let world = World::new().await;
    for single in [true, false] {
        let cache = world.node().await.cache;
        let others: Vec<_> = (0..2)
            .map(|at| {
                let cache = cache.clone();
                go(async move {
                    pass(ms(50 * at)).await;
                    for _ in 0..40 {
                        let factory = |ctx: crinkle_core::FactoryContext<i32>| async move {
                            ctx.skip_store();
                            pass(ms(100)).await;
                            crinkle_core::ok(1)
                        };
                        cache.get_or_set("key", factory).options(plain()).await.unwrap();
                    }
                })
            })
            .collect();
        pass(ms(120)).await;
        let (asked, strict) = (Instant::now(), plain().strict(true));
        if single {
            load(&cache, "key", &[], strict, slow(ms(100), 2)).await.unwrap().unwrap();
        } else {
            many(&cache, strict).await.unwrap().unwrap();
        }
        assert!(asked.elapsed() <= ms(250), "{:?}", asked.elapsed());
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(cache.health().in_flight, 0);
    }
}

/// A limit for callers that have a fallback is none for a caller whose fallback is removed while it waits, be
/// it for the load of another caller, for that of another node, or for a load that it may not join.
#[tokio::test(start_paused = true)]
async fn a_caller_whose_fallback_is_removed_meanwhile_waits_for_a_value() {
    for waits_for in ["a caller", "a node", "a node, joined", "the end"] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let _ = one.cache.set("key", 1).options(options()).await.unwrap();
        assert!(two.cache.get::<i32>("key").await.unwrap().is_some());
        pass(Duration::from_secs(11)).await;
        let (of_node, joins) = (waits_for.starts_with("a node"), waits_for.ends_with("joined"));
        let leader = if of_node { &one.cache } else { &two.cache };
        let first = load(leader, "key", &[], plain(), slow(ms(900), 2));
        pass(ms(10)).await;
        let patient = plain().load_lock_wait(ms(5000));
        let second = joins.then(|| load(&two.cache, "key", &[], patient, Loads::new().value(3)));
        pass(ms(10)).await;
        let hasty = options().load_lock_wait(ms(200)).strict(waits_for == "the end");
        let hasty = hasty.factory_soft_timeout((!joins).then_some(ms(200)));
        let caller = load(&two.cache, "key", &[], hasty, Loads::new().value(3));
        pass(ms(100)).await;
        // Of the fallback alone: a removal in L2 would end the load of the other node as well.
        let _ = two.cache.remove("key").skip_l2_write(true).await.unwrap();
        let read = caller.await.unwrap().map(|read| *read);
        assert!(read.as_ref().is_ok_and(|read| [2, 3].contains(read)), "{waits_for}: {read:?}");
        for other in [Some(first), second].into_iter().flatten() {
            other.await.unwrap().unwrap();
        }
    }
}
