//! Callers that share a load: each is judged by its own options, never by another's.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{Cache, Cached, EntryOptions, Error, ErrorKind, Source};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{
    Boxed, Loads, Node, TestError, World, both_stale, gated, go, kind_of, load, ms, options, pass,
    until,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Ten seconds, and no fallback.
pub(crate) fn plain() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(10))
}

/// Gives L2 a tenth of a second.
pub(crate) fn hasty() -> EntryOptions {
    plain().l2_soft_timeout(ms(100)).l2_hard_timeout(ms(100))
}

/// A factory that waits at a gate and fails.
fn failing<X>(gate: &Gate) -> impl FnOnce(X) -> Boxed<i32> + Send + use<X> {
    let gate = gate.clone();
    move |_| {
        Box::pin(async move {
            gate.pass().await;
            Err(TestError::new().into())
        })
    }
}

/// A factory that takes so long.
pub(crate) fn slow<X>(time: Duration, value: i32) -> impl FnOnce(X) -> Boxed<i32> + Send + use<X> {
    move |_| {
        Box::pin(async move {
            pass(time).await;
            Ok(value)
        })
    }
}

pub(crate) fn many(
    cache: &Cache,
    options: EntryOptions,
) -> JoinHandle<Result<Vec<Cached<i32>>, Error>> {
    let cache = cache.clone();
    let load =
        |keys: Vec<String>| async move { Ok::<_, TestError>(keys.into_iter().map(|k| (k, 9))) };
    go(async move { cache.get_or_set_many(["key"], load).options(options).await })
}

async fn joined(cache: &Cache, count: u64) {
    until("it has joined", || cache.stats().joined == count).await;
}

#[tokio::test(start_paused = true)]
async fn a_joiner_without_fail_safe_gets_the_error_though_its_leader_gets_a_fallback() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let gate = Gate::new();
        let leader = load(&cache, "key", &[], options(), failing(&gate));
        gate.reached().await;
        let joiner = load(&cache, "key", &[], plain(), Loads::new().value(2));
        joined(&cache, 1).await;
        let batch = many(&cache, plain());
        joined(&cache, 2).await;
        gate.open();
        let read = leader.await.unwrap().unwrap();
        assert_eq!((*read, read.meta().source()), (1, Source::FailSafe));
        assert_eq!(kind_of(joiner.await.unwrap()), ErrorKind::Factory);
        assert_eq!(batch.await.unwrap().unwrap_err().kind(), ErrorKind::Factory);
    }
}

#[tokio::test(start_paused = true)]
async fn a_joiner_with_fail_safe_gets_the_fallback_though_its_leader_gets_the_error() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let (gate, loads) = (Gate::new(), Loads::new());
        let leader = load(&cache, "key", &[], plain(), failing(&gate));
        gate.reached().await;
        let joiner = load(&cache, "key", &[], options(), Loads::new().value(2));
        joined(&cache, 1).await;
        let batch = many(&cache, options());
        joined(&cache, 2).await;
        gate.open();
        assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::Factory);
        let read = joiner.await.unwrap().unwrap();
        assert_eq!(
            (*read, read.meta().is_stale(), read.meta().source()),
            (1, true, Source::FailSafe)
        );
        assert!(batch.await.unwrap().unwrap()[0].meta().is_stale());
        // The throttle is that of the caller that was answered with it.
        let read = load(&cache, "key", &[], options(), loads.value(3)).await.unwrap().unwrap();
        assert_eq!((read.meta().is_stale(), loads.count()), (true, 0));
        let read = load(&cache, "key", &[], plain(), loads.value(3)).await.unwrap().unwrap();
        assert_eq!((*read, loads.count()), (3, 1), "which is nothing to a call without fail-safe");
    }
}

