//! Messages late, twice, out of order or never: T5, T6, T9, T12, T13, and junk on the channel.

use std::time::Duration;

use crinkle_core::EntryOptions;
use crinkle_core::backplane::{Backplane, message};
use crinkle_core::protocol::{KeyHash, PublisherId, Version};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, go, options, pass, until};

const SHORT: Duration = Duration::from_millis(50);

/// A poll, its answer, and a margin.
const POLL: Duration = Duration::from_millis(1100);

/// An entry with a tag of its own that this node holds in L1.
async fn hold(node: &Node, key: &str, tag: &str) {
    let options = EntryOptions::new(Duration::from_secs(600));
    let read = node.cache.get_or_set(key, Loads::new().value(1)).tags([tag]).options(options);
    read.await.expect("no trouble");
    assert!(node.cache.peek::<i32>(key).is_some());
}

/// T5: the subscription is down while everything is cleared.
#[tokio::test(start_paused = true)]
async fn a_clear_during_a_lost_subscription_is_known_after_one_poll() {
    for hard in [false, true] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        hold(&two, "key", "tag").await;
        two.bus.cut();
        pass(SHORT).await;
        assert!(!two.cache.health().subscribed);
        let cleared =
            if hard { one.cache.remove_all().await } else { one.cache.expire_all().await };
        assert!(cleared.unwrap().is_propagated());
        pass(POLL).await;
        assert!(two.cache.peek::<i32>("key").is_none());
        assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
        two.bus.reconnect();
        until("it listens again", || two.cache.health().subscribed).await;
        assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
    }
}

/// T6: two removals, out of order and twice each.
#[tokio::test(start_paused = true)]
async fn removals_out_of_order_and_duplicated_both_hold() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&two, "a", "tag-a").await;
    hold(&two, "b", "tag-b").await;
    hold(&two, "c", "tag-c").await;
    two.bus.hold(true);
    let _ = one.cache.remove_by_tag("tag-a").await.unwrap();
    let _ = one.cache.remove_by_tag("tag-b").await.unwrap();
    until("both are on their way", || two.bus.held() == 2).await;
    let messages = two.bus.take_held();
    two.bus.hold(false);
    let before = two.cache.health().ledger_frontier;
    for at in [1, 1, 0, 1, 0] {
        two.bus.deliver(messages[at].clone());
    }
    pass(SHORT).await;
    assert!(two.cache.health().ledger_frontier > before);
    assert!(!two.cache.health().ledger_suspect);
    for gone in ["a", "b"] {
        assert!(two.cache.peek::<i32>(gone).is_none());
        assert!(two.cache.get::<i32>(gone).allow_stale().await.unwrap().is_none());
    }
    assert!(two.cache.get::<i32>("c").await.unwrap().is_some(), "nothing else is hidden");
    // What is loaded now is stamped above both, also when they are heard once more.
    hold(&two, "a", "tag-a").await;
    two.bus.deliver(messages[0].clone());
    two.bus.deliver(messages[1].clone());
    pass(POLL).await;
    assert!(two.cache.get::<i32>("a").await.unwrap().is_some());
}

/// T6: the second alone, the first lost for good: applied at once, and the poll brings the first.
#[tokio::test(start_paused = true)]
async fn a_gap_between_removals_is_closed_at_once() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&two, "a", "tag-a").await;
    hold(&two, "b", "tag-b").await;
    two.bus.lose(1);
    let _ = one.cache.remove_by_tag("tag-a").await.unwrap();
    let _ = one.cache.remove_by_tag("tag-b").await.unwrap();
    pass(SHORT).await;
    assert!(two.cache.get::<i32>("a").await.unwrap().is_none());
    assert!(two.cache.get::<i32>("b").await.unwrap().is_none());
}

