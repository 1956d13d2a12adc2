//! Writes while L2 is away, and what becomes of them: T18, T21, S10, L6.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{Settings, WriteStatus};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, Node, World, go, long_fail_safe, options, pass, until};

const SHORT: Duration = Duration::from_millis(50);

async fn open_breaker(node: &Node) {
    node.l2.down();
    until("the circuit breaker is open", || !node.cache.health().l2_up).await;
}

async fn back(node: &Node) {
    node.l2.heal();
    let drained = || {
        let health = node.cache.health();
        health.l2_up && health.recovery_backlog + health.pending_removals == 0
    };
    until("what waited has gone out", drained).await;
    pass(SHORT).await;
}

/// Each kind of removal, with L2 down: here at once; in L2 and elsewhere when it is back.
#[tokio::test(start_paused = true)]
async fn removals_during_an_outage_hold_here_at_once_and_everywhere_afterwards() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for key in ["key", "expired", "tagged", "other"] {
        let tag = if key == "tagged" { "tag" } else { "none" };
        let _ = one.cache.set(key, 1).tags([tag]).options(long_fail_safe()).await.unwrap();
        two.cache.get::<i32>(key).await.unwrap().unwrap();
    }
    open_breaker(&one).await;
    for receipt in [
        one.cache.remove("key").await.unwrap(),
        one.cache.expire("expired").await.unwrap(),
        one.cache.remove_by_tag("tag").await.unwrap(),
    ] {
        assert_eq!(receipt.l2(), WriteStatus::Queued);
    }
    for key in ["key", "expired", "tagged"] {
        assert!(one.cache.peek::<i32>(key).is_none());
        assert!(one.cache.get::<i32>(key).await.unwrap().is_none());
    }
    assert!(one.cache.peek::<i32>("other").is_some(), "an outage does not switch L1 off");
    back(&one).await;
    for node in [&one, &two] {
        for key in ["key", "tagged"] {
            let read = node.cache.get::<i32>(key).allow_stale().await.unwrap();
            assert!(read.is_none(), "{key}");
        }
        assert!(node.cache.get::<i32>("expired").await.unwrap().is_none());
        let fallback = node.cache.get::<i32>("expired").allow_stale().await.unwrap();
        assert!(fallback.is_some_and(|read| read.meta().is_stale()));
        assert!(node.cache.get::<i32>("other").await.unwrap().is_some());
    }
}

/// Trap 5: what waits counts for L2 reads of this node too, when only the writes fail.
#[tokio::test(start_paused = true)]
async fn a_removal_that_waits_hides_the_record_in_l2_from_this_node() {
    let world = World::new().await;
    let node = world.node().await;
    for key in ["key", "tagged"] {
        let _ = node.cache.set(key, 1).tags([key]).options(long_fail_safe()).await.unwrap();
    }
    for op in [L2Op::Remove, L2Op::Advance] {
        node.l2.always(op, Fate::Fail(L2ErrorKind::Full));
    }
    let _ = node.cache.remove("key").await.unwrap();
    let _ = node.cache.remove_by_tag("tagged").await.unwrap();
    for key in ["key", "tagged"] {
        assert!(node.cache.get::<i32>(key).allow_stale().await.unwrap().is_none(), "{key}");
        let read = node.cache.get_or_set(key, Loads::new().value(2)).tags([key]).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (2, false));
        assert_eq!(node.cache.get::<i32>(key).await.unwrap().as_deref(), Some(&2));
    }
    back(&node).await;
}

/// S9: a read that began while the removal waited has seen the record; when the answer arrives, L2 has
/// heard of the removal, or of something newer, and nothing waits any more.
#[tokio::test(start_paused = true)]
async fn a_record_read_while_its_removal_waited_is_not_answered() {
    for by_set in [false, true] {
        for op in [L2Op::Look, L2Op::Read] {
            let world = World::new().await;
            let node = world.node().await;
            let _ = node.cache.set("key", 1).options(options()).await.unwrap();
            let gate = Gate::new();
            node.l2.next(L2Op::Remove, Fate::Fail(L2ErrorKind::Full));
            let _ = node.cache.remove("key").await.unwrap();
            node.l2.next(op, Fate::HoldReply(gate.clone()));
            let cache = node.cache.clone();
            let read = go(async move {
                if op == L2Op::Look {
                    return cache.get::<i32>("key").allow_stale().await;
                }
                let load = cache.get_or_set("key", Loads::new().value(3)).options(options());
                load.await.map(Some)
            });
            gate.reached().await;
            if by_set {
                let _ = node.cache.set("key", 2).await.unwrap();
            }
            until("it is settled", || node.cache.health().recovery_backlog == 0).await;
            gate.open();
            let answer = read.await.unwrap().unwrap();
            assert_ne!(answer.map(|value| *value), Some(1), "{op:?}, by set: {by_set}");
        }
    }
}

