//! What a node remembers of its recent writes, to compare it with L2 after a failover.

use crinkle_tests::World;
use stats_alloc::Region;

use crate::{ALLOCATOR, TURN};

/// 16 MiB are remembered at most; the tables may have as much spare room, and the ledger and others a little.
const MOST: usize = 24 << 20;

/// 400 MB of values and 64 MB of keys are written, and removed: neither L1 nor L2 holds any of them.
#[tokio::test(start_paused = true)]
async fn large_values_and_long_keys_are_not_held_by_recent_writes() {
    let _turn = TURN.lock().await;
    let world = World::new().await;
    let node = world.node().await;
    let value = "v".repeat(1 << 20);
    let region = Region::new(ALLOCATOR);
    for n in 0..400 {
        let key = format!("large:{n}");
        let _ = node.cache.set(&key, value.clone()).await.expect("stored");
        let _ = node.cache.remove(&key).await.expect("removed");
    }
    for n in 0..2000 {
        let _ = node.cache.remove(format!("{n:0>32000}")).await.expect("removed");
    }
    let change = region.change();
    let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    println!("{kept} bytes are kept");
    assert!(kept < MOST, "{kept}");
    assert!(kept > 8 << 20, "{kept}: they are remembered");
}