/// The fallback is in L2 alone; the caller that leads does not want it.
#[tokio::test(start_paused = true)]
async fn a_fallback_that_only_l2_has_is_the_joiners_too() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    let gate = Gate::new();
    let leader = load(&two.cache, "key", &[], plain(), failing(&gate));
    gate.reached().await;
    let joiner = load(&two.cache, "key", &[], options(), Loads::new().value(2));
    joined(&two.cache, 1).await;
    gate.open();
    assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::Factory);
    assert_eq!(*joiner.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leaders_default_is_not_its_joiners() {
    let world = World::new().await;
    let cache = world.alone();
    let gate = Gate::new();
    let (owner, factory) = (cache.clone(), failing(&gate));
    let leader = go(async move {
        owner.get_or_set("key", factory).options(options()).fail_safe_default(7).await
    });
    gate.reached().await;
    let joiner = load(&cache, "key", &[], options(), Loads::new().value(2));
    joined(&cache, 1).await;
    gate.open();
    assert_eq!(*leader.await.unwrap().unwrap(), 7);
    assert_eq!(kind_of(joiner.await.unwrap()), ErrorKind::Factory);
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_answered_after_the_joiners_own_soft_timeout() {
    let world = World::new().await;
    for cache in both_stale(&world).await {
        let gate = Gate::new();
        let leader = load(&cache, "key", &[], plain(), gated(&gate, 2));
        gate.reached().await;
        let (asked, hasty) = (Instant::now(), options().factory_soft_timeout(ms(100)));
        let read = load(&cache, "key", &[], hasty, Loads::new().value(3)).await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale(), asked.elapsed()), (1, true, ms(100)));
        gate.open();
        assert_eq!(*leader.await.unwrap().unwrap(), 2);
    }
}

/// A node whose L2 hangs, and with it a load that has begun to ask it.
async fn hung(world: &World) -> Node {
    let node = world.node().await;
    node.l2.always(L2Op::Read, Fate::Hang);
    node.l2.always(L2Op::ReadMany, Fate::Hang);
    node
}

#[tokio::test(start_paused = true)]
async fn a_joiner_without_require_l2_is_not_failed_by_a_leader_with_it() {
    let world = World::new().await;
    let node = hung(&world).await;
    let cache = &node.cache;
    let leader = load(cache, "key", &[], plain().require_l2(true), Loads::new().value(1));
    pass(ms(100)).await;
    let joiner = load(cache, "key", &[], plain(), Loads::new().value(2));
    joined(cache, 1).await;
    let batch = many(cache, plain());
    joined(cache, 2).await;
    assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::L2);
    assert_eq!(*joiner.await.unwrap().unwrap(), 2);
    assert_eq!(*batch.await.unwrap().unwrap()[0], 2);
}

#[tokio::test(start_paused = true)]
async fn a_joiner_with_require_l2_is_not_answered_by_a_load_without_l2() {
    let world = World::new().await;
    let node = hung(&world).await;
    let (cache, gate) = (&node.cache, Gate::new());
    let asked = Instant::now();
    let leader = load(cache, "key", &[], plain(), gated(&gate, 1));
    pass(ms(100)).await;
    let joiner = load(cache, "key", &[], plain().require_l2(true), Loads::new().value(2));
    joined(cache, 1).await;
    let batch = many(cache, plain().require_l2(true));
    joined(cache, 2).await;
    assert_eq!(kind_of(joiner.await.unwrap()), ErrorKind::L2);
    assert_eq!(batch.await.unwrap().unwrap_err().kind(), ErrorKind::L2);
    assert_eq!(asked.elapsed(), ms(1000), "it does not wait for a factory that is not for it");
    gate.open();
    assert_eq!(*leader.await.unwrap().unwrap(), 1);
}

