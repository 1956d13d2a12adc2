//! Building, sharing, closing: what a handle is, and what is left when it is gone.

use crinkle_core::{Cache, ErrorKind, WriteStatus, ok};
use crinkle_testkit::chaos::Gate;
use crinkle_tests::{Loads, World, both, gated, go, kind_of, load, long, ms, options, pass, until};
use tokio::time::{Instant, timeout};

use crate::{fresh, put, secs};

#[tokio::test(start_paused = true)]
async fn clones_are_the_same_cache() {
    let world = World::new().await;
    for cache in both(&world).await {
        let clone = cache.clone();
        put(&cache, "key", 1, &["tag"]).await;
        assert_eq!(clone.peek::<i32>("key").as_deref(), Some(&1));
        let _ = clone.remove_by_tag("tag").await.unwrap();
        assert!(cache.peek::<i32>("key").is_none());
        assert_eq!((cache.name(), clone.name()), ("shop", "shop"));
    }
}

#[tokio::test(start_paused = true)]
async fn building_asks_nobody_and_waits_for_nobody() {
    let world = World::new().await;
    let began = Instant::now();
    let node = world.cold(
        |builder| builder,
        |l2, bus| {
            l2.hang();
            bus.cut();
        },
    );
    assert_eq!(node.l2.calls(), []);
    assert_eq!(began.elapsed(), secs(0));
    put(&world.alone(), "key", 1, &[]).await;
    assert_eq!(*node.cache.get_or_set("key", Loads::new().value(2)).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_background_ends_with_the_last_handle() {
    let world = World::new().await;
    let node = world.node().await;
    let clone = node.cache.clone();
    drop(node.cache);
    node.l2.forget();
    pass(secs(5)).await;
    assert!(node.l2.calls().len() >= 4, "a clone keeps it polling");
    drop(clone);
    pass(secs(2)).await;
    node.l2.forget();
    pass(secs(60)).await;
    assert_eq!(node.l2.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_background_and_may_be_repeated() {
    let world = World::new().await;
    for cache in both(&world).await {
        cache.close().await.unwrap();
        cache.close().await.unwrap();
    }
    let node = world.node().await;
    node.cache.close().await.unwrap();
    node.l2.forget();
    pass(secs(60)).await;
    assert_eq!(node.l2.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn a_closed_cache_loads_nothing() {
    let world = World::new().await;
    for cache in both(&world).await {
        let clone = cache.clone();
        cache.close().await.unwrap();
        let loads = Loads::new();
        let read = clone.get_or_set("key", loads.value(1)).await;
        assert_eq!((kind_of(read), loads.count()), (ErrorKind::Closed, 0));
    }
}

/// Nobody tells a closed cache what changes, so it answers nothing, whatever it held.
#[tokio::test(start_paused = true)]
async fn every_read_of_a_closed_cache_is_an_error() {
    let world = World::new().await;
    let other = world.node().await;
    for cache in both(&world).await {
        for (key, options) in [("key", long()), ("pinned", long().pinned(true))] {
            let _ = cache.set(key, 1).options(options).await.unwrap();
            assert_eq!(cache.peek::<i32>(key).as_deref(), Some(&1));
        }
        cache.close().await.unwrap();
        let _ = other.cache.set("key", 2).options(long()).await.unwrap();
        for key in ["key", "pinned", "absent"] {
            assert!(cache.peek::<i32>(key).is_none());
            let loads = Loads::new();
            let one = [key];
            let many = cache.get_or_set_many(one, |_| async { ok([("key".to_owned(), 3)]) });
            let errors = [
                cache.get::<i32>(key).await.map(drop).unwrap_err(),
                cache.get::<i32>(key).allow_stale().skip_l2_read(true).await.map(drop).unwrap_err(),
                cache.get::<i32>(key).strict().await.map(drop).unwrap_err(),
                cache.get_or(key, 3).await.map(drop).unwrap_err(),
                cache.get_or_set(key, loads.value(3)).await.map(drop).unwrap_err(),
                cache.get_or_set(key, loads.value(3)).fail_safe_default(4).await.unwrap_err(),
                cache.get_many::<i32>(one).await.map(drop).unwrap_err(),
                many.await.map(drop).unwrap_err(),
                cache.contains(key).await.map(drop).unwrap_err(),
                cache.warm::<i32>(one).await.map(drop).unwrap_err(),
                cache.reserve(key).await.map(drop).unwrap_err(),
            ];
            assert!(errors.iter().all(|error| error.kind() == ErrorKind::Closed), "{errors:?}");
            assert!(errors[0].to_string().contains("`close`"), "{}", errors[0]);
            assert_eq!(loads.count(), 0);
        }
        assert_eq!(cache.entry_count(), 0);
    }
}

/// Its loads may finish, and those who wait for them are answered; nothing of it is kept here.
#[tokio::test(start_paused = true)]
async fn what_ends_after_the_close_is_for_those_who_waited() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(secs(11)).await;
    let gate = Gate::new();
    let soft = options().factory_soft_timeout(ms(100));
    let timed_out = load(&one.cache, "key", &[], soft, gated(&gate, 2));
    gate.reached().await;
    let joined = load(&one.cache, "key", &[], long(), gated(&gate, 3));
    assert!(timed_out.await.unwrap().unwrap().meta().is_stale());
    let cache = one.cache.clone();
    let closing = go(async move { cache.close().await });
    pass(ms(10)).await;
    assert_eq!(kind_of(one.cache.get_or_set("key", gated(&gate, 4)).await), ErrorKind::Closed);
    gate.open();
    assert_eq!(*joined.await.unwrap().unwrap(), 2);
    closing.await.unwrap().unwrap();
    assert_eq!(one.cache.get::<i32>("key").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(one.cache.entry_count(), 0);
    assert_eq!(fresh(&two.cache, "key").await, Some(2), "L2 has it");
}

/// A caller that stops waiting for `close` has closed it.
#[tokio::test(start_paused = true)]
async fn a_close_that_nobody_waits_for_has_closed_the_cache() {
    let world = World::new().await;
    let node = world.node().await;
    put(&node.cache, "key", 1, &[]).await;
    node.l2.hang();
    assert!(timeout(ms(10), node.cache.close()).await.is_err());
    assert_eq!(node.cache.get::<i32>("key").await.unwrap_err().kind(), ErrorKind::Closed);
}

/// A value that could be stored nowhere is not said to be.
#[tokio::test(start_paused = true)]
async fn a_set_that_a_closed_cache_would_keep_to_itself_is_an_error() {
    let world = World::new().await;
    let own = long().skip_l2_write(true);
    for cache in both(&world).await {
        let reservation = cache.reserve("reserved").await.unwrap();
        cache.close().await.unwrap();
        let errors = [
            cache.set("key", 1).options(own.clone()).await.unwrap_err(),
            cache.set("reserved", 1).options(own.clone()).reserved(reservation).await.unwrap_err(),
            cache.set_many([("key", 1)]).options(own.clone()).await.unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.kind() == ErrorKind::Closed), "{errors:?}");
        assert_eq!(cache.entry_count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn ready_returns_at_once_when_there_is_nothing_to_wait_for() {
    let world = World::new().await;
    let began = Instant::now();
    world.alone().ready().await.unwrap();
    let node = world.node().await;
    let connected = began.elapsed();
    node.cache.ready().await.unwrap();
    assert_eq!(began.elapsed(), connected);
}

#[tokio::test(start_paused = true)]
async fn ready_waits_for_what_is_down_and_no_longer() {
    let world = World::new().await;
    for bus_only in [false, true] {
        let node =
            world.cold(|builder| builder, |l2, bus| if bus_only { bus.cut() } else { l2.down() });
        let cache = node.cache.clone();
        let ready = go(async move { cache.ready().await });
        pass(secs(20)).await;
        assert!(!ready.is_finished());
        node.l2.heal();
        node.bus.reconnect();
        until("it is up", || ready.is_finished()).await;
        ready.await.unwrap().unwrap();
    }
}

/// A name that would be no key prefix is refused when it is to be one.
#[tokio::test(start_paused = true)]
async fn a_name_is_a_prefix_or_has_one() {
    for name in ["", "with space", "emoji\u{1f600}", "star*"] {
        let error = Cache::builder(name).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOptions, "{name:?}");
        assert!(Cache::builder(name).key_prefix("sound:").build().is_ok(), "{name:?}");
    }
}

/// Nothing that a cache holds shows in its own description.
#[tokio::test(start_paused = true)]
async fn a_cache_describes_itself_without_its_contents() {
    let world = World::new().await;
    for cache in both(&world).await {
        let _ = cache.set("a-key", "a-secret".to_owned()).await.unwrap();
        let read = cache.get_or_set("a-key", Loads::new().value(String::new()));
        let said = format!("{cache:?} {:?} {:?} {read:?}", cache.stats(), cache.health());
        assert!(said.contains("shop") && !said.contains("a-secret"), "{said}");
    }
}

/// A restart of a node: what it left in L2 is what it finds.
#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_finds_what_it_left() {
    let world = World::new().await;
    let node = world.node().await;
    put(&node.cache, "kept", 1, &["kept"]).await;
    put(&node.cache, "removed", 1, &["gone"]).await;
    let _ = node.cache.remove_by_tag("gone").await.unwrap();
    node.cache.close().await.unwrap();
    drop(node);
    pass(ms(500)).await;
    let again = world.node().await;
    assert_eq!(fresh(&again.cache, "kept").await, Some(1));
    assert_eq!(fresh::<i32>(&again.cache, "removed").await, None);
}

/// Requests are lazy: one that is not awaited has done nothing.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_awaited_does_nothing() {
    let world = World::new().await;
    let node = world.node().await;
    put(&node.cache, "key", 1, &["tag"]).await;
    node.l2.forget();
    let loads = Loads::new();
    drop(node.cache.get_or_set("other", loads.value(1)));
    drop(node.cache.set("key", 2));
    drop(node.cache.remove("key"));
    drop(node.cache.expire("key"));
    drop(node.cache.remove_by_tag("tag"));
    drop(node.cache.remove_all());
    assert_eq!((loads.count(), node.l2.calls().len()), (0, 0));
    assert_eq!(fresh(&node.cache, "key").await, Some(1));
}

/// However long a future was kept before: it must not answer what was fresh when it was made.
#[tokio::test(start_paused = true)]
async fn a_read_looks_when_it_is_first_polled() {
    let world = World::new().await;
    for cache in both(&world).await {
        put(&cache, "key", 1, &[]).await;
        let get = cache.get::<i32>("key").into_future();
        let loads = Loads::new();
        let get_or_set = cache.get_or_set("key", loads.value(3)).into_future();
        put(&cache, "key", 2, &[]).await;
        assert_eq!(get.await.unwrap().as_deref(), Some(&2));
        assert_eq!(*get_or_set.await.unwrap(), 2);
        assert_eq!(loads.count(), 0);
    }
}

/// Nobody is left to send what waits, so it is not called queued.
#[tokio::test(start_paused = true)]
async fn a_write_that_a_closed_cache_cannot_send_is_an_error() {
    let world = World::new().await;
    let node = world.node().await;
    node.cache.close().await.unwrap();
    assert_eq!(
        node.cache.set("key", 1).await.unwrap().l2(),
        WriteStatus::Done,
        "L2 still takes it"
    );
    node.l2.down();
    let errors = [
        node.cache.set("key", 2).await.unwrap_err(),
        node.cache.remove("key").await.unwrap_err(),
        node.cache.remove_by_tag("tag").await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Closed), "{errors:?}");
    assert!(node.cache.peek::<i32>("key").is_none(), "it holds here");
}