/// W2: a `set` that failed becomes an invalidation, for the others and in L2.
#[tokio::test(start_paused = true)]
async fn a_set_during_an_outage_becomes_an_invalidation() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).options(long_fail_safe()).await.unwrap();
    open_breaker(&one).await;
    let _ = one.cache.set("key", 2).options(long_fail_safe()).await.unwrap();
    assert_eq!(one.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
    back(&one).await;
    assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
    assert!(one.cache.get::<i32>("key").await.unwrap().is_none(), "it was never in L2");
}

/// S3, law Dark: what a set or a factory brought while L2 was away is fresh for X at most.
#[tokio::test(start_paused = true)]
async fn what_was_stored_in_the_dark_is_fresh_for_the_coherence_ttl() {
    let world = World::new().await;
    let node = world.node().await;
    open_breaker(&node).await;
    let _ = node.cache.set("set", 1).options(long_fail_safe()).await.unwrap();
    node.cache.get_or_set("loaded", Loads::new().value(1)).options(long_fail_safe()).await.unwrap();
    pass(Duration::from_secs(29)).await;
    for key in ["set", "loaded"] {
        assert!(node.cache.peek::<i32>(key).is_some());
    }
    pass(Duration::from_secs(2)).await;
    for key in ["set", "loaded"] {
        assert!(node.cache.peek::<i32>(key).is_none());
        let loads = Loads::new();
        let read =
            node.cache.get_or_set(key, loads.value(2)).options(long_fail_safe()).await.unwrap();
        assert_eq!((*read, loads.count()), (2, 1));
    }
}

/// S3: a node that is cut off from everything answers nothing old after X.
#[tokio::test(start_paused = true)]
async fn a_partitioned_node_is_stale_for_the_coherence_ttl_at_most() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).options(long_fail_safe()).await.unwrap();
    two.l2.hang();
    two.bus.cut();
    let _ = one.cache.set("key", 2).options(long_fail_safe()).await.unwrap();
    pass(Duration::from_secs(31)).await;
    assert!(two.cache.peek::<i32>("key").is_none());
    assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
    two.l2.heal();
    two.bus.reconnect();
    until("it is coherent again", || two.cache.health().coherent).await;
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// T18: a newer value that another node wrote meanwhile may be lost, but never replaced by an older.
#[tokio::test(start_paused = true)]
async fn recovery_makes_nothing_older_visible_over_a_newer_write() {
    for set in [false, true] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let _ = one.cache.set("key", 1).options(long_fail_safe()).await.unwrap();
        open_breaker(&one).await;
        if set {
            let _ = one.cache.set("key", 2).options(long_fail_safe()).await.unwrap();
        } else {
            let _ = one.cache.remove("key").await.unwrap();
        }
        let _ = two.cache.set("key", 3).options(long_fail_safe()).await.unwrap();
        back(&one).await;
        for node in [&one, &two] {
            let read = node.cache.get::<i32>("key").await.unwrap().map(|read| *read);
            assert!(matches!(read, None | Some(3 | 4)), "{read:?}");
            let read = node.cache.get_or_set("key", Loads::new().value(4)).await.unwrap();
            assert!([3, 4].contains(&*read));
        }
        // It was sent once: what comes after it stays, on both nodes.
        let _ = two.cache.set("key", 5).options(long_fail_safe()).await.unwrap();
        pass(Duration::from_secs(10)).await;
        for node in [&one, &two] {
            assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&5));
        }
    }
}

/// T18: a newer write of this node settles what waited; it is not undone.
#[tokio::test(start_paused = true)]
async fn a_newer_write_of_the_same_node_settles_what_waited() {
    for fill in [false, true] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        let _ = one.cache.set("key", 1).options(long_fail_safe()).await.unwrap();
        one.l2.next(L2Op::Remove, Fate::Fail(L2ErrorKind::Full));
        let _ = one.cache.remove("key").await.unwrap();
        assert_eq!(one.cache.health().recovery_backlog, 1);
        if fill {
            one.cache
                .get_or_set("key", Loads::new().value(2))
                .options(long_fail_safe())
                .await
                .unwrap();
        } else {
            let _ = one.cache.set("key", 2).options(long_fail_safe()).await.unwrap();
        }
        assert_eq!(one.cache.health().recovery_backlog, 0);
        pass(Duration::from_secs(2)).await;
        for node in [&one, &two] {
            assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
        }
    }
}