/// The limit on L2 is the caller's own: what L2 did not answer another caller in, it may answer this one in.
#[tokio::test(start_paused = true)]
async fn a_joiner_that_gives_l2_more_time_asks_it_again() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 5).options(plain()).await.unwrap();
    one.l2.always(L2Op::Read, Fate::Delay(ms(600)));
    let (gate, hasty) = (Gate::new(), plain().l2_hard_timeout(ms(100)));
    let leader = load(&one.cache, "key", &[], hasty, failing(&gate));
    pass(ms(50)).await;
    let patient = load(&one.cache, "key", &[], plain().require_l2(true), Loads::new().value(2));
    joined(&one.cache, 1).await;
    gate.open();
    assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::Factory);
    assert_eq!(*patient.await.unwrap().unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_gives_up_does_not_stop_the_factory_of_those_who_wait() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gate, loads) = (Gate::new(), Loads::new());
        let hasty = plain().factory_hard_timeout(ms(100)).background_completion(false);
        let leader = load(&cache, "key", &[], hasty.clone(), loads.gated(&gate, 1));
        gate.reached().await;
        let joiner = load(&cache, "key", &[], hasty.factory_hard_timeout(ms(900)), loads.value(2));
        joined(&cache, 1).await;
        let batch = many(&cache, plain());
        joined(&cache, 2).await;
        assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::FactoryTimeout);
        pass(ms(100)).await;
        gate.open();
        assert_eq!(*joiner.await.unwrap().unwrap(), 1);
        assert_eq!(*batch.await.unwrap().unwrap()[0], 1);
        assert_eq!(loads.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_who_gives_up_stops_the_factory_unless_somebody_let_it_finish() {
    let world = World::new().await;
    for finishes in [false, true] {
        let cache = world.alone();
        let gate = Gate::new();
        let hasty = plain().factory_hard_timeout(ms(100)).background_completion(false);
        let leader = load(&cache, "key", &[], hasty.clone(), gated(&gate, 1));
        gate.reached().await;
        let other = hasty.factory_hard_timeout(ms(300)).background_completion(finishes);
        let joiner = load(&cache, "key", &[], other, Loads::new().value(2));
        for caller in [leader, joiner] {
            assert_eq!(kind_of(caller.await.unwrap()), ErrorKind::FactoryTimeout);
        }
        pass(ms(10)).await;
        assert_eq!(cache.health().in_flight, usize::from(finishes));
        gate.open();
        pass(ms(10)).await;
        assert_eq!(cache.peek::<i32>("key").as_deref(), finishes.then_some(&1));
    }
}

/// The factory is not worth more to a joiner than its own would be, nor less.
#[tokio::test(start_paused = true)]
async fn a_joiner_with_a_longer_deadline_loads_itself_when_its_leaders_is_over() {
    let world = World::new().await;
    let cache = world.alone();
    let short = || plain().factory_deadline(ms(500));
    let leader = load(&cache, "key", &[], short(), gated(&Gate::new(), 1));
    pass(ms(100)).await;
    let same = load(&cache, "key", &[], short(), Loads::new().value(2));
    joined(&cache, 1).await;
    let longer = load(&cache, "key", &[], plain(), Loads::new().value(3));
    joined(&cache, 2).await;
    for caller in [leader, same] {
        assert_eq!(kind_of(caller.await.unwrap()), ErrorKind::FactoryTimeout);
    }
    assert_eq!(*longer.await.unwrap().unwrap(), 3);
}

/// A strict caller may not join, and waits. Without a fallback a soft timeout is nothing to it.
#[tokio::test(start_paused = true)]
async fn a_soft_timeout_without_a_fallback_never_ends_a_wait() {
    let world = World::new().await;
    let cache = world.node().await.cache;
    let first = load(&cache, "key", &[], plain(), slow(ms(1000), 1));
    pass(ms(10)).await;
    let strict = || plain().strict(true).factory_soft_timeout(ms(50));
    let patient = load(&cache, "key", &[], strict(), Loads::new().value(2));
    let asked = Instant::now();
    let hasty = strict().factory_hard_timeout(ms(200));
    let hasty = load(&cache, "key", &[], hasty, Loads::new().value(3));
    assert_eq!(kind_of(hasty.await.unwrap()), ErrorKind::FactoryTimeout);
    assert_eq!(asked.elapsed(), ms(200));
    let hasty = load(&cache, "key", &[], strict().wait_timeout(ms(100)), Loads::new().value(3));
    assert_eq!(kind_of(hasty.await.unwrap()), ErrorKind::WaitTimeout);
    assert_eq!(asked.elapsed(), ms(300));
    assert_eq!(*patient.await.unwrap().unwrap(), 1);
    assert_eq!(*first.await.unwrap().unwrap(), 1);
}

/// Two fenced loads run; a third caller waits for the older, and answers what it has when its time comes.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_fenced_load_ends_within_the_callers_own_limits() {
    let world = World::new().await;
    let cache = world.alone();
    let _ = cache.set("key", 1).options(options()).await.unwrap();
    let mut running = Vec::new();
    for at in 0..2 {
        let _ = cache.expire("key").await.unwrap();
        running.push(load(&cache, "key", &[], plain(), slow(ms(1000), 2)));
        pass(ms(1 + at)).await;
    }
    let _ = cache.expire("key").await.unwrap();
    let asked = Instant::now();
    let soft = options().factory_soft_timeout(ms(50));
    let read = load(&cache, "key", &[], soft, Loads::new().value(3)).await.unwrap().unwrap();
    assert_eq!((*read, read.meta().is_stale(), asked.elapsed()), (1, true, ms(50)));
    let soft = plain().factory_soft_timeout(ms(50));
    let read = load(&cache, "key", &[], soft, Loads::new().value(3)).await.unwrap().unwrap();
    assert_eq!(*read, 3);
    for running in running {
        running.await.unwrap().unwrap();
    }
}