/// T9: a peer receives `set` first and the `expire` before it afterwards.
#[tokio::test(start_paused = true)]
async fn an_expire_heard_after_the_newer_set_costs_no_value() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&two, "key", "tag").await;
    two.bus.hold(true);
    let _ = one.cache.expire("key").await.unwrap();
    let _ = one.cache.set("key", 2).await.unwrap();
    until("both are on their way", || two.bus.held() == 2).await;
    let messages = two.bus.take_held();
    two.bus.hold(false);
    two.bus.deliver(messages[1].clone());
    pass(SHORT).await;
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
    two.bus.deliver(messages[0].clone());
    pass(SHORT).await;
    let loads = Loads::new();
    let read = two.cache.get_or_set("key", loads.value(3)).await.unwrap();
    assert_eq!((*read, loads.count()), (2, 0), "L2 still holds it, fresh");
    two.bus.deliver(messages[0].clone());
    pass(SHORT).await;
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// T9 on the node itself: its own echo of `expire` comes after its `set`.
#[tokio::test(start_paused = true)]
async fn the_own_echo_of_an_expire_does_not_take_back_a_later_set() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = node.cache.set("key", 1).await.unwrap();
    pass(SHORT).await;
    node.bus.hold(true);
    let _ = node.cache.expire("key").await.unwrap();
    let _ = node.cache.set("key", 2).await.unwrap();
    until("the echoes are on their way", || node.bus.held() == 2).await;
    let echoes = node.bus.take_held();
    node.bus.hold(false);
    for echo in echoes {
        node.bus.deliver(echo);
    }
    pass(SHORT).await;
    assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// T12: a connection gone for a millisecond while a key and a tag change.
#[tokio::test(start_paused = true)]
async fn a_connection_lost_for_a_millisecond_hides_no_change() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&two, "key", "other").await;
    hold(&two, "tagged", "tag").await;
    hold(&two, "same", "none").await;
    let subscriptions = two.bus.subscriptions();
    two.bus.cut();
    pass(Duration::from_millis(1)).await;
    let _ = one.cache.set("key", 2).await.unwrap();
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    two.bus.reconnect();
    until("it listens again", || two.bus.subscriptions() > subscriptions).await;
    pass(SHORT).await;
    two.l2.forget();
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
    assert!(two.cache.get::<i32>("tagged").await.unwrap().is_none());
    // L8: nothing is flushed; what has not changed is verified once.
    let verified = two.cache.stats().l1_verified;
    assert!(two.cache.get::<i32>("same").await.unwrap().is_some());
    assert_eq!(two.cache.stats().l1_verified, verified + 1);
    let looks = two.l2.count(L2Op::Look);
    assert!(two.cache.get::<i32>("same").await.unwrap().is_some());
    assert_eq!(two.l2.count(L2Op::Look), looks);
}

/// S3 on a subscription that seems alive and delivers nothing: the missing heartbeat tells.
#[tokio::test(start_paused = true)]
async fn a_node_without_subscription_serves_nothing_old_for_long() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&two, "key", "tag").await;
    two.bus.mute(true);
    let _ = one.cache.set("key", 2).await.unwrap();
    // 3P and a round trip, however the polls lie.
    pass(Duration::from_millis(3100)).await;
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// S3 on a node that lost its subscription and cannot publish, and whose repairs hang: no poll waits for them.
#[tokio::test(start_paused = true)]
async fn a_node_without_subscription_whose_heartbeats_hang_serves_nothing_old_for_long() {
    for limit in [1, 2] {
        let world = World::new().await;
        let limit = EntryOptions::default().l2_hard_timeout(Duration::from_secs(limit));
        let one = world.node().await;
        let two = world.node_with(|builder| builder.default_options(limit)).await;
        hold(&two, "key", "tag").await;
        for op in [L2Op::Remove, L2Op::ReplicationId] {
            two.l2.always(op, Fate::Hang);
        }
        let _ = two.cache.remove("another").await.unwrap();
        two.bus.hang_publish(true);
        two.bus.mute(true);
        let _ = one.cache.set("key", 2).await.unwrap();
        pass(Duration::from_millis(3100)).await;
        assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
    }
}