/// A full queue becomes a clear, on every node.
#[tokio::test(start_paused = true)]
async fn an_overflowing_queue_becomes_a_clear() {
    let world = World::new().await;
    let settings = Settings::default().recovery_keys(10);
    let one = world.node_with(|builder| builder.settings(settings)).await;
    let two = world.node().await;
    let _ = one.cache.set("unrelated", 1).options(long_fail_safe()).await.unwrap();
    two.cache.get::<i32>("unrelated").await.unwrap().unwrap();
    let keys: Vec<String> = (0..11).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        let _ = two.cache.set(key, 1).options(long_fail_safe()).await.unwrap();
    }
    open_breaker(&one).await;
    for key in &keys {
        let _ = one.cache.remove(key).await.unwrap();
    }
    assert_eq!(one.cache.stats().recovery_overflows, 1);
    assert_eq!(one.cache.health().recovery_backlog, 0);
    assert_eq!(one.cache.health().pending_removals, 1);
    assert!(one.cache.peek::<i32>("unrelated").is_none(), "it holds here at once");
    back(&one).await;
    for node in [&one, &two] {
        for key in keys.iter().map(String::as_str).chain(["unrelated"]) {
            assert!(node.cache.get::<i32>(key).allow_stale().await.unwrap().is_none(), "{key}");
        }
    }
}

/// Only soft ones waited: the clear is soft, and the fallbacks stay.
#[tokio::test(start_paused = true)]
async fn an_overflow_of_expiries_stays_soft() {
    let world = World::new().await;
    let settings = Settings::default().recovery_keys(3);
    let node = world.node_with(|builder| builder.settings(settings)).await;
    let _ = node.cache.set("unrelated", 1).options(long_fail_safe()).await.unwrap();
    open_breaker(&node).await;
    for number in 0..4 {
        let _ = node.cache.expire(number.to_string()).await.unwrap();
    }
    assert_eq!(node.cache.stats().recovery_overflows, 1);
    let read =
        node.cache.get_or_set("unrelated", Loads::new().fail::<_, i32>()).options(long_fail_safe());
    let read = read.await.unwrap();
    assert_eq!((*read, read.meta().is_stale()), (1, true));
}

/// L6: one key that L2 refuses does not hold up the others.
#[tokio::test(start_paused = true)]
async fn one_refused_invalidation_does_not_block_the_rest() {
    let world = World::new().await;
    let node = world.node().await;
    open_breaker(&node).await;
    for key in ["a", "b", "c"] {
        let _ = node.cache.remove(key).await.unwrap();
    }
    node.l2.heal();
    node.l2.next(L2Op::Remove, Fate::Fail(L2ErrorKind::Foreign));
    until("the others have gone out", || node.cache.health().recovery_backlog == 1).await;
    until("so has the refused one", || node.cache.health().recovery_backlog == 0).await;
}

/// T21: the reply is lost after the script ran; the repetition changes nothing.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_repeated_without_harm() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("tagged", 1).tags(["tag"]).options(long_fail_safe()).await.unwrap();
    let _ = one.cache.set("removed", 1).options(long_fail_safe()).await.unwrap();
    one.l2.next(L2Op::Advance, Fate::LoseReply);
    one.l2.next(L2Op::Remove, Fate::LoseReply);
    assert_eq!(one.cache.remove_by_tag("tag").await.unwrap().l2(), WriteStatus::Unknown);
    assert_eq!(one.cache.remove("removed").await.unwrap().l2(), WriteStatus::Unknown);
    pass(SHORT).await;
    for node in [&one, &two] {
        for key in ["tagged", "removed"] {
            assert!(node.cache.get::<i32>(key).allow_stale().await.unwrap().is_none());
        }
    }
    let read = one
        .cache
        .get_or_set("tagged", Loads::new().value(2))
        .tags(["tag"])
        .options(long_fail_safe());
    assert_eq!(*read.await.unwrap(), 2);
    back(&one).await;
    for node in [&one, &two] {
        let read = node.cache.get::<i32>("tagged").await.unwrap();
        assert_eq!(read.as_deref(), Some(&2), "the repetition has the number of the first");
    }
    assert_eq!(one.cache.health().ledger_size, two.cache.health().ledger_size);
    assert_eq!(one.cache.health().ledger_frontier, two.cache.health().ledger_frontier);
}

