//! What a factory decides about the entry it makes, from the value it has found.

use crinkle_core::{EntryOptions, FactoryContext, FailSafe, ok};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, TestError, World, both, load, long, options, pass, until};

use crate::{any, fresh, load_or, secs};

#[tokio::test(start_paused = true)]
async fn a_life_may_follow_from_the_value() {
    let world = World::new().await;
    for cache in both(&world).await {
        for (key, value) in [("empty", None), ("full", Some(1))] {
            let factory = move |ctx: FactoryContext<Option<i32>>| async move {
                ctx.set_duration(if value.is_some() { secs(100) } else { secs(5) });
                ok(value)
            };
            cache.get_or_set(key, factory).await.unwrap();
        }
        pass(secs(6)).await;
        assert_eq!(fresh::<Option<i32>>(&cache, "empty").await, None);
        assert_eq!(fresh(&cache, "full").await, Some(Some(1)));
        pass(secs(90)).await;
        assert_eq!(fresh(&cache, "full").await, Some(Some(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_factory_chooses_changes_nobody_elses_options() {
    let world = World::new().await;
    let chosen = options();
    let node = world.node_with(|builder| builder.default_options(chosen.clone())).await;
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.set_options(EntryOptions::new(secs(1)));
        ok(1)
    };
    node.cache.get_or_set("first", factory).await.unwrap();
    let _ = node.cache.set("second", 1).await.unwrap();
    pass(secs(9)).await;
    assert_eq!(any(&node.cache, "first").await, None, "a life of a second, and no fail-safe");
    assert_eq!(fresh(&node.cache, "second").await, Some(1));
    pass(secs(2)).await;
    assert_eq!(any(&node.cache, "second").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_factory_may_make_its_entry_a_fallback() {
    let world = World::new().await;
    for cache in both(&world).await {
        let factory = |ctx: FactoryContext<i32>| async move {
            ctx.set_options(options());
            ok(1)
        };
        cache.get_or_set("key", factory).options(EntryOptions::new(secs(1))).await.unwrap();
        pass(secs(60)).await;
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        assert_eq!(*read.await.unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_factory_may_weigh_its_entry() {
    let cache = crinkle_core::Cache::builder("shop").capacity(10).build().unwrap();
    for number in 0..9 {
        load_or(&cache, &number.to_string(), number, &[]).await;
    }
    let factory = |ctx: FactoryContext<i32>| async move {
        ctx.set_options(long().weight(9));
        ok(1)
    };
    cache.get_or_set("heavy", factory).await.unwrap();
    assert_eq!(cache.entry_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_load_does_not_inherit_the_tags_of_the_value_before() {
    let world = World::new().await;
    for cache in both(&world).await {
        load_or(&cache, "key", 1, &["old"]).await;
        let _ = cache.expire("key").await.unwrap();
        assert_eq!(load_or(&cache, "key", 2, &["new"]).await, (2, true));
        let _ = cache.remove_by_tag("old").await.unwrap();
        assert_eq!(fresh(&cache, "key").await, Some(2));
        let _ = cache.remove_by_tag("new").await.unwrap();
        assert_eq!(any(&cache, "key").await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_factory_may_take_all_tags_away() {
    let world = World::new().await;
    for cache in both(&world).await {
        let factory = |ctx: FactoryContext<i32>| async move {
            ctx.set_tags(Vec::<String>::new());
            ok(1)
        };
        let read = cache.get_or_set("key", factory).tags(["given"]).await.unwrap();
        assert_eq!(read.meta().tags().count(), 0);
        let _ = cache.remove_by_tag("given").await.unwrap();
        assert_eq!(fresh(&cache, "key").await, Some(1));
    }
}

/// The tags of the value before are there to be carried over.
#[tokio::test(start_paused = true)]
async fn a_factory_sees_the_tags_and_the_age_of_the_stale_value() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).tags(["kept"]).options(options()).await.unwrap();
        pass(secs(15)).await;
        let factory = |ctx: FactoryContext<i32>| async move {
            let stale = ctx.stale().ok_or("there should be one")?.clone();
            assert!(stale.meta().is_stale() && stale.meta().age() == secs(15));
            ctx.set_tags(stale.meta().tags());
            ok(*stale + 1)
        };
        let read = cache.get_or_set("key", factory).options(options()).await.unwrap();
        assert_eq!((*read, read.meta().tags().collect::<Vec<_>>()), (2, vec!["kept"]));
    }
}

/// What was made stale may be revalidated; what was removed is not shown.
#[tokio::test(start_paused = true)]
async fn a_factory_is_shown_what_may_stand_in_and_nothing_else() {
    let world = World::new().await;
    for cache in both(&world).await {
        for (how, shown) in [("expire", true), ("expire_by_tag", true), ("clear", true)]
            .into_iter()
            .chain([("remove", false), ("remove_by_tag", false), ("clear_hard", false)])
        {
            let _ = cache.set("key", 1).tags(["tag"]).options(options()).await.unwrap();
            let _ = match how {
                "expire" => cache.expire("key").await.unwrap(),
                "expire_by_tag" => cache.expire_by_tag("tag").await.unwrap(),
                "clear" => cache.expire_all().await.unwrap(),
                "remove" => cache.remove("key").await.unwrap(),
                "remove_by_tag" => cache.remove_by_tag("tag").await.unwrap(),
                _ => cache.remove_all().await.unwrap(),
            };
            let factory = |ctx: FactoryContext<i32>| async move {
                ok(if ctx.stale().is_some() { 10 } else { 20 })
            };
            let read = cache.get_or_set("key", factory).options(options()).await.unwrap();
            assert_eq!(*read == 10, shown, "{how}");
        }
    }
}

/// What is not stored is still one load for all who wait for it.
#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_kept_is_shared_by_those_who_wait_for_it() {
    let world = World::new().await;
    for cache in both(&world).await {
        let gate = Gate::new();
        let held = gate.clone();
        let leader = load(&cache, "key", &[], long(), move |ctx| async move {
            ctx.skip_store();
            held.pass().await;
            ok(1)
        });
        gate.reached().await;
        let loads = Loads::new();
        let waiters: Vec<_> =
            (0..10).map(|_| load(&cache, "key", &[], long(), loads.value(2))).collect();
        until("they have joined", || cache.stats().joined == 10).await;
        gate.open();
        for caller in waiters.into_iter().chain([leader]) {
            assert_eq!(*caller.await.unwrap().unwrap(), 1);
        }
        assert_eq!(loads.count(), 0);
        assert_eq!(any(&cache, "key").await, None);
    }
}

/// A refresh that keeps nothing leaves the stale value where it is.
#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_kept_replaces_nothing() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        pass(secs(11)).await;
        let factory = |ctx: FactoryContext<i32>| async move {
            ctx.skip_store();
            ok(2)
        };
        assert_eq!(*cache.get_or_set("key", factory).options(options()).await.unwrap(), 2);
        let read = cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(options());
        let read = read.await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, true));
    }
}

/// A factory knows best when to ask again: after what it has seen of the failure.
#[tokio::test(start_paused = true)]
async fn a_failing_factory_may_set_the_throttle() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("key", 1).options(options()).await.unwrap();
        pass(secs(11)).await;
        let factory = |ctx: FactoryContext<i32>| async move {
            let hour = FailSafe::for_up_to(secs(3600));
            ctx.set_options(options().fail_safe(hour.throttle(secs(2))));
            Err::<i32, _>(TestError::new())
        };
        let read = cache.get_or_set("key", factory).options(options()).await.unwrap();
        assert!(read.meta().is_stale());
        let loads = Loads::new();
        let read = cache.get_or_set("key", loads.value(2)).options(options()).await.unwrap();
        assert!(read.meta().is_stale());
        pass(secs(3)).await;
        let read = cache.get_or_set("key", loads.value(2)).options(options()).await.unwrap();
        assert_eq!((*read, loads.count()), (2, 1), "two seconds, not thirty");
    }
}
