//! Writes that do not wait: what holds at once, and what becomes of the rest.

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{Cache, EntryOptions, ErrorKind, PendingWrites, Receipt, WriteStatus};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Loads, Node, World, long, ms, options, pass, until};
use tokio::time::Instant;

use crate::{SHORT, any, fresh, put, secs};

/// A node whose L2 takes half a second for each write.
async fn slow(world: &World) -> Node {
    let node = world.node().await;
    for op in [L2Op::Set, L2Op::Put, L2Op::Remove, L2Op::Expire] {
        node.l2.always(op, Fate::Delay(ms(500)));
    }
    node
}

#[tokio::test(start_paused = true)]
async fn a_set_in_the_background_holds_here_at_once_and_in_l2_later() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (slow(&world).await, world.node().await);
        put(&two.cache, "key", 1, &[]).await;
        pass(SHORT).await;
        let asked = Instant::now();
        let set = one.cache.set("key", 2).options(long().background_l2(true));
        assert_eq!(set.await.unwrap().l2(), WriteStatus::Queued);
        assert_eq!(asked.elapsed(), secs(0));
        assert_eq!(one.cache.peek::<i32>("key").as_deref(), Some(&2));
        pass(ms(500) + SHORT).await;
        for node in [&one, &two] {
            assert_eq!(fresh(&node.cache, "key").await, Some(2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_in_the_background_answers_before_l2_has_the_value() {
    let world = World::new().await;
    let (one, two) = (slow(&world).await, world.node().await);
    for (background, waits) in [(true, 0), (false, 500)] {
        let key = format!("{background}");
        let asked = Instant::now();
        let chosen = long().background_l2(background);
        let read = one.cache.get_or_set(&key, Loads::new().value(1)).options(chosen);
        assert_eq!(*read.await.unwrap(), 1);
        assert_eq!(asked.elapsed(), ms(waits));
        pass(ms(500) + SHORT).await;
        assert_eq!(fresh(&two.cache, &key).await, Some(1));
    }
}

/// What was removed in the background is gone for this node, though L2 still has it.
#[tokio::test(start_paused = true)]
async fn a_removal_in_the_background_holds_here_at_once() {
    let world = World::new().await;
    let (one, two) = (slow(&world).await, world.node().await);
    for (key, left) in [("removed", None), ("expired", Some(1))] {
        let _ = two.cache.set(key, 1).options(options()).await.unwrap();
        pass(SHORT).await;
        assert_eq!(fresh(&one.cache, key).await, Some(1));
        let asked = Instant::now();
        let receipt = match left {
            None => one.cache.remove(key).background_l2(true).await.unwrap(),
            Some(_) => one.cache.expire(key).background_l2(true).await.unwrap(),
        };
        assert_eq!((receipt.l2(), asked.elapsed()), (WriteStatus::Queued, secs(0)));
        assert!(one.cache.peek::<i32>(key).is_none());
        assert_eq!(fresh::<i32>(&one.cache, key).await, None, "{key}: not from L2 either");
        assert_eq!(any(&one.cache, key).await, left);
        pass(ms(500) + SHORT).await;
        for node in [&one, &two] {
            assert_eq!(fresh::<i32>(&node.cache, key).await, None, "{key}");
            assert_eq!(any(&node.cache, key).await, left, "{key}");
        }
    }
}

/// A read between the two halves of a background `set` finds the new value or none.
#[tokio::test(start_paused = true)]
async fn a_set_in_the_background_is_not_undone_by_a_read() {
    let world = World::new().await;
    let node = slow(&world).await;
    node.l2.next(L2Op::Set, Fate::Pass);
    put(&node.cache, "key", 1, &[]).await;
    let _ = node.cache.set("key", 2).options(long().background_l2(true)).await.unwrap();
    let read = node.cache.get_or_set("key", Loads::new().value(3)).skip_l1_read(true);
    assert_ne!(*read.await.unwrap(), 1);
    pass(secs(1)).await;
    assert_ne!(fresh(&node.cache, "key").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_background_write_that_fails_becomes_an_invalidation() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&two.cache, "key", 1, &[]).await;
    pass(SHORT).await;
    one.l2.next(L2Op::Set, Fate::Fail(L2ErrorKind::Full));
    let _ = one.cache.set("key", 2).options(long().background_l2(true)).await.unwrap();
    until("it has failed", || one.cache.stats().queued == 1).await;
    until("the others know", || one.cache.health().recovery_backlog == 0).await;
    pass(SHORT).await;
    for node in [&one, &two] {
        assert_ne!(fresh(&node.cache, "key").await, Some(1));
    }
}

/// A removal by tags, or of everything.
async fn remove(cache: &Cache, what: &str, background: bool) -> Receipt {
    let call = match what {
        "tag" => cache.remove_by_tag("tag"),
        "tags" => cache.remove_by_tags(["tag", "other"]),
        "many tags" => {
            cache.remove_by_tags((0..200).map(|at| format!("tag{at}")).chain(["tag".into()]))
        }
        "expired" => cache.expire_by_tag("tag"),
        "cleared" => cache.expire_all(),
        _ => cache.remove_all(),
    };
    call.background_l2(background).await.expect("a receipt")
}

const REMOVALS: [&str; 6] = ["tag", "tags", "many tags", "expired", "cleared", "cleared hard"];

#[tokio::test(start_paused = true)]
async fn a_removal_by_tag_in_the_background_holds_here_at_once_and_in_l2_later() {
    for what in REMOVALS {
        for world in [World::new().await, World::apart().await] {
            let (one, two) = (world.node().await, world.node().await);
            one.l2.always(L2Op::Advance, Fate::Delay(ms(500)));
            put(&two.cache, "key", 1, &["tag"]).await;
            pass(SHORT).await;
            assert_eq!(fresh(&one.cache, "key").await, Some(1));
            let asked = Instant::now();
            let receipt = remove(&one.cache, what, true).await;
            assert_eq!(
                (receipt.l2(), receipt.backplane()),
                (WriteStatus::Queued, WriteStatus::Queued)
            );
            assert_eq!((receipt.token(), asked.elapsed()), (None, secs(0)), "{what}");
            assert!(one.cache.peek::<i32>("key").is_none(), "{what}");
            assert_eq!(fresh::<i32>(&one.cache, "key").await, None, "{what}: not from L2 either");
            assert_eq!(
                one.cache.health().pending_removals,
                if what == "many tags" { 4 } else { 1 }
            );
            pass(ms(500) + SHORT).await;
            assert_eq!(one.cache.health().pending_removals, 0, "{what}");
            for node in [&one, &two] {
                assert_eq!(fresh::<i32>(&node.cache, "key").await, None, "{what}");
            }
            put(&one.cache, "key", 2, &["tag"]).await;
            pass(SHORT).await;
            for node in [&one, &two] {
                assert_eq!(
                    fresh(&node.cache, "key").await,
                    Some(2),
                    "{what}: what comes later stays"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_by_tag_in_the_background_that_fails_is_queued_and_told() {
    for what in REMOVALS {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        put(&two.cache, "key", 1, &["tag"]).await;
        pass(SHORT).await;
        one.l2.always(L2Op::Advance, Fate::Fail(L2ErrorKind::Full));
        let _ = remove(&one.cache, what, true).await;
        until("it has failed", || one.cache.stats().queued >= 1).await;
        assert!(one.cache.health().pending_removals >= 1, "{what}");
        assert_eq!(fresh::<i32>(&one.cache, "key").await, None, "{what}");
        let error = one.cache.close().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPropagated, "{what}");
        let pending = error.downcast_ref::<PendingWrites>().expect("what is lost");
        assert!(pending.removals >= 1, "{what}: {pending}");

        let three = world.node().await;
        three.l2.next(L2Op::Advance, Fate::Fail(L2ErrorKind::Full));
        let _ = remove(&three.cache, what, true).await;
        until("recovery has sent it", || three.cache.health().pending_removals == 0).await;
        pass(SHORT).await;
        assert_eq!(fresh::<i32>(&two.cache, "key").await, None, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_removals_by_tag_in_the_background() {
    for what in REMOVALS {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        one.l2.always(L2Op::Advance, Fate::Delay(ms(500)));
        put(&two.cache, "key", 1, &["tag"]).await;
        pass(SHORT).await;
        let _ = remove(&one.cache, what, true).await;
        one.cache.close().await.unwrap();
        pass(SHORT).await;
        assert_eq!(fresh::<i32>(&two.cache, "key").await, None, "{what}");
        // Of a cache that is closed nobody else would wait for it.
        put(&two.cache, "key", 1, &["tag"]).await;
        let receipt = remove(&one.cache, what, true).await;
        assert_eq!(receipt.l2(), WriteStatus::Done, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_by_tag_that_requires_propagation_is_waited_for() {
    let world = World::new().await;
    let node = world.node().await;
    node.l2.always(L2Op::Advance, Fate::Delay(ms(500)));
    let asked = Instant::now();
    let removal = node.cache.remove_by_tag("tag").background_l2(true).require_propagation();
    assert_eq!((removal.await.unwrap().l2(), asked.elapsed()), (WriteStatus::Done, ms(500)));
}

/// The default of a cache counts as well, and for a call that removes a key with tags.
#[tokio::test(start_paused = true)]
async fn removals_of_keys_and_tags_in_the_background_hold_here_at_once() {
    let world = World::new().await;
    let defaults = long().background_l2(true);
    let one = world.node_with(|builder| builder.default_options(defaults)).await;
    let two = world.node().await;
    for op in [L2Op::Advance, L2Op::Remove] {
        one.l2.always(op, Fate::Delay(ms(500)));
    }
    put(&two.cache, "key", 1, &[]).await;
    put(&two.cache, "tagged", 1, &["tag"]).await;
    pass(SHORT).await;
    let asked = Instant::now();
    let receipt = one.cache.remove("key").and_tags(["tag"]).await.unwrap();
    assert_eq!(
        (receipt.l2(), receipt.token(), asked.elapsed()),
        (WriteStatus::Queued, None, secs(0))
    );
    for key in ["key", "tagged"] {
        assert_eq!(fresh::<i32>(&one.cache, key).await, None, "{key}");
    }
    one.cache.close().await.unwrap();
    for key in ["key", "tagged"] {
        assert_eq!(fresh::<i32>(&two.cache, key).await, None, "{key}");
    }
}

/// Who asks for certainty waits for it.
#[tokio::test(start_paused = true)]
async fn required_propagation_is_waited_for() {
    let world = World::new().await;
    let node = slow(&world).await;
    let sure = long().background_l2(true).require_propagation(true);
    let asked = Instant::now();
    let receipt = node.cache.set("key", 1).options(sure.clone()).await.unwrap();
    assert_eq!((receipt.l2(), asked.elapsed()), (WriteStatus::Done, ms(500)));
    node.l2.next(L2Op::Set, Fate::Fail(L2ErrorKind::Full));
    let error = node.cache.set("key", 2).options(sure).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPropagated);
}

/// The slow first write must not end up over the quick second one, on any level of any node.
#[tokio::test(start_paused = true)]
async fn writes_of_a_key_in_the_background_leave_all_copies_equal() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (world.node().await, world.node().await);
        one.l2.next(L2Op::Set, Fate::Delay(ms(500)));
        let _ = one.cache.set("key", 1).options(long().background_l2(true)).await.unwrap();
        let _ = one.cache.set("key", 2).options(long().background_l2(true)).await.unwrap();
        pass(secs(3)).await;
        let third = world.node().await;
        let stored = fresh::<i32>(&third.cache, "key").await;
        for node in [&one, &two] {
            assert_eq!(fresh::<i32>(&node.cache, "key").await, stored);
        }
    }
}

/// Closing waits for what goes on in the background.
#[tokio::test(start_paused = true)]
async fn closing_waits_for_writes_in_the_background() {
    let world = World::new().await;
    let (one, two) = (slow(&world).await, world.node().await);
    let _ = one.cache.set("key", 1).options(long().background_l2(true)).await.unwrap();
    one.cache.close().await.unwrap();
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
}

/// The answer of L2 is waited for, the word to the others is not, unless the call says so.
#[tokio::test(start_paused = true)]
async fn the_confirmation_to_others_is_waited_for_if_asked() {
    let world = World::apart().await;
    let node = world.node().await;
    for (background, reach) in [(true, WriteStatus::Queued), (false, WriteStatus::Done)] {
        let chosen = EntryOptions::default().background_backplane(background);
        let receipt = node.cache.set("key", 1).options(chosen).await.unwrap();
        assert_eq!((receipt.l2(), receipt.backplane()), (WriteStatus::Done, reach));
    }
}
