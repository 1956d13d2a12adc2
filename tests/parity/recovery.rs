//! Outages of L2, of the bus, and of both; and what every node answers when they are over.

use crinkle_core::{Settings, WriteStatus};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Node, World, pass, until};

use crate::{SHORT, any, fresh, load_or, nodes, put, secs};

async fn recovered(node: &Node) {
    until("what waited has gone out", || {
        let health = node.cache.health();
        health.l2_up && health.recovery_backlog + health.pending_removals == 0
    })
    .await;
}

/// Upstream's test of it is commented out: three nodes, all cut off, three different sets.
#[tokio::test(start_paused = true)]
async fn nodes_that_wrote_in_an_outage_agree_after_it() {
    let world = World::new().await;
    let all = nodes(&world).await;
    put(&all[0].cache, "key", 0, &[]).await;
    for node in &all {
        node.l2.down();
        node.bus.cut();
    }
    pass(secs(2)).await;
    for (number, node) in (1..).zip(&all) {
        let _ = node.cache.set("key", number).await.unwrap();
        assert_eq!(fresh(&node.cache, "key").await, Some(number), "each sees its own");
    }
    for node in &all {
        node.l2.heal();
        node.bus.reconnect();
    }
    for node in &all {
        recovered(node).await;
        until("it receives again", || node.cache.health().subscribed).await;
    }
    pass(secs(2)).await;
    assert_eq!(load_or(&all[0].cache, "key", 9, &[]).await, (9, true), "nobody's stale value");
    pass(SHORT).await;
    for node in &all {
        assert_eq!(fresh(&node.cache, "key").await, Some(9));
    }
}

/// L2 is away and the bus is not: the others are told when L2 knows, and not before it does.
#[tokio::test(start_paused = true)]
async fn a_write_without_l2_is_heard_of_when_l2_is_back() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 10, &[]).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(10));
    one.l2.down();
    pass(secs(6)).await;
    assert_eq!(one.cache.set("key", 30).await.unwrap().backplane(), WriteStatus::Queued);
    assert_eq!(fresh(&one.cache, "key").await, Some(30));
    assert_eq!(fresh(&two.cache, "key").await, Some(10), "it cannot know");
    one.l2.heal();
    recovered(&one).await;
    pass(SHORT).await;
    for node in [&one, &two] {
        let read = load_or(&node.cache, "key", 40, &[]).await.0;
        assert!([30, 40].contains(&read), "{read}");
    }
}

/// The notification alone is lost, on a store that cannot announce: the poll makes up for it.
#[tokio::test(start_paused = true)]
async fn a_write_that_was_not_announced_is_noticed_by_the_gap_it_leaves() {
    let world = World::apart().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 10, &[]).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(10));
    one.bus.fail_publish(true);
    let receipt = one.cache.set("key", 30).await.unwrap();
    assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Unknown));
    one.bus.fail_publish(false);
    pass(secs(5)).await;
    for node in [&one, &two] {
        assert_eq!(fresh(&node.cache, "key").await, Some(30));
    }
}

#[tokio::test(start_paused = true)]
async fn many_writes_of_a_key_in_an_outage_are_one_invalidation_afterwards() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.down();
    for number in 0..100 {
        let _ = node.cache.set("key", number).await.unwrap();
    }
    assert_eq!(node.cache.health().recovery_backlog, 1);
    node.l2.forget();
    node.l2.heal();
    recovered(&node).await;
    assert_eq!((node.l2.count(L2Op::Remove), node.l2.count(L2Op::Set)), (1, 0));
}

/// The harder of two invalidations of a key stands, whichever came last.
#[tokio::test(start_paused = true)]
async fn an_expire_after_a_remove_in_an_outage_stays_a_removal() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "removed", 1, &[]).await;
    put(&one.cache, "expired", 1, &[]).await;
    one.l2.down();
    let _ = one.cache.remove("removed").await.unwrap();
    let _ = one.cache.expire("removed").await.unwrap();
    let _ = one.cache.expire("expired").await.unwrap();
    one.l2.heal();
    recovered(&one).await;
    pass(SHORT).await;
    assert_eq!(any(&two.cache, "removed").await, None);
    assert_eq!(any(&two.cache, "expired").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn health_tells_of_an_outage_and_of_its_end() {
    let world = World::new().await;
    let (node, _peer) = (world.node().await, world.node().await);
    pass(secs(3)).await;
    let health = node.cache.health();
    assert!(health.coherent && health.peers == 1, "{health:?}");
    assert_eq!((health.l2_up, health.subscribed), (true, true));
    assert!(health.last_heartbeat.unwrap() <= secs(1) + SHORT);
    node.l2.down();
    node.bus.cut();
    until("it is noticed", || !node.cache.health().l2_up).await;
    let _ = node.cache.remove("key").await.unwrap();
    let _ = node.cache.remove_by_tag("tag").await.unwrap();
    pass(secs(31)).await;
    let health = node.cache.health();
    assert!(!health.coherent);
    assert_eq!((health.l2_up, health.subscribed), (false, false));
    assert_eq!((health.recovery_backlog, health.pending_removals), (1, 1));
    node.l2.heal();
    node.bus.reconnect();
    recovered(&node).await;
    until("it is coherent", || node.cache.health().coherent).await;
    assert!(node.cache.health().subscribed);
}

/// A cache without L2 is up, has nobody to hear, and is always in step with itself.
#[tokio::test(start_paused = true)]
async fn health_of_a_cache_on_its_own_has_nothing_to_report() {
    let world = World::new().await;
    let cache = world.alone();
    let _ = cache.remove_by_tag("tag").await.unwrap();
    pass(secs(100)).await;
    let health = cache.health();
    assert_eq!((health.has_l2, health.has_backplane, health.last_heartbeat), (false, false, None));
    assert!(health.coherent && !health.ledger_suspect);
    assert_eq!((health.peers, health.in_flight, health.pending_removals), (0, 0, 0));
}

/// A queued invalidation of one key that L2 goes on refusing holds up no tag and no other key.
#[tokio::test(start_paused = true)]
async fn removals_by_tag_are_not_held_up_by_keys_that_wait() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&two.cache, "tagged", 1, &["tag"]).await;
    one.l2.always(L2Op::Remove, Fate::Fail(crinkle_core::l2::L2ErrorKind::Full));
    for number in 0..50 {
        let _ = one.cache.remove(number.to_string()).await.unwrap();
    }
    assert_eq!(one.cache.health().recovery_backlog, 50);
    assert!(one.cache.remove_by_tag("tag").await.unwrap().is_propagated());
    pass(SHORT).await;
    assert_eq!(any(&two.cache, "tagged").await, None);
    put(&one.cache, "set", 1, &[]).await;
    assert_eq!(fresh(&two.cache, "set").await, Some(1));
}

/// The store comes back empty: nothing is known of what it held, so nothing of it is answered.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_when_the_store_was_lost_answers_nothing_of_before() {
    let world = World::new().await;
    let settings = Settings::default().coherence_ttl(secs(10));
    let one = world.node_with(|builder| builder.settings(settings.clone())).await;
    let two = world.node_with(|builder| builder.settings(settings)).await;
    put(&one.cache, "key", 1, &["tag"]).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    two.l2.down();
    two.bus.cut();
    world.store.wipe();
    pass(secs(2)).await;
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    pass(secs(10)).await;
    two.l2.heal();
    two.bus.reconnect();
    recovered(&two).await;
    pass(secs(2)).await;
    assert_eq!(any(&two.cache, "key").await, None);
}
