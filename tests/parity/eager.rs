//! Eager refresh: values that are loaded anew before their life is over.

use crinkle_core::{Cache, EagerRefresh, EntryOptions, ErrorKind, FailSafe, Source};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, TestError, World, gated, kind_of, load, options, pass, until};
use tokio::time::Instant;

use crate::{SHORT, any, both, fresh, ms, secs};

/// Ten seconds, due at the eighth.
pub(crate) fn eager() -> EntryOptions {
    EntryOptions::new(secs(10)).eager_refresh(EagerRefresh::after(0.8))
}

pub(crate) async fn idle(cache: &Cache) {
    until("nothing is loading", || cache.health().in_flight == 0).await;
    pass(ms(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_due_value_is_answered_at_once_and_loaded_anew_behind_it() {
    let world = World::new().await;
    for cache in both(&world).await {
        let loads = Loads::new();
        let call = |value| cache.get_or_set("key", loads.value(value)).options(eager());
        assert_eq!(*call(1).await.unwrap(), 1);
        pass(ms(7_900)).await;
        assert_eq!((*call(2).await.unwrap(), loads.count()), (1, 1), "not yet due");
        pass(ms(200)).await;
        let read = call(3).await.unwrap();
        assert_eq!((*read, read.is_stale(), read.source()), (1, false, Source::L1));
        idle(&cache).await;
        assert_eq!((*call(4).await.unwrap(), loads.count()), (3, 2));
        assert_eq!(cache.stats().eager_refreshes, 1);
        // Due again, in its second life.
        pass(ms(8_100)).await;
        assert_eq!(*call(5).await.unwrap(), 3);
        idle(&cache).await;
        assert_eq!((*call(6).await.unwrap(), loads.count()), (5, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_eager_refresh_and_there_is_only_one() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(eager()).await.unwrap();
        pass(ms(8_500)).await;
        let (gate, loads) = (Gate::new(), Loads::new());
        let asked = Instant::now();
        for _ in 0..1_000 {
            let read = cache.get_or_set("key", loads.gated(&gate, 2)).options(eager());
            assert_eq!(*read.await.unwrap(), 1);
        }
        assert_eq!(asked.elapsed(), secs(0));
        gate.reached().await;
        gate.open();
        idle(&cache).await;
        assert_eq!((fresh(&cache, "key").await, loads.count()), (Some(2), 1));
    }
}

/// Reads without a factory have nothing to refresh with.
#[tokio::test(start_paused = true)]
async fn plain_reads_of_a_due_value_refresh_nothing() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(eager()).await.unwrap();
        pass(secs(9)).await;
        assert_eq!(fresh(&cache, "key").await, Some(1));
        assert!(cache.peek::<i32>("key").is_some());
        idle(&cache).await;
        assert_eq!(cache.stats().eager_refreshes, 0);
        let loads = Loads::new();
        let read = cache.get_or_set("key", loads.value(2)).options(eager()).await.unwrap();
        assert_eq!(*read, 1);
        idle(&cache).await;
        assert_eq!(loads.count(), 1, "it is still due for the next who can");
    }
}

/// FusionCache does not try again before the life is over; here the throttle says when.
#[tokio::test(start_paused = true)]
async fn a_failed_refresh_costs_nothing_and_is_throttled() {
    let world = World::new().await;
    for cache in both(&world).await {
        let slow = EntryOptions::new(secs(600)).eager_refresh(EagerRefresh::after(0.1));
        let _ = cache.set("key", 1).options(slow.clone()).await.unwrap();
        pass(secs(61)).await;
        let loads = Loads::new();
        for seconds in [0, 10, 19, 2] {
            pass(secs(seconds)).await;
            let read = cache.get_or_set("key", loads.fail::<_, i32>()).options(slow.clone());
            let read = read.await.unwrap();
            assert_eq!((*read, read.is_stale()), (1, false));
            idle(&cache).await;
            assert_eq!(loads.count(), if seconds == 2 { 2 } else { 1 });
        }
        assert_eq!(cache.stats().factory_failures, 2);
    }
}

/// Another node has refreshed already, and this one has not heard: L2 is asked before the source.
/// A value is due on all nodes at once; one of them loads.
/// The value dies while it is being refreshed: who comes then waits for that load.
#[tokio::test(start_paused = true)]
async fn a_miss_waits_for_the_refresh_that_is_under_way() {
    let world = World::new().await;
    // Without a fallback the record ends in L2, and the refresh has nothing left to replace there.
    let kept = || eager().fail_safe(FailSafe::default());
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(kept()).await.unwrap();
        pass(secs(9)).await;
        let (gate, loads) = (Gate::new(), Loads::new());
        let hit = cache.get_or_set("key", loads.gated(&gate, 2)).options(kept());
        assert_eq!(*hit.await.unwrap(), 1);
        gate.reached().await;
        pass(secs(2)).await;
        let miss = load(&cache, "key", &[], kept(), loads.value(3));
        pass(SHORT).await;
        assert!(!miss.is_finished());
        gate.open();
        let read = miss.await.unwrap().unwrap();
        assert_eq!((*read, loads.count()), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_goes_on_when_its_caller_is_gone() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(eager()).await.unwrap();
        pass(secs(9)).await;
        let gate = Gate::new();
        let caller = load(&cache, "key", &[], eager(), gated(&gate, 2));
        gate.reached().await;
        caller.abort();
        gate.open();
        idle(&cache).await;
        assert_eq!(fresh(&cache, "key").await, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_gives_the_value_its_new_tags() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).tags(["a", "b"]).options(eager()).await.unwrap();
        pass(secs(9)).await;
        let hit = cache.get_or_set("key", Loads::new().value(2)).tags(["c", "d"]).options(eager());
        assert_eq!(hit.await.unwrap().tags().collect::<Vec<_>>(), ["a", "b"]);
        idle(&cache).await;
        let read = cache.peek::<i32>("key").unwrap();
        assert_eq!((*read, read.tags().collect::<Vec<_>>()), (2, vec!["c", "d"]));
        let _ = cache.remove_by_tag("c").await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
    }
}

/// Upstream #628: what an eager refresh read before the removal comes back after it, valid.
/// L2 is away: the source is asked all the same, and what it says is used here.
/// A factory of a flight that fails in the background is nobody's error, panics included.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_panics_leaves_the_value() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(eager()).await.unwrap();
        pass(secs(9)).await;
        let panics = |_| -> std::future::Ready<Result<i32, TestError>> { panic!("no") };
        assert_eq!(*cache.get_or_set("key", panics).options(eager()).await.unwrap(), 1);
        idle(&cache).await;
        assert_eq!(fresh(&cache, "key").await, Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_without_end_may_be_refreshed_eagerly() {
    let world = World::new().await;
    for cache in both(&world).await {
        let endless = options().duration(std::time::Duration::MAX);
        let endless = endless.eager_refresh(EagerRefresh::after(0.5));
        let loads = Loads::new();
        for _ in 0..3 {
            let read = cache.get_or_set("key", loads.value(1)).options(endless.clone());
            assert_eq!(*read.await.unwrap(), 1);
        }
        assert_eq!(loads.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_threshold_out_of_range_is_refused_by_name() {
    let world = World::new().await;
    let cache = world.alone();
    let wrong = [
        EagerRefresh::after(0.0),
        EagerRefresh::after(1.0),
        EagerRefresh::after(f64::NAN),
        EagerRefresh::probabilistic(0.0),
        EagerRefresh::probabilistic(f64::INFINITY),
    ];
    for eager_refresh in wrong {
        let options = EntryOptions::default().eager_refresh(eager_refresh);
        let read = cache.get_or_set("key", Loads::new().value(1)).options(options).await;
        assert!(read.as_ref().unwrap_err().to_string().contains("eager_refresh"));
        assert_eq!(kind_of(read), ErrorKind::InvalidOptions);
    }
}