/// One lost notification of a key: the hole in its publisher's sequence causes a resync.
#[tokio::test(start_paused = true)]
async fn one_lost_notification_is_noticed_by_the_hole_it_leaves() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&two, "key", "tag").await;
    two.bus.lose(1);
    let _ = one.cache.set("key", 2).await.unwrap();
    // The publisher's next poll names its sequence; a second of grace; this node's next poll.
    pass(Duration::from_millis(3200)).await;
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// A publisher that loses nothing causes no resync: also not by fills that L2 refused.
#[tokio::test(start_paused = true)]
async fn a_refused_fill_makes_nobody_resync() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let slow = crinkle_tests::load(
        &one.cache,
        "key",
        &[],
        EntryOptions::default(),
        crinkle_tests::gated(&gate, 1),
    );
    gate.reached().await;
    world.store.evict(&World::record("key"));
    gate.open();
    assert_eq!(*slow.await.unwrap().unwrap(), 1);
    assert_eq!(one.cache.stats().fill_refused, 1);
    let resyncs = two.cache.stats().resyncs;
    // Its place in the sequence is filled: the next message of its node leaves no hole.
    let _ = one.cache.set("another", 1).await.unwrap();
    pass(Duration::from_secs(15)).await;
    assert_eq!(two.cache.stats().resyncs, resyncs);
}

/// S3: the last message of a publisher is lost, and the news that there was one.
#[tokio::test(start_paused = true)]
async fn a_lost_last_notification_is_noticed_within_ten_polls() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&two, "key", "tag").await;
    pass(POLL).await;
    two.bus.mute(true);
    let _ = one.cache.remove("key").await.unwrap();
    pass(POLL).await;
    two.bus.mute(false);
    pass(POLL * 12).await;
    assert_eq!(
        two.cache.stats().resyncs_subscription_lost,
        0,
        "it heard its own heartbeat in time"
    );
    assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
}

/// T13: the whole store is lost, or the ledger alone.
#[tokio::test(start_paused = true)]
async fn after_a_lost_ledger_nothing_older_is_answered() {
    for all in [true, false] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        hold(&one, "key", "tag").await;
        let _ = two.cache.remove_by_tag("elsewhere").await.unwrap();
        if all {
            world.store.wipe();
        } else {
            world.store.evict_ledgers();
        }
        pass(POLL).await;
        for node in [&one, &two] {
            assert!(node.cache.get::<i32>("key").allow_stale().await.unwrap().is_none());
            assert_eq!(node.cache.stats().epochs, 1);
        }
        hold(&one, "key", "tag").await;
        assert!(two.cache.get::<i32>("key").await.unwrap().is_some(), "L4: it is cached again");
    }
}

/// S13: whatever comes on the channel is ignored, is counted, and causes a resync.
#[tokio::test(start_paused = true)]
async fn junk_on_the_channel_is_counted_and_costs_one_resync_and_never_more() {
    let world = World::new().await;
    let node = world.node().await;
    hold(&node, "key", "tag").await;
    let before = node.cache.stats();
    let whole = message::key(
        PublisherId(7),
        1,
        message::KeyOp::Removed,
        Version(1),
        KeyHash::of("another"),
    );
    let mut newer = whole.to_vec();
    newer[2] = 9;
    let junk = [
        bytes::Bytes::new(),
        bytes::Bytes::from_static(b"hello"),
        bytes::Bytes::from(vec![0xff; 1 << 20]),
        whole.slice(..whole.len() - 1),
        bytes::Bytes::from(newer),
    ];
    for bytes in junk.clone() {
        world.bus.publish("shop:v1:ch", bytes).await.unwrap();
    }
    pass(POLL).await;
    let after = node.cache.stats();
    assert_eq!(after.messages_undecodable - before.messages_undecodable, junk.len() as u64);
    assert_eq!(after.resyncs - before.resyncs, 1, "one resync for all of it");
    let verified = after.l1_verified;
    assert!(node.cache.get::<i32>("key").await.unwrap().is_some());
    assert_eq!(node.cache.stats().l1_verified, verified + 1);
}

