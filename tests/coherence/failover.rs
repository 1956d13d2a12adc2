//! Failovers that take back writes of keys: the node that wrote asserts them again.

use std::time::Duration;

use crinkle_core::Settings;
use crinkle_core::l2::{L2, L2ErrorKind};
use crinkle_core::protocol::ledger::Replica;
use crinkle_core::protocol::{Epoch, Nonce};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Node, World, long_fail_safe, pass, until};

async fn two_nodes(world: &World) -> (Node, Node) {
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(long_fail_safe()).await.expect("stored");
    two.cache.get::<i32>("key").await.expect("read").expect("there");
    pass(Duration::from_millis(1500)).await;
    (one, two)
}

async fn reasserted(node: &Node) {
    until("it is asserted again", || node.cache.stats().reasserted > 0).await;
    until("L2 has it", || node.cache.health().recovery_backlog == 0).await;
    pass(Duration::from_millis(50)).await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_a_failover_took_back_is_asserted_again() {
    let world = World::new().await;
    let (one, two) = two_nodes(&world).await;
    let replica = world.store.snapshot();
    let _ = one.cache.remove("key").await.unwrap();
    pass(Duration::from_secs(8)).await;
    world.fail_over(replica);
    reasserted(&one).await;
    for node in [&one, &two] {
        assert!(node.cache.get::<i32>("key").allow_stale().await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_set_had_replaced_is_not_answered_for_long() {
    let world = World::new().await;
    let (one, two) = two_nodes(&world).await;
    let replica = world.store.snapshot();
    let _ = one.cache.set("key", 2).options(long_fail_safe()).await.unwrap();
    world.fail_over(replica);
    reasserted(&one).await;
    for node in [&one, &two] {
        assert_ne!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    }
}

/// An expiry leaves a fallback, unless a removal that was lost with it had left none.
#[tokio::test(start_paused = true)]
async fn a_lost_expiry_is_soft_but_for_a_removal_before_it() {
    for removed in [false, true] {
        let world = World::new().await;
        let (one, two) = two_nodes(&world).await;
        let replica = world.store.snapshot();
        if removed {
            let _ = one.cache.remove("key").await.unwrap();
        }
        let _ = one.cache.expire("key").await.unwrap();
        world.fail_over(replica);
        reasserted(&one).await;
        assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
        let fallback = two.cache.get::<i32>("key").allow_stale().await.unwrap();
        assert_eq!(fallback.is_none(), removed);
    }
}

/// A failover that lost nothing costs a look and no value.
#[tokio::test(start_paused = true)]
async fn a_failover_invalidates_nothing_that_is_there() {
    let world = World::new().await;
    let (one, two) = two_nodes(&world).await;
    let replica = world.store.snapshot();
    world.fail_over(replica);
    pass(Duration::from_secs(5)).await;
    assert_eq!(one.cache.stats().reasserted, 0);
    for node in [&one, &two] {
        assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    }
}

/// Who was cut off does not undo what others wrote meanwhile.
#[tokio::test(start_paused = true)]
async fn an_outage_is_no_failover() {
    let world = World::new().await;
    let (one, two) = two_nodes(&world).await;
    one.l2.down();
    one.bus.cut();
    let _ = two.cache.set("key", 2).options(long_fail_safe()).await.unwrap();
    pass(Duration::from_secs(5)).await;
    one.l2.heal();
    one.bus.reconnect();
    until("it is coherent again", || one.cache.health().coherent).await;
    pass(Duration::from_secs(5)).await;
    assert_eq!(one.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// What is older than the reach of a failover is not compared: it would cost a look for nothing.
#[tokio::test(start_paused = true)]
async fn what_was_written_long_ago_is_left_alone() {
    let world = World::new().await;
    let (one, _two) = two_nodes(&world).await;
    let replica = world.store.snapshot();
    let _ = one.cache.remove("key").await.unwrap();
    pass(Duration::from_secs(30)).await;
    world.fail_over(replica);
    pass(Duration::from_secs(5)).await;
    assert_eq!(one.cache.stats().reasserted, 0);
}

/// Of a removal nothing is left to compare, so it is asserted again, at most twice. More of them than the
/// queue holds wait for their turn: a full queue would clear the cache.
#[tokio::test(start_paused = true)]
async fn more_removals_than_the_queue_holds_are_asserted_again_in_parts() {
    for cap in [1, 10_000] {
        let world = World::new().await;
        let small = Settings::default().recovery_keys(cap);
        let (one, _two) = two_nodes(&world).await;
        let many = world.node_with(|builder| builder.settings(small)).await;
        let removals = if cap == 1 { 8 } else { 12_000 };
        for key in 0..removals {
            let _ = many.cache.remove(key.to_string()).await.unwrap();
        }
        world.fail_over(world.store.snapshot());
        until("all are asserted", || many.cache.stats().reasserted >= removals * 2).await;
        until("L2 has them", || many.cache.health().recovery_backlog == 0).await;
        pass(Duration::from_secs(5)).await;
        let stats = many.cache.stats();
        assert_eq!((stats.reasserted, stats.recovery_overflows), (removals * 2, 0));
        assert!(many.cache.health().coherent);
        assert!(one.cache.get::<i32>("key").await.unwrap().is_some(), "nothing else is hidden");
    }
}

/// A read that fails on the way does not end the look, nor begin it again.
#[tokio::test(start_paused = true)]
async fn a_look_that_fails_goes_on() {
    let world = World::new().await;
    let node = world.node().await;
    for key in 0..1000 {
        let _ = node.cache.remove(key.to_string()).await.unwrap();
    }
    node.l2.next(L2Op::Heads, Fate::Pass);
    node.l2.next(L2Op::Heads, Fate::Fail(L2ErrorKind::Other));
    world.fail_over(world.store.snapshot());
    pass(Duration::from_secs(10)).await;
    assert_eq!(node.cache.stats().reasserted, 2000);
}

/// The nonces in the ledger, oldest first.
async fn ids(world: &World, node: &Node) -> Vec<Nonce> {
    let asked = node.l2.calls().into_iter().find(|call| call.op == L2Op::Sync).expect("it polls");
    let ask = Replica::default().ask(Epoch(1), 100, 0);
    let reply = world.store.sync(&asked.key, &ask).await.expect("in memory");
    reply.ids.into_iter().map(|(_, id)| id).collect()
}

/// A removal whose reply was lost is sent again under another nonce: under the same one, a server that has lost it
/// could number it as before above another history, and a node that knew it would take the two for one.
#[tokio::test(start_paused = true)]
async fn a_removal_that_is_sent_again_has_another_nonce() {
    let world = World::new().await;
    let (one, _two) = two_nodes(&world).await;
    let replica = world.store.snapshot();
    let before = ids(&world, &one).await;
    one.l2.next(L2Op::Advance, Fate::LoseReply);
    // The announcement, which tells the issuer too, is lost with the reply.
    world.bus.disconnect_all();
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    assert_eq!(one.cache.health().pending_removals, 1);
    let lost = ids(&world, &one).await;
    assert_eq!(lost.len(), before.len() + 1, "it has run");
    world.fail_over(replica);
    assert_eq!(ids(&world, &one).await, before, "and is lost");
    until("it is sent again", || one.cache.health().pending_removals == 0).await;
    let again = ids(&world, &one).await;
    assert_eq!(again.len(), before.len() + 1);
    assert_ne!(again.last(), lost.last());
}

/// While the call of a removal is under way, no poll sends it too: it would have two numbers.
#[tokio::test(start_paused = true)]
async fn a_removal_whose_call_is_under_way_is_sent_once() {
    let world = World::new().await;
    let (one, _two) = two_nodes(&world).await;
    let before = ids(&world, &one).await;
    one.l2.next(L2Op::Advance, Fate::Delay(Duration::from_millis(2500)));
    let options = long_fail_safe().l2_hard_timeout(Duration::from_secs(5));
    let _ = one.cache.remove_by_tag("tag").options(options).await.unwrap();
    pass(Duration::from_secs(5)).await;
    assert_eq!(
        ids(&world, &one).await.len(),
        before.len() + 1,
        "three polls saw it without a number"
    );
}
