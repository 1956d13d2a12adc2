//! Failovers that take back writes of keys: whoever wrote asserts them again.

use std::time::Duration;

use crinkle_core::EntryOptions;
use crinkle_tests::{Node, World, options, pass, until};

fn long() -> EntryOptions {
    options().duration(Duration::from_secs(600))
}

/// The store goes back to a replica that lacks what was written since, and everybody reconnects.
fn fail_over(world: &World, snapshot: crinkle_core::l2::MemorySnapshot) {
    world.store.restore(snapshot);
    world.bus.disconnect_all();
}

async fn two_nodes(world: &World) -> (Node, Node) {
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(long()).await.expect("stored");
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
    fail_over(&world, replica);
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
    let _ = one.cache.set("key", 2).options(long()).await.unwrap();
    fail_over(&world, replica);
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
        fail_over(&world, replica);
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
    fail_over(&world, replica);
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
    let _ = two.cache.set("key", 2).options(long()).await.unwrap();
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
    fail_over(&world, replica);
    pass(Duration::from_secs(5)).await;
    assert_eq!(one.cache.stats().reasserted, 0);
}
