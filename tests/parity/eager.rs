//! Eager refresh: values that are loaded again before their TTL ends.

use crinkle_core::{Cache, EagerRefresh, EntryOptions, ErrorKind, FailSafe};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{
    Loads, TestError, World, both, gated, kind_of, load, ms, options, pass, until,
};

use crate::{SHORT, any, fresh, put, secs};

/// Ten seconds, due at the eighth.
fn eager() -> EntryOptions {
    EntryOptions::new(secs(10)).eager_refresh(EagerRefresh::after(0.8))
}

async fn idle(cache: &Cache) {
    until("nothing is loading", || cache.health().in_flight == 0).await;
    pass(ms(1)).await;
}

/// A whole life in a cache without L2, and the threshold again in the next one.
#[tokio::test(start_paused = true)]
async fn a_refreshed_value_is_due_again_in_its_next_life() {
    let world = World::new().await;
    let cache = world.alone();
    let loads = Loads::new();
    let call = |value| cache.get_or_set("key", loads.value(value)).options(eager());
    assert_eq!(*call(1).await.unwrap(), 1);
    for life in 1..=3 {
        pass(ms(7_900)).await;
        assert_eq!(*call(9).await.unwrap(), life);
        idle(&cache).await;
        assert_eq!(loads.count(), usize::try_from(life).unwrap(), "not yet due");
        pass(ms(150)).await;
        assert_eq!(*call(life + 1).await.unwrap(), life);
        idle(&cache).await;
        assert_eq!(*call(9).await.unwrap(), life + 1);
    }
    assert_eq!(cache.stats().eager_refreshes, 3);
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
        assert_eq!(hit.await.unwrap().meta().tags().collect::<Vec<_>>(), ["a", "b"]);
        idle(&cache).await;
        let read = cache.peek::<i32>("key").unwrap();
        assert_eq!((*read, read.meta().tags().collect::<Vec<_>>()), (2, vec!["c", "d"]));
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

#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_removal_here_overtakes_brings_nothing_back() {
    for clear in [false, true] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let _ = one.cache.set("key", 1).tags(["tag"]).options(eager()).await.unwrap();
        pass(secs(9)).await;
        let gate = Gate::new();
        let hit = load(&one.cache, "key", &["tag"], eager(), gated(&gate, 2));
        assert_eq!(*hit.await.unwrap().unwrap(), 1);
        gate.reached().await;
        let _ = match clear {
            false => one.cache.remove_by_tag("tag").await.unwrap(),
            true => one.cache.remove_all().await.unwrap(),
        };
        pass(SHORT).await;
        gate.open();
        idle(&one.cache).await;
        for node in [&one, &two] {
            assert_eq!(any(&node.cache, "key").await, None, "clear {clear}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_a_set_overtakes_does_not_replace_it() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(eager()).await.unwrap();
        pass(secs(9)).await;
        let gate = Gate::new();
        let hit = load(&cache, "key", &[], eager(), gated(&gate, 2));
        hit.await.unwrap().unwrap();
        gate.reached().await;
        put(&cache, "key", 3, &[]).await;
        gate.open();
        idle(&cache).await;
        assert_eq!(fresh(&cache, "key").await, Some(3));
    }
}

/// Absence authorises nothing: nobody knows why the record is gone.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_outlives_its_record_is_not_stored() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for kept in [false, true] {
        let key = format!("key:{kept}");
        let chosen = eager().fail_safe(kept.then(FailSafe::default));
        let _ = one.cache.set(&key, 1).options(chosen.clone()).await.unwrap();
        pass(secs(9)).await;
        let gate = Gate::new();
        let hit = load(&one.cache, &key, &[], chosen.clone(), gated(&gate, 2));
        assert_eq!(*hit.await.unwrap().unwrap(), 1);
        gate.reached().await;
        pass(secs(2)).await;
        let loads = Loads::new();
        let late = load(&one.cache, &key, &[], chosen, loads.value(3));
        pass(ms(10)).await;
        gate.open();
        let expected = if kept { 2 } else { 3 };
        assert_eq!(
            (*late.await.unwrap().unwrap(), loads.count()),
            (expected, 1 - usize::from(kept))
        );
        pass(ms(50)).await;
        for node in [&one, &two] {
            assert_eq!(fresh(&node.cache, &key).await, Some(expected));
        }
    }
}
