//! The operations one by one, in a cache without L2 and in one with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crinkle_core::l2::NoCodec;
use crinkle_core::{Cache, Cached, ErrorKind, FactoryContext, Source, WriteStatus, ok};
use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, World, both, long, options, pass};

use crate::{any, fresh, load_or, put, secs};

#[tokio::test(start_paused = true)]
async fn a_miss_loads_stores_and_the_next_call_is_a_hit() {
    let world = World::new().await;
    for cache in both(&world).await {
        let loads = Loads::new();
        let first = cache.get_or_set("key", loads.value(1)).await.unwrap();
        assert_eq!((*first, first.meta().source()), (1, Source::Factory));
        let second = cache.get_or_set("key", loads.value(2)).await.unwrap();
        assert_eq!((*second, second.meta().source(), loads.count()), (1, Source::L1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_replaces_value_tags_and_life() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "key", 1, &["old"]).await;
        let second = cache.set("key", 2).tags(["new"]).duration(secs(5));
        let _ = second.await.unwrap();
        let read = cache.get::<i32>("key").await.unwrap().unwrap();
        assert_eq!((*read, read.meta().tags().collect::<Vec<_>>()), (2, vec!["new"]));
        let _ = cache.remove_by_tag("old").await.unwrap();
        assert_eq!(fresh(&cache, "key").await, Some(2), "the old tag is not its tag any more");
        pass(secs(6)).await;
        assert_eq!(fresh::<i32>(&cache, "key").await, None, "the old life is not its life");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_is_loaded_again_and_its_neighbour_is_not() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "key", 1, &[]).await;
        put(&cache, "neighbour", 1, &[]).await;
        let _ = cache.remove("key").await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
        assert_eq!(*cache.get_or("key", 7).await.unwrap(), 7);
        assert_eq!(load_or(&cache, "key", 2, &[]).await, (2, true));
        assert_eq!(load_or(&cache, "neighbour", 2, &[]).await, (1, false));
    }
}

#[tokio::test(start_paused = true)]
async fn removing_and_expiring_what_is_not_there_leaves_nothing_behind() {
    let world = World::new().await;
    let node = world.node().await;
    for cache in [world.alone(), node.cache.clone()] {
        assert!(cache.remove("key").await.unwrap().is_propagated());
        assert!(cache.expire("key").await.unwrap().is_propagated());
        assert_eq!(any(&cache, "key").await, None);
        assert_eq!(cache.entry_count(), 0);
    }
    assert!(world.store.keys().is_empty());
}

/// FusionCache deletes the key in L2 and keeps memory that nobody can use; here it is marked.
#[tokio::test(start_paused = true)]
async fn an_expired_key_is_absent_but_for_those_who_allow_stale() {
    let world = World::new().await;
    for cache in both(&world).await {
        for fail_safe in [false, true] {
            let chosen = if fail_safe { options() } else { long() };
            let _ = cache.set("key", 1).options(chosen).await.unwrap();
            let _ = cache.expire("key").await.unwrap();
            assert_eq!(fresh::<i32>(&cache, "key").await, None);
            assert!(cache.peek::<i32>("key").is_none());
            let read = cache.get::<i32>("key").allow_stale().await.unwrap().unwrap();
            assert_eq!((*read, read.meta().is_stale()), (1, true));
            assert_eq!(load_or(&cache, "key", 2, &[]).await, (2, true));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_after_an_expire_or_a_remove_is_fresh_at_once() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "key", 1, &[]).await;
        let _ = cache.expire("key").await.unwrap();
        put(&cache, "key", 2, &[]).await;
        assert_eq!(fresh(&cache, "key").await, Some(2));
        let _ = cache.remove("key").await.unwrap();
        put(&cache, "key", 3, &[]).await;
        assert_eq!(fresh(&cache, "key").await, Some(3));
    }
}

/// The tags and options of a call are for what it loads, not for what it finds.
#[tokio::test(start_paused = true)]
async fn a_hit_keeps_the_tags_and_the_life_it_was_stored_with() {
    let world = World::new().await;
    for cache in both(&world).await {
        let first = cache.set("key", 1).tags(["stored"]).duration(secs(10));
        let _ = first.await.unwrap();
        let other = cache.get_or_set("key", Loads::new().value(2)).tags(["asked"]);
        let read = other.duration(secs(600)).await.unwrap();
        assert_eq!(read.meta().tags().collect::<Vec<_>>(), ["stored"]);
        let _ = cache.remove_by_tag("asked").await.unwrap();
        assert_eq!(fresh(&cache, "key").await, Some(1));
        pass(secs(11)).await;
        assert_eq!(fresh::<i32>(&cache, "key").await, None);
    }
}

