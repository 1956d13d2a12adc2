//! Fail-safe: what may stand in, since when, and what it costs.

use crinkle_core::{Cache, ErrorKind, FactoryContext, FailSafe, Receipt, Source, ok};
use crinkle_testkit::chaos::{Gate, L2Op};
use crinkle_tests::{Loads, TestError, World, both, gated, kind_of, load, long, ms, options, pass};
use tokio::time::Instant;

use crate::{SHORT, any, fresh, put, secs};

/// Upstream #333: it must have been on when the value was stored, for something to be there.
#[tokio::test(start_paused = true)]
async fn fail_safe_asked_for_too_late_has_nothing_to_answer() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).duration(secs(10)).await.unwrap();
        pass(secs(11)).await;
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        assert_eq!(kind_of(read.await), ErrorKind::Factory);
    }
}

/// With a throttle of its own: whatever made the value stale, the source is not asked for it.
/// (In FusionCache a removal by tag makes the throttle ineffective.)
#[tokio::test(start_paused = true)]
async fn the_throttle_holds_whatever_made_the_value_stale() {
    let world = World::new().await;
    for cache in both(&world).await {
        for how in ["time", "expire", "tag", "clear"] {
            let _ = cache.set(how, 1).tags(["tag"]).options(options()).await.unwrap();
            make_stale(&cache, how).await;
            let loads = Loads::new();
            for _ in 0..3 {
                let read = cache.get_or_set(how, loads.fail::<_, i32>()).options(options());
                let read = read.await.unwrap();
                assert_eq!((*read, read.meta().is_stale()), (1, true), "{how}");
                pass(secs(9)).await;
            }
            assert_eq!(loads.count(), 1, "{how}");
            pass(secs(4)).await;
            let read = cache.get_or_set(how, loads.fail::<_, i32>()).options(options());
            assert!(read.await.unwrap().meta().is_stale());
            assert_eq!(loads.count(), 2, "{how}: the throttle is over");
        }
    }
}

async fn make_stale(cache: &Cache, how: &str) {
    let receipt: Receipt = match how {
        "expire" => cache.expire(how).await.expect("no trouble"),
        "tag" => cache.expire_by_tag("tag").await.expect("no trouble"),
        "clear" => cache.expire_all().await.expect("no trouble"),
        _ => return pass(secs(11)).await,
    };
    assert!(receipt.is_propagated());
}

#[tokio::test(start_paused = true)]
async fn a_write_ends_the_throttle() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        pass(secs(11)).await;
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        assert!(read.await.unwrap().meta().is_stale());
        let _ = cache.set("key", 2).options(options()).await.unwrap();
        let read = cache.get_or_set("key", Loads::new().value(3)).options(options());
        let read = read.await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (2, false));
    }
}

/// Neither stored nor announced: a stand-in is the business of the node that needs it.
#[tokio::test(start_paused = true)]
async fn standing_in_changes_nothing_in_l2_and_nothing_elsewhere() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(secs(11)).await;
    two.bus.hold(true);
    one.l2.forget();
    let read = one.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
    assert!(read.await.unwrap().meta().is_stale());
    pass(SHORT).await;
    let writes = [L2Op::Put, L2Op::Set, L2Op::Remove, L2Op::Expire];
    assert_eq!(writes.map(|op| one.l2.count(op)), [0; 4]);
    assert_eq!(two.bus.held(), 0, "nothing was announced");
    let loads = Loads::new();
    let read = two.cache.get_or_set("key", loads.value(2)).options(options()).await.unwrap();
    assert_eq!((*read, loads.count()), (2, 1), "another node is not throttled by it");
}

/// Its own copy is older than the record: the newer of two stale values stands in.
#[tokio::test(start_paused = true)]
async fn the_newer_stale_value_of_l2_stands_in() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).options(options()).await.unwrap();
    two.bus.mute(true);
    let _ = one.cache.set("key", 2).options(options()).await.unwrap();
    pass(secs(11)).await;
    let read = two.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
    let read = read.await.unwrap();
    assert_eq!((*read, read.meta().is_stale()), (2, true));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_stand_in_goes_on_growing() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        for age in [20, 60, 100] {
            pass(secs(if age == 20 { 20 } else { 40 })).await;
            let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
            let read = read.await.unwrap();
            assert_eq!((read.meta().age(), read.meta().source()), (secs(age), Source::FailSafe));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_may_switch_the_caches_fail_safe_off() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.default_options(options())).await;
    let _ = node.cache.set("key", 1).await.unwrap();
    pass(secs(11)).await;
    let off = options().no_fail_safe();
    let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(off);
    assert_eq!(kind_of(read.await), ErrorKind::Factory);
    let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>());
    assert!(read.await.unwrap().meta().is_stale(), "the default still holds");
}

