//! What a node that was cut off has, once it is back.

use std::time::Duration;

use crinkle_core::EntryOptions;
use crinkle_tests::{Loads, World, pass};

/// L8: after a partition what did not change is verified as it is read, not loaded again.
#[tokio::test(start_paused = true)]
async fn a_partitioned_node_keeps_its_entries() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let long = EntryOptions::new(Duration::from_secs(3_600));
    let (keys, loads) = ((0..1_000).map(|n| format!("key{n}")).collect::<Vec<_>>(), Loads::new());
    one.cache.set_many(keys.iter().map(|key| (key, 1))).options(long.clone()).await.unwrap();
    one.l2.down();
    one.bus.cut();
    pass(Duration::from_secs(35)).await;
    let _ = two.cache.remove_many(&keys[..20]).await.unwrap();
    one.l2.heal();
    one.bus.reconnect();
    pass(Duration::from_secs(8)).await;
    let before = one.cache.stats().l1_verified;
    for key in &keys {
        let _ = one.cache.get_or_set(key, loads.value(2)).options(long.clone()).await.unwrap();
    }
    assert_eq!(loads.count(), 20, "what was removed, and nothing else");
    assert_eq!(one.cache.stats().l1_verified - before, 980);
}
