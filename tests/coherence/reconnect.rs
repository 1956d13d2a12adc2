//! How often a subscription is made that is killed at once.

use std::time::Duration;

use crinkle_core::{Cache, EntryOptions};
use crinkle_tests::{Node, World, pass, until};

/// What every node tells the others of itself by itself is heard within this.
const ALL_TOLD: Duration = Duration::from_secs(12);

async fn fleet(world: &World) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(world.node().await);
    }
    write(&nodes, 3).await;
    pass(ALL_TOLD).await;
    nodes
}

/// Each node writes keys of its own.
async fn write(nodes: &[Node], count: u32) {
    let options = || EntryOptions::new(Duration::from_secs(3600));
    for (at, node) in nodes.iter().enumerate() {
        for n in 0..count {
            let _ = node
                .cache
                .set(format!("{at}:{n}"), n)
                .options(options())
                .await
                .expect("no trouble");
        }
    }
}

fn resyncs(nodes: &[Node]) -> Vec<u64> {
    nodes.iter().map(|node| node.cache.stats().resyncs).collect()
}

fn since(nodes: &[Node], before: &[u64]) -> Vec<u64> {
    resyncs(nodes).iter().zip(before).map(|(now, before)| now - before).collect()
}

async fn listens(cache: &Cache) {
    until("it listens again", || cache.health().subscribed).await;
}

/// A subscription that is accepted and killed at once, for a minute: by an ACL, an output buffer limit, a proxy.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_killed_at_once_is_not_made_again_in_a_loop() {
    let world = World::new().await;
    let nodes = fleet(&world).await;
    let node = &nodes[0];
    let (made, before) = (node.bus.subscriptions(), resyncs(&nodes));
    for _ in 0..12_000 {
        node.bus.disconnect();
        pass(Duration::from_millis(5)).await;
    }
    // Between 0 and 5 s each, after the first few.
    let made = node.bus.subscriptions() - made;
    assert!((12..60).contains(&made), "{made} subscriptions in a minute");
    assert!(since(&nodes, &before)[0] <= 70, "one resync a poll while it has no subscription");
    listens(&node.cache).await;
    // It has to live for five seconds before the pauses begin again.
    pass(Duration::from_secs(6)).await;
    let made = node.bus.subscriptions();
    node.bus.disconnect();
    pass(Duration::from_millis(60)).await;
    assert_eq!(node.bus.subscriptions(), made + 1);
}
