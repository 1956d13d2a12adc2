//! How long a caller waits for L2 in a load that another caller leads: as long as it says itself.

use std::time::Duration;

use crinkle_core::{EntryOptions, ErrorKind, FactoryContext, Source};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, gated, go, kind_of, load, ms, options, pass};
use tokio::time::Instant;

use crate::joined::{hasty, many, plain, slow};

/// Gives L2 three seconds.
fn patient() -> EntryOptions {
    plain().l2_soft_timeout(ms(3000)).l2_hard_timeout(ms(3000))
}

fn hang(node: &Node) {
    for op in [L2Op::Read, L2Op::ReadMany, L2Op::Look, L2Op::Heads] {
        node.l2.always(op, Fate::Hang);
    }
}

/// Whichever caller leads: a joiner loads without L2 when its own limit is over, and that is one load for all.
#[tokio::test(start_paused = true)]
async fn a_joiner_gives_l2_as_long_as_it_says_itself() {
    let world = World::new().await;
    for (led_by_batch, joined_by_batch) in [(false, false), (false, true), (true, false)] {
        let node = world.node().await;
        let (cache, loads) = (&node.cache, Loads::new());
        hang(&node);
        let single = |options, value| load(cache, "key", &[], options, loads.value(value));
        let leader = if led_by_batch {
            let leader = many(cache, patient());
            go(async move { leader.await.unwrap().map(|all| *all[0]) })
        } else {
            let leader = single(patient(), 9);
            go(async move { leader.await.unwrap().map(|read| *read) })
        };
        pass(ms(500)).await;
        let asked = Instant::now();
        let read = if joined_by_batch {
            many(cache, hasty()).await.unwrap().map(|all| *all[0])
        } else {
            single(hasty(), 8).await.unwrap().map(|read| *read)
        };
        let case = format!("led by a batch: {led_by_batch}, joined by one: {joined_by_batch}");
        assert_eq!((read.unwrap(), asked.elapsed()), (9, ms(100)), "{case}");
        assert_eq!(leader.await.unwrap().unwrap(), 9, "{case}");
        assert_eq!(loads.count(), usize::from(!led_by_batch), "{case}: one load for all");
        assert_eq!(cache.health().in_flight, 0, "{case}");
    }
}

/// The same while L2 is asked about an unverified copy, and while another node loads.
#[tokio::test(start_paused = true)]
async fn a_joiner_gives_l2_as_long_as_it_says_whatever_it_is_asked() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("unverified", 1).options(plain()).await.unwrap();
    two.bus.disconnect();
    pass(ms(50)).await;
    hang(&two);
    // The unverified copy is answered, as it would be alone.
    let leader = load(&two.cache, "unverified", &[], patient(), Loads::new().value(2));
    pass(ms(50)).await;
    let asked = Instant::now();
    let read = load(&two.cache, "unverified", &[], hasty(), Loads::new().value(3)).await.unwrap();
    let read = read.unwrap();
    let answer = (*read, read.meta().is_stale(), read.meta().source(), asked.elapsed());
    assert_eq!(answer, (1, true, Source::L1, ms(100)));
    // Who takes nothing unverified loads.
    let takes_none = hasty().skip_l1_read(true);
    let read =
        load(&two.cache, "unverified", &[], takes_none, Loads::new().value(3)).await.unwrap();
    let read = read.unwrap();
    assert_eq!((*read, read.meta().is_stale(), asked.elapsed()), (2, false, ms(200)));
    assert_eq!(*leader.await.unwrap().unwrap(), 2);

    two.l2.heal();
    let gate = Gate::new();
    let first = load(&one.cache, "held", &[], plain(), gated(&gate, 4));
    gate.reached().await;
    let leader = load(&two.cache, "held", &[], patient(), Loads::new().value(5));
    let joiner = load(&two.cache, "held", &[], hasty(), Loads::new().value(6));
    pass(ms(500)).await;
    assert!(!joiner.is_finished(), "L2 answers each time it is asked");
    hang(&two);
    let asked = Instant::now();
    assert_eq!(*joiner.await.unwrap().unwrap(), 5);
    // It naps between two questions, a tenth of a second at most.
    assert!(asked.elapsed() <= ms(300), "{:?}", asked.elapsed());
    assert_eq!(*leader.await.unwrap().unwrap(), 5);
    gate.open();
    assert_eq!(*first.await.unwrap().unwrap(), 4);
}