/// A subscriber that was too slow knows that it missed something.
#[tokio::test(start_paused = true)]
async fn a_lagging_subscription_is_a_resync() {
    let world = World::new().await;
    let node = world.node().await;
    hold(&node, "key", "tag").await;
    node.bus.lag();
    pass(SHORT).await;
    let verified = node.cache.stats().l1_verified;
    assert!(node.cache.get::<i32>("key").await.unwrap().is_some());
    assert_eq!(node.cache.stats().l1_verified, verified + 1);
}

/// L2: once writes stop, every node answers with the newest.
#[tokio::test(start_paused = true)]
async fn every_write_reaches_the_l1_of_the_other_nodes() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (world.node().await, world.node().await);
        hold(&two, "set", "tag").await;
        hold(&two, "removed", "tag").await;
        hold(&two, "expired", "tag").await;
        let _ = one.cache.set("set", 2).await.unwrap();
        let _ = one.cache.remove("removed").await.unwrap();
        let _ = one.cache.expire("expired").await.unwrap();
        pass(SHORT).await;
        for key in ["set", "removed", "expired"] {
            assert!(two.cache.peek::<i32>(key).is_none());
        }
        assert_eq!(two.cache.get::<i32>("set").await.unwrap().as_deref(), Some(&2));
        assert!(two.cache.get::<i32>("removed").allow_stale().await.unwrap().is_none());
        assert!(two.cache.get::<i32>("expired").await.unwrap().is_none());
        hold(&two, "tagged", "tag").await;
        let _ = one.cache.remove_by_tag("tag").await.unwrap();
        pass(SHORT).await;
        assert!(two.cache.get::<i32>("tagged").options(options()).await.unwrap().is_none());
    }
}

/// The caller of a `remove` goes away; the command runs later, after a read that it invalidates.
#[tokio::test(start_paused = true)]
async fn the_echo_of_an_abandoned_write_counts() {
    let world = World::new().await;
    let node = world.node().await;
    let long = EntryOptions::new(Duration::from_secs(600));
    let _ = node.cache.set("key", 1).options(long).await.unwrap();
    pass(SHORT).await;
    node.bus.hold(true);
    let gate = Gate::new();
    node.l2.next(L2Op::Remove, Fate::HoldReply(gate.clone()));
    let cache = node.cache.clone();
    let remove = go(async move { cache.remove("key").await });
    gate.reached().await;
    until("its echo is on its way", || node.bus.held() == 1).await;
    let echo = node.bus.take_held().remove(0);
    remove.abort();
    assert!(remove.await.unwrap_err().is_cancelled());
    node.bus.hold(false);
    // As if the command ran only after this.
    hold(&node, "key", "tag").await;
    node.bus.deliver(echo);
    pass(SHORT).await;
    assert!(node.cache.peek::<i32>("key").is_none());
}

/// The poll's `SYNC` is on its way, with an answer from before a removal, when `close` asks as well.
#[tokio::test(start_paused = true)]
async fn two_questions_at_a_time_do_not_lose_an_answer_of_the_ledger() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&one, "key", "tag").await;
    one.bus.hold(true);
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    for gate in &gates {
        one.l2.next(L2Op::Sync, Fate::HoldReply(gate.clone()));
    }
    gates[0].reached().await;
    let _ = two.cache.remove_by_tag("tag").await.unwrap();
    let closing = go({
        let cache = one.cache.clone();
        async move { cache.close().await }
    });
    pass(Duration::from_millis(10)).await;
    gates[0].open();
    gates[1].reached().await;
    gates[1].open();
    pass(Duration::from_millis(1)).await;
    assert!(one.cache.peek::<i32>("key").is_none());
    gates[2].open();
    closing.await.unwrap().unwrap();
}