/// T21 for a fill: it is in L2 and here under the same version, so both agree.
#[tokio::test(start_paused = true)]
async fn a_fill_whose_reply_is_lost_is_answered_and_agrees_with_l2() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.l2.next(L2Op::Put, Fate::LoseReply);
    let read =
        one.cache.get_or_set("key", Loads::new().value(1)).options(long_fail_safe()).await.unwrap();
    assert_eq!((*read, read.meta().is_stale()), (1, false));
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&1));
    pass(Duration::from_secs(31)).await;
    let loads = Loads::new();
    let read = one.cache.get_or_set("key", loads.value(2)).options(long_fail_safe()).await.unwrap();
    assert_eq!((*read, loads.count()), (1, 0), "L2 has it, fresh");
}

/// T21 for a set: the value is here for now, L2 is told to forget it, nobody keeps an older one.
#[tokio::test(start_paused = true)]
async fn a_set_whose_reply_is_lost_leaves_nothing_older() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = two.cache.set("key", 1).options(long_fail_safe()).await.unwrap();
    one.l2.next(L2Op::Set, Fate::LoseReply);
    assert_eq!(
        one.cache.set("key", 2).options(long_fail_safe()).await.unwrap().l2(),
        WriteStatus::Unknown
    );
    assert_eq!(one.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2), "here at once");
    until("L2 has been told", || one.cache.health().recovery_backlog == 0).await;
    pass(SHORT).await;
    for node in [&one, &two] {
        let read = node.cache.get::<i32>("key").allow_stale().await.unwrap();
        assert!(read.is_none(), "nobody keeps what L2 may not have, nor what was before");
    }
    let _ = two.cache.set("key", 3).options(long_fail_safe()).await.unwrap();
    pass(Duration::from_secs(10)).await;
    for node in [&one, &two] {
        assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&3));
    }
}

/// Start-up with everything down: the cache runs on L1 and joins in when it can.
#[tokio::test(start_paused = true)]
async fn a_node_that_starts_without_l2_and_backplane_works_and_joins_later() {
    let world = World::new().await;
    let other = world.node().await;
    let _ = other.cache.set("shared", 1).options(long_fail_safe()).await.unwrap();
    let node = world.cold(
        |builder| builder,
        |l2, bus| {
            l2.down();
            bus.cut();
        },
    );
    let read = node.cache.get_or_set("key", Loads::new().value(1)).await.unwrap();
    assert_eq!(*read, 1);
    assert!(node.cache.peek::<i32>("key").is_some());
    assert!(node.cache.get::<i32>("shared").await.unwrap().is_none());
    let _ = node.cache.remove_by_tag("early").await.unwrap();
    let _ = node.cache.remove("shared").await.unwrap();
    pass(Duration::from_secs(10)).await;
    let health = node.cache.health();
    assert_eq!((health.l2_up, health.subscribed), (false, false));
    assert_eq!((health.pending_removals, health.recovery_backlog), (1, 1));
    node.bus.reconnect();
    back(&node).await;
    node.cache.ready().await.unwrap();
    assert!(other.cache.get::<i32>("shared").await.unwrap().is_none());
    let _ = other.cache.set("shared", 2).options(long_fail_safe()).await.unwrap();
    assert_eq!(node.cache.get::<i32>("shared").await.unwrap().as_deref(), Some(&2));
}

/// W2: a caller that stops waiting for a write has still begun it.
#[tokio::test(start_paused = true)]
async fn a_removal_whose_caller_went_away_is_repeated() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).await.unwrap();
    one.l2.always(L2Op::Remove, Fate::Hang);
    let impatient =
        tokio::time::timeout(Duration::from_millis(10), one.cache.remove("key").into_future());
    impatient.await.unwrap_err();
    assert_eq!(one.cache.health().recovery_backlog, 1);
    one.l2.heal();
    pass(Duration::from_secs(3)).await;
    assert_eq!(one.cache.health().recovery_backlog, 0);
    assert!(two.cache.get::<i32>("key").await.unwrap().is_none());
}

/// A `set` before the ledger was met sends nothing, so it says nothing about L2 either.
#[tokio::test(start_paused = true)]
async fn sets_before_the_ledger_was_met_do_not_keep_the_breaker_closed() {
    let world = World::new().await;
    let node = world.cold(|builder| builder, |l2, _| l2.down());
    for _ in 0..100 {
        assert_ne!(node.cache.set("key", 1).await.unwrap().l2(), WriteStatus::Done);
        pass(Duration::from_millis(100)).await;
    }
    assert!(!node.cache.health().l2_up);
}