/// A caller that requires L2 gets its error after its own limit; for the caller that leads nothing has happened.
#[tokio::test(start_paused = true)]
async fn a_joiner_that_requires_l2_fails_alone() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 5).options(plain()).await.unwrap();
    one.l2.always(L2Op::Read, Fate::Delay(ms(600)));
    let (asked, loads) = (Instant::now(), Loads::new());
    let leader = load(&one.cache, "key", &[], patient(), loads.value(6));
    pass(ms(50)).await;
    let joiner = load(&one.cache, "key", &[], hasty().require_l2(true), loads.value(7));
    assert_eq!(kind_of(joiner.await.unwrap()), ErrorKind::L2);
    assert_eq!(asked.elapsed(), ms(150));
    assert_eq!(*leader.await.unwrap().unwrap(), 5);
    assert_eq!((asked.elapsed(), loads.count()), (ms(600), 0));
}

/// With a fallback it is the soft limit, as for a caller that leads.
#[tokio::test(start_paused = true)]
async fn a_joiner_with_a_fallback_gives_l2_its_soft_limit() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = node.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    hang(&node);
    let leader = load(&node.cache, "key", &[], patient(), slow(ms(1000), 2));
    pass(ms(10)).await;
    let asked = Instant::now();
    let soft = options().l2_soft_timeout(ms(100)).factory_soft_timeout(ms(300));
    let read = load(&node.cache, "key", &[], soft, Loads::new().value(3)).await.unwrap().unwrap();
    assert_eq!((*read, read.meta().is_stale(), asked.elapsed()), (1, true, ms(300)));
    assert_eq!(*leader.await.unwrap().unwrap(), 2);
    assert_eq!(asked.elapsed(), ms(1100), "its load has begun after a tenth of a second");
}

/// The caller that leads gives L2 more time: a load that fails without L2 is not the last word for it.
#[tokio::test(start_paused = true)]
async fn a_leader_keeps_its_own_limit() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 5).options(plain()).await.unwrap();
    one.l2.always(L2Op::Read, Fate::Delay(ms(600)));
    let fail = || Loads::new().fail::<FactoryContext<i32>, i32>();
    let leader = load(&one.cache, "key", &[], patient(), fail());
    pass(ms(50)).await;
    let joiner = load(&one.cache, "key", &[], hasty(), Loads::new().value(7));
    assert_eq!(kind_of(joiner.await.unwrap()), ErrorKind::Factory);
    assert_eq!(*leader.await.unwrap().unwrap(), 5, "L2 has answered in its time");
    let leader = load(&one.cache, "absent", &[], patient(), fail());
    pass(ms(50)).await;
    let joiner = load(&one.cache, "absent", &[], hasty(), Loads::new().value(7));
    assert_eq!(kind_of(joiner.await.unwrap()), ErrorKind::Factory);
    assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::Factory, "L2 has nothing, either");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_requires_l2_fails_after_its_own_limit() {
    let world = World::new().await;
    let node = world.node().await;
    hang(&node);
    let (asked, gate) = (Instant::now(), Gate::new());
    let leader = load(&node.cache, "key", &[], patient().require_l2(true), gated(&gate, 1));
    pass(ms(50)).await;
    let joiner = load(&node.cache, "key", &[], hasty(), Loads::new().value(2));
    gate.reached().await;
    assert_eq!(asked.elapsed(), ms(150), "the load is for the joiner");
    assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::L2);
    assert_eq!(asked.elapsed(), ms(3000));
    gate.open();
    assert_eq!(*joiner.await.unwrap().unwrap(), 1);
}

/// The load without L2 is for the joiner, though it is the leader's factory that runs, and ends in time.
#[tokio::test(start_paused = true)]
async fn a_leader_that_requires_l2_is_not_answered_by_a_load_without_it() {
    let world = World::new().await;
    for batch in [false, true] {
        let node = world.node().await;
        hang(&node);
        let requires = patient().require_l2(true);
        let leader = if batch {
            let leader = many(&node.cache, requires);
            go(async move { leader.await.unwrap().map(|all| *all[0]) })
        } else {
            let leader = load(&node.cache, "key", &[], requires, Loads::new().value(9));
            go(async move { leader.await.unwrap().map(|read| *read) })
        };
        pass(ms(50)).await;
        let joiner = load(&node.cache, "key", &[], hasty(), Loads::new().value(2));
        assert_eq!(*joiner.await.unwrap().unwrap(), 9, "batch: {batch}");
        let error = leader.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::L2, "batch: {batch}");
    }
}

