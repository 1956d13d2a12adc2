//! How long what waited for L2 takes, once L2 is back: L6.

use std::time::Duration;

use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Node, World, pass};

/// A node for which a thousand keys and twenty tags wait.
async fn behind(world: &World) -> Node {
    let node = world.node().await;
    node.l2.down();
    for key in 0..1000 {
        let _ = node.cache.remove(key.to_string()).await.expect("queued");
    }
    for tag in 0..20 {
        let _ = node.cache.remove_by_tag(tag.to_string()).await.expect("queued");
    }
    let health = node.cache.health();
    assert_eq!((health.recovery_backlog, health.pending_removals), (1000, 20));
    node
}

#[tokio::test(start_paused = true)]
async fn what_waits_goes_out_many_at_a_time() {
    let node = behind(&World::new().await).await;
    node.l2.heal();
    for op in L2Op::ALL {
        node.l2.always(op, Fate::Delay(Duration::from_millis(100)));
    }
    pass(Duration::from_secs(5)).await;
    let health = node.cache.health();
    assert_eq!((health.recovery_backlog, health.pending_removals), (0, 0));
}

/// Neither kind stands in the way of the other.
#[tokio::test(start_paused = true)]
async fn tags_that_hang_do_not_hold_back_keys_nor_keys_tags() {
    for hangs in [L2Op::Advance, L2Op::Remove] {
        let node = behind(&World::new().await).await;
        node.l2.heal();
        node.l2.always(hangs, Fate::Hang);
        pass(Duration::from_secs(5)).await;
        let health = node.cache.health();
        let expected = if hangs == L2Op::Advance { (0, 20) } else { (1000, 0) };
        assert_eq!((health.recovery_backlog, health.pending_removals), expected);
    }
}
