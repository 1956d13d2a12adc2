//! T19: what fail-safe may answer after a removal.

use std::time::Duration;

use crinkle_core::{BoxError, Cache, ErrorKind, FactoryContext};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, TestError, World, go, kind_of, load, options, pass, until};

#[derive(Clone, Copy, Debug)]
enum Op {
    Remove,
    RemoveByTag,
    ClearHard,
    Expire,
    ExpireByTag,
    Clear,
}

const HARD: [Op; 3] = [Op::Remove, Op::RemoveByTag, Op::ClearHard];
const SOFT: [Op; 3] = [Op::Expire, Op::ExpireByTag, Op::Clear];

async fn apply(cache: &Cache, op: Op) {
    let receipt = match op {
        Op::Remove => cache.remove("key").await,
        Op::RemoveByTag => cache.remove_by_tag("tag").await,
        Op::ClearHard => cache.remove_all().await,
        Op::Expire => cache.expire("key").await,
        Op::ExpireByTag => cache.expire_by_tag("tag").await,
        Op::Clear => cache.expire_all().await,
    };
    let _ = receipt.expect("no trouble");
}

/// Where the removal is called.
#[derive(Clone, Copy, Debug)]
enum At {
    Alone,
    Here,
    Elsewhere,
    /// Here, with L2 down.
    Dark,
}