/// What L1 holds stands in for nobody who requires L2, however long such a load takes.
#[tokio::test(start_paused = true)]
async fn a_leader_that_requires_l2_is_not_answered_stale_while_a_load_does_without_it() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = node.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    hang(&node);
    let (asked, gate) = (Instant::now(), Gate::new());
    let limits = options().l2_soft_timeout(ms(3000)).l2_hard_timeout(ms(3000));
    let requires = limits.factory_soft_timeout(ms(500)).require_l2(true);
    let leader = load(&node.cache, "key", &[], requires, gated(&gate, 2));
    pass(ms(50)).await;
    let joiner = load(&node.cache, "key", &[], hasty(), Loads::new().value(3));
    assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::L2);
    assert_eq!(asked.elapsed(), ms(3000));
    gate.open();
    assert_eq!(*joiner.await.unwrap().unwrap(), 2);
}

/// It gives L2 more time, and asks it itself: what such a load has left in L1 is not for it.
#[tokio::test(start_paused = true)]
async fn a_joiner_that_requires_l2_is_not_answered_by_what_a_load_without_it_left_in_l1() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 5).options(plain()).await.unwrap();
    for op in [L2Op::Read, L2Op::ReadMany] {
        one.l2.always(op, Fate::Delay(ms(600)));
    }
    let gate = Gate::new();
    let leader = load(&one.cache, "key", &[], hasty(), gated(&gate, 9));
    pass(ms(50)).await;
    let requires = patient().require_l2(true);
    let joiner = load(&one.cache, "key", &[], requires.clone(), Loads::new().value(2));
    let batch = many(&one.cache, requires);
    gate.reached().await;
    pass(ms(50)).await;
    gate.open();
    assert_eq!(*leader.await.unwrap().unwrap(), 9);
    assert_eq!(*joiner.await.unwrap().unwrap(), 5);
    assert_eq!(batch.await.unwrap().map(|all| *all[0]).unwrap(), 5);
}

/// A strict caller may not join, and has to wait for the end of what does not wait for it.
#[tokio::test(start_paused = true)]
async fn a_caller_that_may_not_join_does_not_wait_longer_for_l2() {
    let world = World::new().await;
    let node = world.node().await;
    hang(&node);
    let leader = load(&node.cache, "key", &[], patient(), Loads::new().value(1));
    pass(ms(50)).await;
    let asked = Instant::now();
    let strict = hasty().strict(true).skip_l1_read(true);
    let read = load(&node.cache, "key", &[], strict, Loads::new().value(2)).await.unwrap();
    assert_eq!((*read.unwrap(), asked.elapsed()), (2, ms(200)));
    assert_eq!(*leader.await.unwrap().unwrap(), 1);
}

/// An L2 that nobody waits for to the end is found out all the same.
#[tokio::test(start_paused = true)]
async fn an_l2_that_joiners_give_up_on_is_left_alone_in_the_end() {
    let world = World::new().await;
    let node = world.node().await;
    hang(&node);
    let mut left_alone = false;
    for at in 0..12 {
        let key = format!("key {at}");
        let leader = load(&node.cache, &key, &[], patient(), Loads::new().value(1));
        pass(ms(1)).await;
        let joiner = load(&node.cache, &key, &[], hasty(), Loads::new().value(2));
        joiner.await.unwrap().unwrap();
        leader.await.unwrap().unwrap();
        // Each poll is answered, and closes the breaker.
        left_alone |= !node.cache.health().l2_up;
    }
    assert!(left_alone);
}

