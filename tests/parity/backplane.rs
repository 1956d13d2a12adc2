//! Notifications: which node receives what, what it costs, and who is not concerned.

use crinkle_core::Cache;
use crinkle_core::backplane::{Backplane, Incoming};
use crinkle_testkit::chaos::L2Op;
use crinkle_tests::{Loads, World, long, options, pass, until};

use crate::{SHORT, any, fresh, load_or, nodes, put, secs};

#[tokio::test(start_paused = true)]
async fn the_last_set_is_what_every_node_answers() {
    for world in [World::new().await, World::apart().await] {
        let all = nodes(&world).await;
        for (number, writer) in (0..9).zip(all.iter().cycle()) {
            put(&writer.cache, "key", number, &[]).await;
            pass(SHORT).await;
            for node in &all {
                assert_eq!(fresh(&node.cache, "key").await, Some(number));
            }
        }
    }
}

/// FusionCache reads L2 on every node for every set; here a copy is dropped, and read when asked for.
#[tokio::test(start_paused = true)]
async fn a_notification_costs_its_receivers_no_read() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for number in 0..50 {
        put(&one.cache, &number.to_string(), 1, &[]).await;
        assert_eq!(fresh(&two.cache, &number.to_string()).await, Some(1));
    }
    two.l2.forget();
    for number in 0..50 {
        put(&one.cache, &number.to_string(), 2, &[]).await;
    }
    pass(SHORT).await;
    assert_eq!(two.l2.count(L2Op::Look) + two.l2.count(L2Op::Read), 0);
    assert_eq!(fresh(&two.cache, "7").await, Some(2));
    assert_eq!(two.l2.count(L2Op::Look), 1);
}

/// A key that a node does not hold is none of its business.
#[tokio::test(start_paused = true)]
async fn a_notification_about_an_unknown_key_changes_nothing() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&two.cache, "held", 1, &[]).await;
    let before = two.cache.stats();
    for number in 0..20 {
        put(&one.cache, &number.to_string(), 1, &[]).await;
        let _ = one.cache.remove(number.to_string()).await.unwrap();
    }
    pass(SHORT).await;
    assert_eq!(two.cache.stats().resyncs, before.resyncs);
    assert_eq!(two.cache.entry_count(), 1);
    assert!(two.cache.peek::<i32>("held").is_some());
}

#[tokio::test(start_paused = true)]
async fn reading_and_failing_announce_nothing() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &[]).await;
    pass(SHORT).await;
    two.bus.hold(true);
    assert_eq!(any(&one.cache, "key").await, Some(1));
    assert_eq!(any(&one.cache, "other").await, None);
    assert_eq!(*one.cache.get_or("other", 7).await.unwrap(), 7);
    assert_eq!(load_or(&one.cache, "key", 2, &[]).await, (1, false));
    let failed = one.cache.get_or_set("failing", Loads::new().fail::<_, i32>()).await;
    assert!(failed.is_err());
    pass(SHORT).await;
    assert_eq!(two.bus.held(), 0);
    put(&one.cache, "key", 3, &[]).await;
    pass(SHORT).await;
    assert_eq!(two.bus.held(), 1, "one write, one message");
}

/// In FusionCache the record is deleted, and a node without a copy of its own has no fallback.
#[tokio::test(start_paused = true)]
async fn an_expired_key_is_a_fallback_for_nodes_that_never_held_it() {
    let world = World::new().await;
    let [one, two, three] = nodes(&world).await;
    let _ = one.cache.set("key", 42).options(options()).await.unwrap();
    assert_eq!(fresh(&two.cache, "key").await, Some(42));
    let _ = one.cache.expire("key").await.unwrap();
    pass(SHORT).await;
    for node in [&one, &two, &three] {
        assert_eq!(fresh::<i32>(&node.cache, "key").await, None);
        assert_eq!(any(&node.cache, "key").await, Some(42));
    }
}

