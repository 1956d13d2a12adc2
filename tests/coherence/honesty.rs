//! S15: receipts say how far a write got, and never more.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{Cache, EntryOptions, ErrorKind, Receipt, WriteStatus};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{World, go, pass, until};

const OPS: [L2Op; 4] = [L2Op::Set, L2Op::Remove, L2Op::Expire, L2Op::Advance];

async fn write(cache: &Cache, op: L2Op, required: bool) -> Result<Receipt, crinkle_core::Error> {
    match (op, required) {
        (L2Op::Set, false) => cache.set("key", 1).await,
        (L2Op::Set, true) => cache.set("key", 1).require_propagation().await,
        (L2Op::Remove, false) => cache.remove("key").await,
        (L2Op::Remove, true) => cache.remove("key").require_propagation().await,
        (L2Op::Expire, false) => cache.expire("key").await,
        (L2Op::Expire, true) => cache.expire("key").require_propagation().await,
        (_, false) => cache.remove_by_tag("tag").await,
        (_, true) => cache.remove_by_tag("tag").require_propagation().await,
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmed_write_is_done() {
    for world in [World::new().await, World::apart().await] {
        let waits = EntryOptions::default().background_backplane(false);
        let node = world.node_with(|b| b.default_options(waits)).await;
        for op in OPS {
            for required in [false, true] {
                let receipt = write(&node.cache, op, required).await.unwrap();
                assert_eq!(
                    (receipt.l2(), receipt.backplane()),
                    (WriteStatus::Done, WriteStatus::Done)
                );
                assert!(receipt.is_propagated());
                assert_eq!(receipt.token().is_some(), op == L2Op::Advance);
            }
        }
    }
}

/// Where the confirmation is a step of its own and nobody waits for it, it is not called done.
#[tokio::test(start_paused = true)]
async fn a_confirmation_in_the_background_is_queued() {
    let world = World::apart().await;
    let node = world.node().await;
    for op in [L2Op::Set, L2Op::Remove, L2Op::Expire] {
        let receipt = write(&node.cache, op, false).await.unwrap();
        assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, WriteStatus::Queued));
        let receipt = write(&node.cache, op, true).await.unwrap();
        assert_eq!(receipt.backplane(), WriteStatus::Done);
    }
}

#[tokio::test(start_paused = true)]
async fn without_l2_there_is_nothing_to_propagate() {
    let world = World::new().await;
    let cache = world.alone();
    for op in OPS {
        let receipt = write(&cache, op, true).await.unwrap();
        assert_eq!(
            (receipt.l2(), receipt.backplane()),
            (WriteStatus::Skipped, WriteStatus::Skipped)
        );
        assert!(receipt.is_propagated());
    }
}