/// A reader's own limit on the age of a fallback, stricter than the one it was stored with.
#[tokio::test(start_paused = true)]
async fn a_call_may_refuse_fallbacks_that_are_too_old_for_it() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        pass(secs(60)).await;
        let strict = FailSafe::for_up_to(secs(59));
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).fail_safe(strict);
        assert_eq!(kind_of(read.await), ErrorKind::Factory);
        let lenient = FailSafe::for_up_to(secs(61));
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).fail_safe(lenient);
        assert_eq!(*read.await.unwrap(), 1);
    }
}

/// Plain reads take no part in fail-safe: neither option of the other.
#[tokio::test(start_paused = true)]
async fn fail_safe_alone_does_not_make_a_get_answer_stale() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        pass(secs(11)).await;
        let read = cache.get::<i32>("key").options(options()).await.unwrap();
        assert!(read.is_none());
        let read = cache.get::<i32>("key").options(long().allow_stale(true)).await.unwrap();
        assert!(read.unwrap().meta().is_stale());
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_with_nothing_stored_is_the_callers() {
    let world = World::new().await;
    for cache in both(&world).await {
        let loads = Loads::new();
        for count in 1..=3 {
            let read = cache.get_or_set("key", loads.fail::<_, i32>()).options(options());
            let error = read.await.unwrap_err();
            assert_eq!(error.factory_error::<TestError>(), Some(&TestError::new()));
            assert_eq!(loads.count(), count, "an error is not cached, and nothing is throttled");
        }
        assert_eq!(any(&cache, "key").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_load_leaves_the_record_alone() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(secs(11)).await;
    for _ in 0..2 {
        let read = one.cache.get_or_set("key", Loads::new().fail::<_, i32>());
        assert_eq!(kind_of(read.await), ErrorKind::Factory);
    }
    assert_eq!(any(&two.cache, "key").await, Some(1));
}

/// The factory says no on purpose: the same path as any error.
#[tokio::test(start_paused = true)]
async fn a_factory_that_gives_up_gets_its_stale_value_answered() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        let _ = cache.expire("key").await.unwrap();
        let factory = |ctx: FactoryContext<i32>| async move {
            if ctx.stale().is_some() {
                return Err("not today".into());
            }
            ok(2)
        };
        let read = cache.get_or_set("key", factory).options(options()).await.unwrap();
        assert_eq!((*read, read.meta().source()), (1, Source::FailSafe));
    }
}

/// Another node is loading: stale at once for those who would rather not wait.
#[tokio::test(start_paused = true)]
async fn a_stale_value_is_answered_while_another_node_loads() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    pass(secs(11)).await;
    let gate = Gate::new();
    let leader = load(&one.cache, "key", &[], options(), gated(&gate, 2));
    gate.reached().await;
    let loads = Loads::new();
    let asked = Instant::now();
    let hasty = options().load_lock_wait(ms(200));
    let read = two.cache.get_or_set("key", loads.value(3)).options(hasty).await.unwrap();
    assert_eq!((*read, read.meta().is_stale(), loads.count()), (1, true, 0));
    assert_eq!(asked.elapsed(), ms(200));
    gate.open();
    assert_eq!(*leader.await.unwrap().unwrap(), 2);
    pass(SHORT).await;
    let read = two.cache.get_or_set("key", loads.value(3)).options(options()).await.unwrap();
    assert_eq!((*read, read.meta().is_stale(), loads.count()), (2, false, 0));
}

/// Values of other keys are nobody's fallback, and a fallback of one key throttles no other.
#[tokio::test(start_paused = true)]
async fn a_throttle_is_of_one_key() {
    let world = World::new().await;
    for cache in both(&world).await {
        for key in ["a", "b"] {
            let _ = cache.set(key, 1).options(options()).await.unwrap();
        }
        put(&cache, "c", 1, &[]).await;
        pass(secs(11)).await;
        let loads = Loads::new();
        for key in ["a", "b"] {
            let read = cache.get_or_set(key, loads.fail::<_, i32>()).options(options());
            assert!(read.await.unwrap().meta().is_stale());
        }
        assert_eq!(loads.count(), 2);
        assert_eq!(fresh(&cache, "c").await, Some(1));
    }
}
