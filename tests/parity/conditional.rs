//! Conditional refresh: a source that may say "not modified".

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use crinkle_core::{BoxError, Cache, ErrorKind, FactoryContext, NotModified, ok};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, World, both, kind_of, load, options, pass};

use crate::{SHORT, any, fresh, secs};

/// A source with an entity tag that follows from its value.
#[derive(Clone, Default)]
struct Endpoint {
    value: Arc<AtomicI32>,
    full: Arc<AtomicUsize>,
    conditional: Arc<AtomicUsize>,
    not_modified: Arc<AtomicUsize>,
}

impl Endpoint {
    fn new(value: i32) -> Self {
        let endpoint = Self::default();
        endpoint.value.store(value, Ordering::SeqCst);
        endpoint
    }

    /// How often it was asked with a tag, answered in full, and "not modified".
    fn counts(&self) -> [usize; 3] {
        [&self.conditional, &self.full, &self.not_modified].map(|n| n.load(Ordering::SeqCst))
    }

    async fn read(&self, cache: &Cache, tags: &[&str]) -> i32 {
        let endpoint = self.clone();
        let factory = |ctx: FactoryContext<i32>| async move {
            let value = endpoint.value.load(Ordering::SeqCst);
            let tag = format!("v{value}");
            if let Some(known) = ctx.etag() {
                endpoint.conditional.fetch_add(1, Ordering::SeqCst);
                if known == tag {
                    endpoint.not_modified.fetch_add(1, Ordering::SeqCst);
                    return ctx.not_modified::<BoxError>();
                }
            }
            endpoint.full.fetch_add(1, Ordering::SeqCst);
            ctx.set_etag(tag);
            ok(value)
        };
        let request = cache.get_or_set("key", factory).tags(tags.iter().copied());
        let read = request.options(options()).await.expect("an answer");
        assert!(!read.meta().is_stale());
        *read
    }
}

/// Upstream's five reads: four requests, three with a tag, two in full, two not modified.
#[tokio::test(start_paused = true)]
async fn what_was_not_modified_is_kept_for_another_life() {
    let world = World::new().await;
    for cache in both(&world).await {
        let endpoint = Endpoint::new(1);
        assert_eq!(endpoint.read(&cache, &[]).await, 1);
        assert_eq!(endpoint.read(&cache, &[]).await, 1, "a hit");
        for _ in 0..2 {
            pass(secs(11)).await;
            assert_eq!(endpoint.read(&cache, &[]).await, 1);
        }
        pass(secs(9)).await;
        assert!(cache.peek::<i32>("key").is_some(), "a whole life from the confirmation on");
        endpoint.value.store(42, Ordering::SeqCst);
        pass(secs(2)).await;
        assert_eq!(endpoint.read(&cache, &[]).await, 42);
        assert_eq!(endpoint.counts(), [3, 2, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_of_modification_is_kept_in_the_sources_words() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let said = "Wed, 21 Oct 2015 07:28:00 GMT";
    let first = move |ctx: FactoryContext<i32>| async move {
        assert_eq!((ctx.last_modified(), ctx.etag()), (None, None));
        ctx.set_last_modified(said);
        ok(1)
    };
    one.cache.get_or_set("key", first).options(options()).await.unwrap();
    pass(secs(11)).await;
    for node in [&two, &one] {
        let factory = move |ctx: FactoryContext<i32>| async move {
            assert_eq!((ctx.last_modified(), ctx.etag()), (Some(said), None));
            ctx.not_modified::<NotModified>()
        };
        assert_eq!(*node.cache.get_or_set("key", factory).options(options()).await.unwrap(), 1);
        pass(secs(11)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disabled_cache_has_nothing_to_confirm() {
    let factory = |ctx: FactoryContext<i32>| async move { ctx.not_modified::<NotModified>() };
    let disabled = Cache::disabled();
    assert_eq!(kind_of(disabled.get_or_set("key", factory).await), ErrorKind::Factory);
}

/// The call gives no tags: those of the confirmed value count.
#[tokio::test(start_paused = true)]
async fn a_confirmation_keeps_the_tags_that_were_there() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).tags(["old"]).options(options()).await.unwrap();
        pass(secs(11)).await;
        let factory = |ctx: FactoryContext<i32>| async move { ctx.not_modified::<NotModified>() };
        let read = cache.get_or_set("key", factory).options(options()).await.unwrap();
        assert_eq!(read.meta().tags().collect::<Vec<_>>(), ["old"]);
        let _ = cache.remove_by_tag("old").await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
    }
}

/// Upstream #638 the right way round: what a soft removal made stale may be confirmed, and is fresh
/// then for every node.
#[tokio::test(start_paused = true)]
async fn what_a_soft_removal_made_stale_may_be_confirmed_for_every_node() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let endpoint = Endpoint::new(1);
    assert_eq!(endpoint.read(&one.cache, &["tag"]).await, 1);
    let _ = two.cache.expire_by_tag("tag").await.unwrap();
    pass(SHORT).await;
    assert_eq!(endpoint.read(&one.cache, &["tag"]).await, 1);
    assert_eq!(endpoint.counts(), [1, 1, 1]);
    pass(SHORT).await;
    for node in [&one, &two] {
        assert_eq!(fresh(&node.cache, "key").await, Some(1));
    }
}

/// It began before the expiry: the confirmation is of something that is stale again.
#[tokio::test(start_paused = true)]
async fn a_confirmation_that_an_expiry_overtakes_is_not_fresh() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).tags(["tag"]).options(options()).await.unwrap();
        pass(secs(11)).await;
        let gate = Gate::new();
        let held = gate.clone();
        let factory = move |ctx: FactoryContext<i32>| async move {
            held.pass().await;
            ctx.not_modified::<BoxError>()
        };
        let early = load(&cache, "key", &["tag"], options(), factory);
        gate.reached().await;
        let _ = cache.expire_by_tag("tag").await.unwrap();
        gate.open();
        assert!(early.await.unwrap().unwrap().meta().is_stale());
        assert_eq!(fresh::<i32>(&cache, "key").await, None);
        assert_eq!(any(&cache, "key").await, Some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_value_is_the_same_value_in_memory() {
    let world = World::new().await;
    let cache = world.alone();
    let _ = cache.set("key", vec![1, 2, 3]).options(options()).await.unwrap();
    let before = cache.peek::<Vec<i32>>("key").unwrap();
    pass(secs(11)).await;
    let factory = |ctx: FactoryContext<Vec<i32>>| async move { ctx.not_modified::<NotModified>() };
    let after = cache.get_or_set("key", factory).options(options()).await.unwrap();
    assert!(std::ptr::eq(&raw const *before, &raw const *after), "nothing is cloned");
    assert_eq!(after.meta().age(), secs(0));
}

/// A factory that was wrong about it answers like any that fails.
#[tokio::test(start_paused = true)]
async fn an_error_after_all_is_a_failure_like_any_other() {
    let world = World::new().await;
    for cache in both(&world).await {
        let endpoint = Endpoint::new(1);
        assert_eq!(endpoint.read(&cache, &[]).await, 1);
        pass(secs(11)).await;
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        assert!(read.await.unwrap().meta().is_stale());
        pass(secs(31)).await;
        assert_eq!(endpoint.read(&cache, &[]).await, 1);
        assert_eq!(endpoint.counts(), [1, 1, 1], "its validators are still there");
    }
}
