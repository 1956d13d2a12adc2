//! Conditional refresh: the source says that the stale value is still the current one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crinkle_core::{BoxError, Cached, ErrorKind, FactoryContext, NotModified, Source};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Boxed, World, go, options, pass};

/// A source with an entity tag per revision; counts full and empty answers.
#[derive(Clone, Default)]
struct Pages {
    revision: Arc<AtomicUsize>,
    full: Arc<AtomicUsize>,
    empty: Arc<AtomicUsize>,
}

impl Pages {
    fn fetch(&self) -> impl FnOnce(FactoryContext<String>) -> Boxed<String> + Send + 'static {
        let this = self.clone();
        move |ctx| {
            Box::pin(async move {
                let etag = format!("\"{}\"", this.revision.load(Ordering::SeqCst));
                if ctx.etag() == Some(&etag) {
                    this.empty.fetch_add(1, Ordering::SeqCst);
                    return ctx.not_modified();
                }
                this.full.fetch_add(1, Ordering::SeqCst);
                ctx.set_etag(&etag);
                ctx.set_last_modified(format!("at {etag}"));
                Ok(format!("page {etag}"))
            })
        }
    }

    fn counts(&self) -> (usize, usize) {
        (self.full.load(Ordering::SeqCst), self.empty.load(Ordering::SeqCst))
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_value_gets_a_new_life_on_every_node() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let pages = Pages::default();
    let read = |node: &crinkle_tests::Node| {
        let (cache, fetch) = (node.cache.clone(), pages.fetch());
        async move { cache.get_or_set("page", fetch).tags(["t"]).options(options()).await.unwrap() }
    };
    assert_eq!(*read(&one).await, "page \"0\"");
    pass(Duration::from_secs(11)).await;
    // The other node has the entity tag from L2.
    let confirmed: Cached<String> = read(&two).await;
    assert_eq!((confirmed.as_str(), pages.counts()), ("page \"0\"", (1, 1)));
    assert_eq!((confirmed.meta().source(), confirmed.meta().is_stale()), (Source::Factory, false));
    assert!(confirmed.meta().tags().eq(["t"]));
    pass(Duration::from_secs(9)).await;
    assert_eq!(read(&one).await.meta().source(), Source::L2, "the new life is in L2");
    pass(Duration::from_secs(2)).await;
    assert_eq!((read(&one).await.as_str(), pages.counts()), ("page \"0\"", (1, 2)));
    pages.revision.store(1, Ordering::SeqCst);
    pass(Duration::from_secs(11)).await;
    assert_eq!((read(&two).await.as_str(), pages.counts()), ("page \"1\"", (2, 2)));
    assert_eq!(Cached::into_inner(read(&two).await), "page \"1\"");
}

#[tokio::test(start_paused = true)]
async fn an_expired_value_is_offered_for_confirmation_even_without_fail_safe() {
    let world = World::new().await;
    let node = world.node().await;
    let pages = Pages::default();
    let _ = node.cache.get_or_set("page", pages.fetch()).await.unwrap();
    node.cache.expire("page").await.unwrap();
    let read = node.cache.get_or_set("page", pages.fetch()).await.unwrap();
    assert_eq!((read.meta().is_stale(), pages.counts()), (false, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_removed_value_is_not_offered() {
    let world = World::new().await;
    let node = world.node().await;
    let pages = Pages::default();
    let read = || node.cache.get_or_set("page", pages.fetch()).tags(["t"]).options(options());
    let _ = read().await.unwrap();
    node.cache.remove_by_tag("t").await.unwrap();
    let _ = read().await.unwrap();
    node.cache.remove("page").await.unwrap();
    let _ = read().await.unwrap();
    assert_eq!(pages.counts(), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_stale_value_not_modified_is_a_failure_that_says_so() {
    let world = World::new().await;
    let node = world.node().await;
    let factory = |ctx: FactoryContext<i32>| async move { ctx.not_modified::<BoxError>() };
    let error = node.cache.get_or_set("key", factory).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Factory);
    assert!(error.factory_error::<NotModified>().is_some(), "{error}");
    assert!(error.to_string().contains("no stale value"), "{error}");
}

/// Trap 12: confirmed is what was there when the factory began; a removal since is newer than that.
#[tokio::test(start_paused = true)]
async fn a_value_that_is_removed_while_it_is_confirmed_is_not_kept() {
    for by_tag in [true, false] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let (gate, cache) = (Gate::new(), one.cache.clone());
        one.cache.set("key", 1).tags(["t"]).options(options()).await.unwrap();
        pass(Duration::from_secs(11)).await;
        let at = gate.clone();
        let read = go(async move {
            let factory = |ctx: FactoryContext<i32>| async move {
                at.pass().await;
                ctx.not_modified::<BoxError>()
            };
            cache.get_or_set("key", factory).options(options()).await
        });
        gate.reached().await;
        match by_tag {
            true => two.cache.remove_by_tag("t").await.unwrap(),
            false => two.cache.remove("key").await.unwrap(),
        };
        pass(Duration::from_millis(10)).await;
        gate.open();
        let _ = read.await.unwrap();
        for node in [&one, &two] {
            assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
        }
        assert_eq!(world.store.keys().contains(&World::record("key")), by_tag, "hidden, or gone");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_confirming_run_sets_replaces_what_was_there() {
    let world = World::new().await;
    let node = world.node().await;
    node.cache.set("key", 1).tags(["old"]).options(options()).await.unwrap();
    node.cache.expire("key").await.unwrap();
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.set_tags(["new"]);
        ctx.set_duration(Duration::from_secs(60));
        ctx.not_modified::<BoxError>()
    };
    let read = node.cache.get_or_set("key", factory).options(options()).await.unwrap();
    assert!(read.meta().tags().eq(["new"]));
    pass(Duration::from_secs(30)).await;
    assert!(node.cache.get::<i32>("key").await.unwrap().is_some());
}