/// Not done for certain: queued. Perhaps done: unknown. Either is an error if asked for.
#[tokio::test(start_paused = true)]
async fn a_write_that_l2_has_not_confirmed_is_queued_or_unknown_or_an_error() {
    let cases = [
        (Fate::Fail(L2ErrorKind::Full), WriteStatus::Queued),
        (Fate::Fail(L2ErrorKind::Denied), WriteStatus::Queued),
        (Fate::Fail(L2ErrorKind::Disconnected), WriteStatus::Unknown),
        (Fate::LoseReply, WriteStatus::Unknown),
        (Fate::Hang, WriteStatus::Unknown),
    ];
    for (fate, reach) in cases {
        for op in OPS {
            let world = World::new().await;
            let node = world.node().await;
            node.l2.always(op, fate.clone());
            let receipt = write(&node.cache, op, false).await.unwrap();
            assert_eq!(receipt.l2(), reach, "{op:?} {fate:?}");
            assert_ne!(receipt.backplane(), WriteStatus::Done, "{op:?} {fate:?}");
            assert!(!receipt.is_propagated());
            assert_eq!(receipt.token(), None);
            let error = write(&node.cache, op, true).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotPropagated);
            let health = node.cache.health();
            assert!(health.recovery_backlog + health.pending_removals > 0);
            node.l2.heal();
            // A set that may still run holds its invalidation back for its limit and 2 s.
            pass(Duration::from_secs(7)).await;
            let health = node.cache.health();
            assert_eq!(health.recovery_backlog + health.pending_removals, 0, "{op:?} {fate:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_while_l2_is_left_alone_is_queued_and_costs_nothing() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.down();
    pass(Duration::from_secs(6)).await;
    assert!(!node.cache.health().l2_up);
    let before = tokio::time::Instant::now();
    for op in OPS {
        let receipt = write(&node.cache, op, false).await.unwrap();
        assert_eq!(receipt.l2(), WriteStatus::Queued, "{op:?}");
        let error = write(&node.cache, op, true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPropagated);
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// The notification alone fails: L2 has it, and nobody claims that the others know.
#[tokio::test(start_paused = true)]
async fn a_lost_notification_is_unknown() {
    let world = World::apart().await;
    let node = world.node().await;
    for hang in [false, true] {
        node.bus.fail_publish(!hang);
        node.bus.hang_publish(hang);
        for op in OPS {
            let receipt = write(&node.cache, op, false).await.unwrap();
            assert_eq!(
                (receipt.l2(), receipt.backplane()),
                (WriteStatus::Done, WriteStatus::Unknown)
            );
            assert!(!receipt.is_propagated());
            let error = write(&node.cache, op, true).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotPropagated, "{op:?}");
        }
    }
}

/// Another change of the key came in between: the own value is not kept here. L2 has taken both, one after
/// the other, and only L2 knows which was the last.
#[tokio::test(start_paused = true)]
async fn a_set_that_another_write_overlaps_is_done_and_not_kept_here() {
    for insists in [false, true] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let gate = Gate::new();
        one.l2.next(L2Op::Set, Fate::HoldReply(gate.clone()));
        let cache = one.cache.clone();
        let set = go(async move {
            let set = cache.set("key", 1);
            if insists { set.require_propagation().await } else { set.await }
        });
        gate.reached().await;
        let _ = two.cache.set("key", 2).await.unwrap();
        pass(Duration::from_millis(50)).await;
        gate.open();
        assert_eq!(set.await.unwrap().unwrap().l2(), WriteStatus::Done);
        assert!(one.cache.peek::<i32>("key").is_none());
        assert_eq!(one.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
    }
}

/// Several tags are one call; what is not one round trip is still all of it.
#[tokio::test(start_paused = true)]
async fn many_tags_are_removed_in_one_round_trip() {
    let world = World::new().await;
    let node = world.node().await;
    let tags: Vec<String> = (0..50).map(|number| format!("tag:{number}")).collect();
    for tag in &tags {
        let _ = node.cache.set(tag, 1).tags([tag.clone()]).await.unwrap();
    }
    node.l2.forget();
    assert!(node.cache.remove_by_tags(tags.clone()).await.unwrap().is_propagated());
    assert_eq!(node.l2.count(L2Op::Advance), 1);
    for tag in &tags {
        assert!(node.cache.get::<i32>(tag).await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn closing_with_something_queued_says_so_and_without_it_does_not() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.down();
    let _ = node.cache.remove("key").await.unwrap();
    let error = node.cache.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPropagated);
    let node = world.node().await;
    node.l2.always(L2Op::Remove, Fate::Fail(L2ErrorKind::Full));
    let _ = node.cache.remove("key").await.unwrap();
    node.l2.heal();
    node.cache.close().await.unwrap();
}

/// What is not sent while the circuit breaker is open is not sent later in the same call, unannounced, either.
#[tokio::test(start_paused = true)]
async fn a_write_that_began_while_l2_was_left_alone_is_queued_even_if_l2_answers_by_then() {
    let world = World::apart().await;
    let node = world.node().await;
    node.l2.down();
    until("the circuit breaker is open", || !node.cache.health().l2_up).await;
    node.l2.heal();
    node.l2.always(L2Op::Remove, Fate::LoseReply);
    node.l2.forget();
    node.bus.hang_publish(true);
    let patient = EntryOptions::default().l2_hard_timeout(Duration::from_secs(5));
    let cache = node.cache.clone();
    let remove = go(async move { cache.remove("key").options(patient).await });
    until("L2 answers again", || node.cache.health().l2_up).await;
    assert_eq!(remove.await.unwrap().unwrap().l2(), WriteStatus::Queued);
}