#[tokio::test(start_paused = true)]
async fn caches_of_different_names_on_one_bus_do_not_hear_each_other() {
    let world = World::new().await;
    let shop = world.node().await;
    let build = || Cache::builder("other").clock(world.clock);
    let (one, two) = (world.node_with(|_| build()).await, world.node_with(|_| build()).await);
    put(&shop.cache, "key", 21, &[]).await;
    put(&one.cache, "key", 42, &[]).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(42));
    let _ = shop.cache.remove("key").await.unwrap();
    let _ = shop.cache.remove_all().await.unwrap();
    pass(SHORT).await;
    assert!(two.cache.peek::<i32>("key").is_some());
    put(&one.cache, "key", 78, &[]).await;
    pass(SHORT).await;
    assert!(two.cache.peek::<i32>("key").is_none());
    put(&two.cache, "key", 88, &[]).await;
    pass(SHORT).await;
    assert_eq!(fresh(&one.cache, "key").await, Some(88));
    assert_eq!(any(&shop.cache, "key").await, None);
}

/// Every node names itself: messages of its own are no news to it.
#[tokio::test(start_paused = true)]
async fn a_node_keeps_what_it_wrote_itself() {
    let world = World::new().await;
    let node = world.node().await;
    put(&node.cache, "set", 1, &[]).await;
    assert_eq!(load_or(&node.cache, "loaded", 1, &[]).await, (1, true));
    pass(secs(5)).await;
    node.l2.forget();
    for key in ["set", "loaded"] {
        assert_eq!(node.cache.peek::<i32>(key).as_deref(), Some(&1));
    }
}

/// What one node loads, the others drop: they may hold an older value of the key.
#[tokio::test(start_paused = true)]
async fn a_load_is_announced_like_a_set() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (world.node().await, world.node().await);
        let _ = two.cache.set("key", 1).options(options()).await.unwrap();
        assert_eq!(any(&one.cache, "key").await, Some(1));
        pass(secs(11)).await;
        assert_eq!(load_or(&one.cache, "key", 2, &[]).await, (2, true));
        pass(SHORT).await;
        assert_eq!(fresh(&two.cache, "key").await, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_heard_twice_counts_once() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    two.bus.duplicate(true);
    let resyncs = two.cache.stats().resyncs;
    for number in 0..20 {
        put(&one.cache, "key", number, &["tag"]).await;
        pass(SHORT).await;
        assert_eq!(fresh(&two.cache, "key").await, Some(number));
        let _ = one.cache.remove_by_tag("tag").await.unwrap();
        pass(SHORT).await;
        assert_eq!(any(&two.cache, "key").await, None);
    }
    assert_eq!(two.cache.stats().resyncs, resyncs);
}

/// A subscription that is lost and made again: what changed meanwhile is noticed without a write.
#[tokio::test(start_paused = true)]
async fn after_a_reconnect_what_changed_meanwhile_is_noticed() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for key in ["changed", "same"] {
        put(&one.cache, key, 1, &[]).await;
        assert_eq!(fresh(&two.cache, key).await, Some(1));
    }
    two.bus.cut();
    pass(SHORT).await;
    put(&one.cache, "changed", 2, &[]).await;
    pass(secs(10)).await;
    two.bus.reconnect();
    until("it receives again", || two.cache.health().subscribed).await;
    assert_eq!(fresh(&two.cache, "changed").await, Some(2));
    assert_eq!(fresh(&two.cache, "same").await, Some(1));
}

/// The content of a message is a hash and numbers: neither the key nor the value is in it.
#[tokio::test(start_paused = true)]
async fn messages_carry_neither_keys_nor_values() {
    let world = World::new().await;
    let node = world.node().await;
    let mut listener = world.bus.subscribe(&["shop:v1:ch".to_owned()]).await.unwrap();
    let set = node.cache.set("a-secret-key", "a-secret-value".to_owned()).options(long());
    let _ = set.tags(["a-secret-tag"]).await.unwrap();
    let _ = node.cache.remove("a-secret-key").await.unwrap();
    let _ = node.cache.remove_by_tag("a-secret-tag").await.unwrap();
    let mut heard = 0;
    while let Ok(Some(Incoming::Message(bytes))) =
        tokio::time::timeout(secs(3), listener.next()).await
    {
        heard += 1;
        assert!(!bytes.windows(8).any(|window| window == b"a-secret"));
        if heard == 5 {
            break;
        }
    }
    assert!(heard >= 3, "{heard}");
}
