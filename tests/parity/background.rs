//! Writes that do not wait: what holds at once, and what becomes of the rest.

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{EntryOptions, ErrorKind, Reach};
use crinkle_testkit::chaos::{Fate, L2Op};
use crinkle_tests::{Loads, Node, World, options, pass, until};
use tokio::time::Instant;

use crate::{SHORT, any, fresh, long, ms, put, secs};

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
        assert_eq!(set.await.unwrap().l2(), Reach::Queued);
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
        assert_eq!((receipt.l2(), asked.elapsed()), (Reach::Queued, secs(0)));
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

/// Who asks for certainty waits for it.
#[tokio::test(start_paused = true)]
async fn required_propagation_is_waited_for() {
    let world = World::new().await;
    let node = slow(&world).await;
    let sure = long().background_l2(true).require_propagation(true);
    let asked = Instant::now();
    let receipt = node.cache.set("key", 1).options(sure.clone()).await.unwrap();
    assert_eq!((receipt.l2(), asked.elapsed()), (Reach::Done, ms(500)));
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
    for (background, reach) in [(true, Reach::Queued), (false, Reach::Done)] {
        let chosen = EntryOptions::default().background_backplane(background);
        let receipt = node.cache.set("key", 1).options(chosen).await.unwrap();
        assert_eq!((receipt.l2(), receipt.backplane()), (Reach::Done, reach));
    }
}