/// A batch that a joiner does not wait for any longer is one operation that was given up, however many keys.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_given_up_is_one_failure() {
    let world = World::new().await;
    let node = world.node().await;
    hang(&node);
    let (cache, keys) = (node.cache.clone(), (0..100).map(|at| format!("key {at}")));
    let keys: Vec<_> = keys.collect();
    let leader = go(async move {
        let load = |keys: Vec<String>| async move {
            crinkle_core::ok(keys.into_iter().map(|key| (key, 1)).collect::<Vec<_>>())
        };
        cache.get_or_set_many(&keys, load).options(patient()).await
    });
    pass(ms(1)).await;
    let asked = Instant::now();
    let joiner = load(&node.cache, "key 7", &[], hasty(), Loads::new().value(2));
    assert_eq!((*joiner.await.unwrap().unwrap(), asked.elapsed()), (1, ms(100)));
    assert_eq!(leader.await.unwrap().unwrap().len(), 100);
    assert!(node.cache.health().l2_up);
}

/// A hasty joiner has the load do without L2. To a leader that requires it, and gives it more time, that is
/// nothing: it gets what L2 has, or what is loaded if that is nothing, or an error when its own time is over.
#[tokio::test(start_paused = true)]
async fn a_leader_that_requires_l2_asks_it_for_as_long_as_it_says() {
    let cases = [(true, 600, Ok(5), 750), (false, 600, Ok(9), 750), (true, 3000, Err(()), 1000)];
    for (batch, load_takes) in [(false, 1), (false, 5000), (true, 1), (true, 5000)] {
        for (known, l2_takes, expected, after) in cases {
            let world = World::new().await;
            let (one, two) = (world.node().await, world.node().await);
            if known {
                let _ = two.cache.set("key", 5).options(plain()).await.unwrap();
            }
            for op in [L2Op::Look, L2Op::Read, L2Op::ReadMany] {
                one.l2.always(op, Fate::Delay(ms(l2_takes)));
            }
            let (began, gate, requires) = (Instant::now(), Gate::new(), plain().require_l2(true));
            let leader = if batch {
                let (cache, gate) = (one.cache.clone(), gate.clone());
                let load = move |keys: Vec<String>| {
                    let gate = gate.clone();
                    async move {
                        gate.pass().await;
                        crinkle_core::ok(keys.into_iter().map(|key| (key, 9)))
                    }
                };
                go(async move {
                    let all = cache.get_or_set_many(["key"], load).options(requires).await;
                    all.map(|all| *all[0])
                })
            } else {
                let leader = load(&one.cache, "key", &[], requires, gated(&gate, 9));
                go(async move { leader.await.unwrap().map(|read| *read) })
            };
            pass(ms(50)).await;
            let joiner = load(&one.cache, "key", &[], hasty(), Loads::new().value(7));
            gate.reached().await;
            assert_eq!(began.elapsed(), ms(150), "the load is for the joiner");
            pass(ms(load_takes)).await;
            gate.open();
            assert_eq!(*joiner.await.unwrap().unwrap(), 9);
            let got = leader.await.unwrap();
            let case = format!("batch: {batch}, known: {known}, {l2_takes} ms, {load_takes} ms");
            assert_eq!(got.as_ref().copied().map_err(|_| ()), expected, "{case}");
            if let Err(error) = got {
                assert_eq!(error.kind(), ErrorKind::L2, "{case}");
            }
            if load_takes == 1 {
                assert_eq!(began.elapsed(), ms(after), "{case}");
            }
        }
    }
}

/// What a load waits for before it reads does not count for a joiner. In real time: between two lines some passes,
/// which a clock that stands still does not show. A busy machine has a second to spare.
#[tokio::test(start_paused = true)]
async fn a_joiner_gives_the_reading_as_long_as_it_says() {
    let world = World::new().await;
    let _ = world.node().await.cache.set("key", 5).options(plain()).await.unwrap();
    tokio::time::resume();
    let patient = plain().l2_soft_timeout(ms(4000)).l2_hard_timeout(ms(4000));
    let node = world.cold(
        |builder| builder.default_options(patient.clone()),
        |l2, _| {
            l2.next(L2Op::Sync, Fate::Delay(ms(2400)));
            l2.always(L2Op::Read, Fate::Delay(ms(2600)));
        },
    );
    let loads = Loads::new();
    let call = |value| load(&node.cache, "key", &[], patient.clone(), loads.value(value));
    let (leader, joiner) = (call(8), call(9));
    assert_eq!(*leader.await.unwrap().unwrap(), 5);
    assert_eq!(*joiner.await.unwrap().unwrap(), 5);
    assert_eq!(loads.count(), 0);
}
