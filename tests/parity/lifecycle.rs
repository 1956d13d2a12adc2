//! Building, sharing, closing: what a handle is, and what is left when it is gone.

use crinkle_core::{Cache, ErrorKind, Reach};
use crinkle_tests::{Loads, World, kind_of, pass, until};
use tokio::time::Instant;

use crate::{both, fresh, ms, put, secs};

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
        let ready = crinkle_tests::go(async move { cache.ready().await });
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
    drop(node.cache.clear_hard());
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
    assert_eq!(node.cache.set("key", 1).await.unwrap().l2(), Reach::Done, "L2 still takes it");
    node.l2.down();
    let errors = [
        node.cache.set("key", 2).await.unwrap_err(),
        node.cache.remove("key").await.unwrap_err(),
        node.cache.remove_by_tag("tag").await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Closed), "{errors:?}");
    assert!(node.cache.peek::<i32>("key").is_none(), "it holds here");
}
