//! A `set` that runs when nobody waits for it any more: S10.

use std::time::Duration;

use crinkle_core::WriteStatus;
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{World, long_fail_safe, pass};

/// Trap 14: a `set` whose bytes were stuck arrives when its caller has given up, over a newer one. If it
/// was in time it is in L2 until it is invalidated; if not, the store refuses it.
#[tokio::test(start_paused = true)]
async fn a_set_that_reaches_the_store_late_makes_nothing_older_visible() {
    for (late_ms, in_time) in
        [(1200, true), (1400, true), (2000, false), (5000, false), (20_000, false)]
    {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let patient = long_fail_safe().l2_hard_timeout(Duration::from_secs(1));
        one.l2.next(L2Op::Set, Fate::Late(Duration::from_millis(late_ms)));
        let stuck = one.cache.set("key", 1).options(patient).await.unwrap();
        assert_eq!(stuck.l2(), WriteStatus::Unknown);
        let _ = two.cache.set("key", 2).options(long_fail_safe()).await.unwrap();
        pass(Duration::from_millis(late_ms) - Duration::from_millis(990)).await;
        // Now it has arrived: somebody reads what is in L2 before it is invalidated.
        let read = two.cache.get::<i32>("key").await.unwrap().map(|read| *read);
        let expected = if in_time { Some(1) } else { None };
        assert_eq!(read, expected, "after {late_ms} ms");
        pass(Duration::from_secs(4)).await;
        assert_eq!(one.cache.health().recovery_backlog, 0);
        for node in [&one, &two] {
            let read = node.cache.get::<i32>("key").allow_stale().await.unwrap();
            assert_ne!(read.map(|read| *read), Some(1), "after {late_ms} ms");
        }
        let _ = two.cache.set("key", 3).options(long_fail_safe()).await.unwrap();
        pass(Duration::from_secs(10)).await;
        for node in [&one, &two] {
            assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&3));
        }
    }
}

/// S10: a `set` that was given up may still run, over a newer one; what follows it is not settled by
/// the newer one before that has become impossible.
#[tokio::test(start_paused = true)]
async fn a_set_of_unknown_outcome_is_followed_up_however_many_come_after_it() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.always(L2Op::Set, Fate::Hang);
    let receipt = node.cache.set("key", 1).options(long_fail_safe()).await.unwrap();
    assert_eq!(receipt.l2(), WriteStatus::Unknown);
    node.l2.heal();
    assert_eq!(
        node.cache.set("key", 2).options(long_fail_safe()).await.unwrap().l2(),
        WriteStatus::Done
    );
    assert_eq!(node.cache.health().recovery_backlog, 1, "the first may still run");
    pass(Duration::from_secs(7)).await;
    assert_eq!(node.cache.health().recovery_backlog, 0);
    assert!(node.cache.get::<i32>("key").await.unwrap().is_none(), "nobody knows which one it is");
}