/// A caller that has to arrive again has no more time than before.
#[tokio::test(start_paused = true)]
async fn limits_count_from_the_start_of_the_call() {
    let world = World::new().await;
    for single in [true, false] {
        let cache = world.alone();
        let short = plain().factory_deadline(ms(300));
        let leader = load(&cache, "key", &[], short, gated(&Gate::new(), 1));
        pass(ms(100)).await;
        let asked = Instant::now();
        let own = plain().factory_hard_timeout(ms(500));
        let kind = if single {
            kind_of(load(&cache, "key", &[], own, gated(&Gate::new(), 2)).await.unwrap())
        } else {
            let hangs =
                |_: Vec<String>| std::future::pending::<Result<Vec<(String, i32)>, TestError>>();
            let batch = cache.get_or_set_many(["key"], hangs).options(own).await;
            batch.unwrap_err().kind()
        };
        assert_eq!((kind, asked.elapsed()), (ErrorKind::FactoryTimeout, ms(500)));
        assert_eq!(kind_of(leader.await.unwrap()), ErrorKind::FactoryTimeout);
    }
}

/// What is stored is up to who leads; what a caller does not want to be answered from, it is not.
#[tokio::test(start_paused = true)]
async fn a_joiner_that_leaves_l2_out_is_not_answered_from_it() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(plain()).await.unwrap();
    let gate = Gate::new();
    two.l2.next(L2Op::Read, Fate::Hold(gate.clone()));
    let leader = load(&two.cache, "key", &[], plain().skip_l1_write(true), Loads::new().value(2));
    gate.reached().await;
    let joiner = load(&two.cache, "key", &[], plain().skip_l2(true), Loads::new().value(3));
    joined(&two.cache, 1).await;
    gate.open();
    assert_eq!(*leader.await.unwrap().unwrap(), 1);
    assert_eq!(*joiner.await.unwrap().unwrap(), 3);
}

/// What a caller with an unverified copy gets, and when, while L2 fails, alone or in the load of a leader.
async fn unverified(
    leads: Option<EntryOptions>,
    batch: bool,
    fate: Fate,
    takes: Duration,
) -> (i32, bool, Duration) {
    let world = World::new().await;
    let node = world.node().await;
    let _ = node.cache.set("key", 1).options(plain()).await.expect("no trouble");
    node.bus.disconnect();
    pass(ms(50)).await;
    for op in [L2Op::Heads, L2Op::Look, L2Op::Read, L2Op::ReadMany, L2Op::Frontier] {
        node.l2.always(op, fate.clone());
    }
    let fail = move |_| async move {
        pass(takes).await;
        Err::<i32, _>(TestError::new())
    };
    let leader = leads.map(|leads| load(&node.cache, "key", &[], leads, fail));
    pass(ms(100)).await;
    let began = Instant::now();
    let read = if batch {
        many(&node.cache, plain()).await.expect("no panic").map(|mut all| all.remove(0))
    } else {
        load(&node.cache, "key", &[], plain(), Loads::new().value(7)).await.expect("no panic")
    };
    let (read, took) = (read.expect("a copy"), began.elapsed());
    if let Some(leader) = leader {
        assert_eq!(kind_of(leader.await.expect("no panic")), ErrorKind::Factory);
    }
    (*read, read.meta().is_stale(), took)
}

/// L2 does not answer. A caller that takes an unverified copy is answered with it as early as if it had
/// come alone: it neither waits for the factory of a caller that takes none, nor fails with it.
#[tokio::test(start_paused = true)]
async fn a_joiner_has_its_unverified_copy_though_its_leader_takes_none() {
    let (down, slow) = (Fate::Fail(L2ErrorKind::Disconnected), ms(5000));
    for batch in [false, true] {
        let leaders = [None, Some(plain().strict(true)), Some(plain().skip_l1_read(true))];
        for leads in leaders {
            let case = format!("{}, batch: {batch}", leads.is_some());
            let got = unverified(leads.clone(), batch, down.clone(), slow).await;
            assert_eq!(got, (1, true, ms(0)), "{case}, at once");
            let (value, stale, took) = unverified(leads, batch, Fate::Hang, ms(0)).await;
            assert_eq!((value, stale), (1, true), "{case}");
            assert!(took <= ms(1000), "{case}: {took:?}");
        }
    }
}