/// No copy is made, so none is needed: there is nothing to auto-clone.
#[tokio::test(start_paused = true)]
async fn every_reader_holds_the_same_value_in_memory() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", vec![1, 2, 3]).await.unwrap();
        let one = cache.get::<Vec<i32>>("key").await.unwrap().unwrap();
        let two = cache.peek::<Vec<i32>>("key").unwrap();
        let three = cache.get_or_set("key", Loads::new().value(vec![4])).await.unwrap();
        assert!(std::ptr::eq(&raw const *one, &raw const *two));
        assert!(std::ptr::eq(&raw const *one, &raw const *three));
        let mut own = Cached::into_inner(one);
        own.push(4);
        assert_eq!(*two, [1, 2, 3], "what a reader takes out is its own");
    }
}

#[derive(Clone)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A value with something to release is released when its last holder lets go, and not before.
#[tokio::test(start_paused = true)]
async fn a_value_lives_as_long_as_somebody_holds_it() {
    let cache = Cache::builder("shop").codec(NoCodec).build().unwrap();
    let drops = Arc::new(AtomicUsize::new(0));
    let _ = cache.set("key", Counted(Arc::clone(&drops))).await.unwrap();
    let held = cache.get::<Counted>("key").await.unwrap().unwrap();
    let _ = cache.remove("key").await.unwrap();
    assert_eq!(cache.entry_count(), 0);
    assert_eq!(held.0.load(Ordering::SeqCst), 0, "a reader still holds it");
    drop(held);
    // L1 lets go of what it has dropped a little later, as it is used.
    for number in 0..10_000 {
        if drops.load(Ordering::SeqCst) == 1 {
            return;
        }
        let _ = cache.set("other", number).await.unwrap();
        let _ = cache.entry_count();
        tokio::task::yield_now().await;
    }
    panic!("it was never released");
}

#[tokio::test(start_paused = true)]
async fn a_factory_sees_the_key_without_the_caches_prefix() {
    let world = World::new().await;
    let node = world.node_with(|builder| builder.key_prefix("prefix:")).await;
    let factory = |ctx: FactoryContext<String>| async move { ok(ctx.key().to_owned()) };
    let read = node.cache.get_or_set("key", factory).await.unwrap();
    assert_eq!((read.as_str(), read.meta().key()), ("key", "key"));
    assert_eq!(world.store.keys(), ["prefix:v1:e:key"]);
}

#[tokio::test(start_paused = true)]
async fn get_or_answers_what_another_node_stored() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &[]).await;
    let read = two.cache.get_or("key", 7).await.unwrap();
    assert_eq!((*read, read.meta().source()), (1, Source::L2));
    let error = two.cache.get_or("key", "text".to_owned()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
}

/// A factory may use the cache it loads for, other keys of it at least.
#[tokio::test(start_paused = true)]
async fn a_factory_may_read_and_load_other_keys() {
    let world = World::new().await;
    for cache in both(&world).await {
        let inner = cache.clone();
        let sum = cache.get_or_set("sum", move |_| async move {
            let one = inner.get_or_set("one", |_| async { ok(1) }).await?;
            let _ = inner.set("two", 2).await?;
            let two = inner.get::<i32>("two").await?.map_or(0, |two| *two);
            ok(*one + two)
        });
        assert_eq!(*sum.await.unwrap(), 3);
        assert_eq!(cache.peek::<i32>("one").as_deref(), Some(&1));
    }
}

#[tokio::test(start_paused = true)]
async fn reading_what_is_there_writes_nothing() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &["tag"]).await;
    for node in [&one, &two] {
        node.l2.forget();
        assert_eq!(load_or(&node.cache, "key", 2, &["tag"]).await, (1, false));
        assert_eq!(any(&node.cache, "key").await, Some(1));
        let writes = [L2Op::Put, L2Op::Set, L2Op::Remove, L2Op::Expire, L2Op::Advance];
        assert_eq!(writes.map(|op| node.l2.count(op)), [0; 5]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_write_costs_one_call_of_l2() {
    let world = World::new().await;
    let node = world.node().await;
    let cost = |op| (node.l2.count(op), node.l2.writes().len());
    node.l2.forget();
    assert_eq!(cache_write(&node.cache, L2Op::Set).await, WriteStatus::Done);
    assert_eq!(cost(L2Op::Set), (1, 1));
    for op in [L2Op::Expire, L2Op::Remove, L2Op::Advance] {
        node.l2.forget();
        assert_eq!(cache_write(&node.cache, op).await, WriteStatus::Done);
        assert_eq!(cost(op), (1, 1), "{op:?}");
    }
    node.l2.forget();
    assert_eq!(load_or(&node.cache, "loaded", 1, &[]).await, (1, true));
    assert_eq!((node.l2.count(L2Op::Read), node.l2.count(L2Op::Put)), (1, 1), "ask, then fill");
}

async fn cache_write(cache: &Cache, op: L2Op) -> WriteStatus {
    let receipt = match op {
        L2Op::Set => cache.set("key", 1).await,
        L2Op::Expire => cache.expire("key").await,
        L2Op::Remove => cache.remove("key").await,
        _ => cache.remove_by_tag("tag").await,
    };
    receipt.expect("no trouble").l2()
}