async fn fails_after(op: Op, at: At, stale_first: bool) -> Result<i32, ErrorKind> {
    let world = World::new().await;
    let node = world.node().await;
    let other = world.node().await;
    let cache = if matches!(at, At::Alone) { world.alone() } else { node.cache.clone() };
    let _ = cache.set("key", 1).tags(["tag"]).options(options()).await.expect("no trouble");
    if stale_first {
        pass(Duration::from_secs(11)).await;
    }
    match at {
        At::Elsewhere => apply(&other.cache, op).await,
        At::Alone | At::Here => apply(&cache, op).await,
        At::Dark => {
            node.l2.down();
            pass(Duration::from_secs(10)).await;
            apply(&cache, op).await;
        }
    }
    pass(Duration::from_millis(50)).await;
    let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options()).await;
    match read {
        Ok(read) => {
            assert!(read.meta().is_stale());
            Ok(*read)
        }
        Err(error) => {
            assert_eq!(error.factory_error::<TestError>(), Some(&TestError::new()));
            Err(error.kind())
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fail_safe_never_answers_what_was_removed_hard() {
    for op in HARD {
        for at in [At::Alone, At::Here, At::Elsewhere, At::Dark] {
            for stale_first in [false, true] {
                let answer = fails_after(op, at, stale_first).await;
                assert_eq!(answer, Err(ErrorKind::Factory), "{op:?} {at:?} {stale_first}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fail_safe_may_answer_what_was_made_stale() {
    for op in SOFT {
        for at in [At::Alone, At::Here, At::Elsewhere, At::Dark] {
            for stale_first in [false, true] {
                let answer = fails_after(op, at, stale_first).await;
                assert_eq!(answer, Ok(1), "{op:?} {at:?} {stale_first}");
            }
        }
    }
}

/// Hard and soft are two numbers: a later soft removal does not soften an earlier hard one.
#[tokio::test(start_paused = true)]
async fn a_later_expire_does_not_soften_an_earlier_removal() {
    let world = World::new().await;
    let node = world.node().await;
    for (hard, soft) in [(Op::RemoveByTag, Op::ExpireByTag), (Op::ClearHard, Op::Clear)] {
        let _ = node.cache.set("key", 1).tags(["tag"]).options(options()).await.unwrap();
        apply(&node.cache, hard).await;
        apply(&node.cache, soft).await;
        let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        assert_eq!(kind_of(read.await), ErrorKind::Factory);
    }
}

/// The removal comes while the factory that will fail is running: the fallback was chosen before.
#[tokio::test(start_paused = true)]
async fn a_fallback_removed_during_the_failing_load_is_not_answered() {
    for op in HARD {
        for at in [At::Alone, At::Here, At::Elsewhere] {
            let world = World::new().await;
            let (node, other) = (world.node().await, world.node().await);
            let alone = matches!(at, At::Alone);
            let cache = if alone { world.alone() } else { node.cache.clone() };
            let _ = cache.set("key", 1).tags(["tag"]).options(options()).await.unwrap();
            pass(Duration::from_secs(11)).await;
            let gate = Gate::new();
            let held = gate.clone();
            let reader = load(&cache, "key", &["tag"], options(), move |_| async move {
                held.pass().await;
                Err::<i32, _>(TestError::new())
            });
            gate.reached().await;
            apply(if matches!(at, At::Elsewhere) { &other.cache } else { &cache }, op).await;
            pass(Duration::from_millis(50)).await;
            gate.open();
            assert_eq!(kind_of(reader.await.unwrap()), ErrorKind::Factory, "{op:?} {at:?}");
            assert!(cache.get::<i32>("key").allow_stale().await.unwrap().is_none());
        }
    }
}

/// The same when the caller's patience ends before the factory.
#[tokio::test(start_paused = true)]
async fn a_fallback_removed_during_a_slow_load_is_not_answered_by_the_soft_timeout() {
    for op in HARD {
        for at in [At::Alone, At::Here, At::Elsewhere] {
            let world = World::new().await;
            let (node, other) = (world.node().await, world.node().await);
            let alone = matches!(at, At::Alone);
            let cache = if alone { world.alone() } else { node.cache.clone() };
            let _ = cache.set("key", 1).tags(["tag"]).options(options()).await.unwrap();
            pass(Duration::from_secs(11)).await;
            let gate = Gate::new();
            let patient = options()
                .factory_soft_timeout(Duration::from_millis(200))
                .factory_hard_timeout(Duration::from_secs(2));
            let reader = load(&cache, "key", &["tag"], patient, crinkle_tests::gated(&gate, 2));
            gate.reached().await;
            apply(if matches!(at, At::Elsewhere) { &other.cache } else { &cache }, op).await;
            let answer = reader.await.unwrap();
            assert_eq!(kind_of(answer), ErrorKind::FactoryTimeout, "{op:?} {at:?}");
            gate.open();
            until("the load has ended", || cache.health().in_flight == 0).await;
        }
    }
}

/// An `expire` during the load leaves the fallback.
#[tokio::test(start_paused = true)]
async fn a_fallback_expired_during_the_failing_load_may_be_answered() {
    for op in SOFT {
        let world = World::new().await;
        let node = world.node().await;
        let _ = node.cache.set("key", 1).tags(["tag"]).options(options()).await.unwrap();
        pass(Duration::from_secs(11)).await;
        let gate = Gate::new();
        let (held, cache) = (gate.clone(), node.cache.clone());
        let reader = go(async move {
            let factory = move |_| async move {
                held.pass().await;
                Err::<i32, _>(TestError::new())
            };
            cache.get_or_set("key", factory).options(options()).await
        });
        gate.reached().await;
        apply(&node.cache, op).await;
        gate.open();
        let read = reader.await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, true), "{op:?}");
    }
}

/// A lost `remove` must not come back through fail-safe: L2 answers, and holds nothing.
#[tokio::test(start_paused = true)]
async fn a_remove_this_node_has_not_heard_of_is_no_fallback_while_l2_answers() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).options(options()).await.unwrap();
    two.bus.mute(true);
    let _ = one.cache.remove("key").await.unwrap();
    pass(Duration::from_secs(11)).await;
    let read = two.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
    assert_eq!(kind_of(read.await), ErrorKind::Factory);
}

/// A call that uses no value of L2 still reads the record, and so learns that its own copy is not
/// what L2 holds; one that does not even read it goes by the session.
#[tokio::test(start_paused = true)]
async fn a_lost_remove_is_no_fallback_for_a_call_that_uses_no_value_of_l2() {
    let when_stale = options().skip_l2_read_when_stale(true);
    for chosen in [options().skip_l2_read(true), when_stale, options().skip_l2(true)] {
        for confirm in [false, true] {
            let world = World::new().await;
            let (one, two) = (world.node().await, world.node().await);
            let _ = one.cache.set("key", 1).options(options()).await.unwrap();
            one.bus.mute(true);
            let _ = two.cache.remove("key").await.unwrap();
            pass(Duration::from_secs(11)).await;
            let factory = move |ctx: FactoryContext<i32>| async move {
                if confirm { ctx.not_modified::<BoxError>() } else { Err(TestError::new().into()) }
            };
            let read = one.cache.get_or_set("key", factory).options(chosen.clone()).await;
            assert_eq!(kind_of(read), ErrorKind::Factory, "confirm {confirm}");
            for node in [&one, &two] {
                assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
            }
        }
    }
}

/// An entry that was never in L2 is not missing there.
#[tokio::test(start_paused = true)]
async fn an_entry_of_this_node_alone_stands_in_though_l2_has_none() {
    let world = World::new().await;
    let node = world.node().await;
    let own = options().skip_l2_write(true);
    let _ = node.cache.get_or_set("key", Loads::new().value(1)).options(own.clone()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(own).await;
    let read = read.unwrap();
    assert_eq!((*read, read.meta().is_stale()), (1, true));
}

/// What `expire` has left here stands in for such a call, though the record has another version now.
#[tokio::test(start_paused = true)]
async fn an_expired_entry_stands_in_for_a_call_that_uses_no_value_of_l2() {
    for here in [true, false] {
        for chosen in [options().skip_l2_read(true), options().skip_l2_read_when_stale(true)] {
            let world = World::new().await;
            let (one, two) = (world.node().await, world.node().await);
            let _ = one.cache.set("key", 1).options(options()).await.unwrap();
            let _ = if here { &one } else { &two }.cache.expire("key").await.unwrap();
            pass(Duration::from_millis(50)).await;
            let read = one.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(chosen);
            assert_eq!(*read.await.unwrap(), 1, "here {here}");
        }
    }
}

/// A default comes last: what L1 holds of the key is better.
#[tokio::test(start_paused = true)]
async fn a_default_does_not_take_the_place_of_a_fresh_entry() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        let read = cache
            .get_or_set("key", Loads::new().fail::<_, i32>())
            .options(options().skip_l1_read(true).skip_l2_read(true))
            .fail_safe_default(0)
            .await;
        let _ = read.unwrap();
        assert_eq!(cache.peek::<i32>("key").as_deref(), Some(&1));
    }
}
