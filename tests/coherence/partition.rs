//! What a node that was cut off has, once it is back.

use std::time::Duration;

use crinkle_core::l2::L2ErrorKind;
use crinkle_core::{EntryOptions, ErrorKind, FailSafe, Source, ok};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, World, go, kind_of, pass, until};

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

/// A bus that is a server of its own comes back while L2 does not answer. What may have changed meanwhile
/// cannot be verified: it goes on as what it is, for as long as the coherence TTL would have held.
#[tokio::test(start_paused = true)]
async fn a_bus_that_comes_back_while_l2_is_down_does_not_empty_l1() {
    for hangs in [false, true] {
        let world = World::apart().await;
        let (one, two) = (world.node().await, world.node().await);
        let long = || EntryOptions::new(Duration::from_secs(3_600));
        let keys: Vec<_> = (0..20).map(|n| format!("key{n}")).collect();
        one.cache.set_many(keys.iter().map(|key| (key, 1))).options(long()).await.unwrap();
        // It held longer than the coherence TTL: only what was heard since covers it.
        pass(Duration::from_secs(40)).await;
        if hangs {
            one.l2.hang()
        } else {
            one.l2.down()
        }
        pass(Duration::from_millis(10)).await;
        one.bus.cut();
        pass(Duration::from_millis(10)).await;
        let _ = two.cache.set("key0", 2).options(long()).await.unwrap();
        pass(Duration::from_millis(300)).await;
        one.bus.reconnect();
        until("it listens again", || one.cache.health().subscribed).await;
        pass(Duration::from_millis(50)).await;
        let loads = Loads::new();
        for key in &keys {
            let read = one.cache.get::<i32>(key).await.unwrap().expect("it goes on");
            let meta = read.meta();
            assert_eq!((*read, meta.is_stale(), meta.source()), (1, true, Source::L1));
            let read = one.cache.get_or_set(key, loads.value(3)).options(long()).await.unwrap();
            let meta = read.meta();
            assert_eq!((*read, meta.is_stale(), meta.source()), (1, true, Source::L1));
        }
        let many = one.cache.get_many::<i32>(&keys).await.unwrap();
        assert!(many.iter().flatten().filter(|read| read.meta().is_stale()).count() == keys.len());
        let load = |_: Vec<String>| async { ok(Vec::<(String, i32)>::new()) };
        let many = one.cache.get_or_set_many(&keys, load).await.unwrap();
        assert!(many.iter().all(|read| read.meta().is_stale()));
        assert_eq!(loads.count(), 0);

        // A caller that asks for more than that gets no such answer.
        let key = &keys[1];
        assert!(one.cache.get::<i32>(key).strict().await.unwrap().is_none());
        let error = one.cache.get::<i32>(key).require_l2(true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::L2);
        let read = one.cache.get_or_set(key, loads.value(3)).require_l2(true).await;
        assert_eq!(kind_of(read), ErrorKind::L2);
        assert!(one.cache.get::<i32>(key).skip_l2_read(true).await.unwrap().is_none());
        assert!(!one.cache.contains(key).await.unwrap());
        assert!(one.cache.peek::<i32>(key).is_none());

        // What is removed meanwhile is gone.
        let _ = one.cache.remove("key2").await.unwrap();
        let _ = one.cache.expire("key3").await.unwrap();
        for key in ["key2", "key3"] {
            assert!(one.cache.get::<i32>(key).await.unwrap().is_none());
        }

        // And it ends.
        pass(Duration::from_secs(31)).await;
        assert!(one.cache.get::<i32>(key).await.unwrap().is_none());
        assert_eq!(*one.cache.get_or_set(key, loads.value(3)).await.unwrap(), 3);

        one.l2.heal();
        pass(Duration::from_secs(2)).await;
        let read = one.cache.get::<i32>("key0").await.unwrap();
        assert_eq!(read.as_deref(), Some(&2));
    }
}

/// S4: nothing of it is ever said to be fresh, and what L2 answers is believed first.
#[tokio::test(start_paused = true)]
async fn what_a_reconnect_leaves_unverified_is_verified_if_l2_answers() {
    let world = World::apart().await;
    let (one, two) = (world.node().await, world.node().await);
    let long = || EntryOptions::new(Duration::from_secs(3_600));
    for key in ["changed", "same"] {
        let _ = one.cache.set(key, 1).options(long()).await.unwrap();
    }
    one.bus.cut();
    pass(Duration::from_millis(10)).await;
    let _ = two.cache.set("changed", 2).options(long()).await.unwrap();
    one.bus.reconnect();
    until("it listens again", || one.cache.health().subscribed).await;
    for (key, value) in [("changed", 2), ("same", 1)] {
        let read = one.cache.get::<i32>(key).await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale()), (value, false));
    }
}

/// L2 is found to answer again by a call that was on its way before: what was verified before is
/// unverified all the same.
#[tokio::test(start_paused = true)]
async fn a_late_answer_of_l2_ends_no_outage_unnoticed() {
    let world = World::new().await;
    let node = world.node().await;
    let gate = Gate::new();
    node.l2.next(L2Op::Look, Fate::HoldReply(gate.clone()));
    let cache = node.cache.clone();
    let late = go(async move { cache.get::<i32>("key").await });
    gate.reached().await;
    node.l2.down();
    for _ in 0..5 {
        let _ = node.cache.remove("other").await.unwrap();
    }
    assert!(!node.cache.health().l2_up);
    gate.open();
    assert!(late.await.unwrap().unwrap().is_none());
    assert!(node.cache.health().l2_up, "it has answered");
    node.l2.heal();
    pass(Duration::from_secs(2)).await;
    assert_eq!(node.cache.stats().resyncs_l2_back, 1);
}

/// After a failover a node may subscribe again, and still be connected to the server that was the primary: it
/// answers reads with what it had. A `SYNC` writes, so it is refused there.
#[tokio::test(start_paused = true)]
async fn a_new_session_verifies_nothing_before_l2_has_answered_as_a_primary() {
    let world = World::apart().await;
    let node = world.node().await;
    let long = || EntryOptions::new(Duration::from_secs(3_600));
    let keys = ["one", "two", "three"];
    node.cache.set_many(keys.iter().map(|key| (key, 1))).options(long()).await.unwrap();
    let loads = Loads::new();
    for refused in [true, false] {
        if refused {
            node.l2.always(L2Op::Sync, Fate::Fail(L2ErrorKind::Disconnected));
        } else {
            node.l2.heal();
        }
        node.bus.cut();
        pass(Duration::from_millis(10)).await;
        node.bus.reconnect();
        until("it listens again", || node.cache.health().subscribed).await;
        let verified = node.cache.stats().l1_verified;
        let read = node.cache.get::<i32>("one").await.unwrap().expect("the load lock covers it");
        assert_eq!((*read, read.meta().is_stale()), (1, refused));
        let load = loads.value(2);
        let read = node.cache.get_or_set("two", load).options(long()).await.unwrap();
        assert_eq!((*read, read.meta().is_stale()), (1, refused));
        for read in node.cache.get_many::<i32>(keys).await.unwrap() {
            let read = read.expect("the load lock covers it");
            assert_eq!((*read, read.meta().is_stale()), (1, refused));
        }
        assert_eq!(node.cache.stats().l1_verified > verified, !refused);
    }
    assert_eq!(loads.count(), 0);
}

/// Of a batch, the key that has a fallback waits for L2 more briefly than the one that has none. What was decided for it
/// then is not for a caller that came after a removal.
#[tokio::test(start_paused = true)]
async fn who_joins_a_batch_is_not_answered_what_was_removed_since() {
    let world = World::apart().await;
    let node = world.node().await;
    let options = || {
        EntryOptions::new(Duration::from_secs(3_600))
            .fail_safe(FailSafe::default())
            .l2_soft_timeout(Duration::from_millis(100))
            .l2_hard_timeout(Duration::from_secs(2))
    };
    let _ = node.cache.set("tagged", 1).tags(["tag"]).options(options()).await.unwrap();
    node.l2.hang();
    node.bus.cut();
    pass(Duration::from_millis(10)).await;
    node.bus.reconnect();
    until("it listens again", || node.cache.health().subscribed).await;
    let cache = node.cache.clone();
    let batch = go(async move {
        let load = |keys: Vec<String>| async {
            ok(keys.into_iter().map(|key| (key, 2)).collect::<Vec<_>>())
        };
        cache.get_or_set_many(["tagged", "absent"], load).options(options()).await.unwrap()
    });
    pass(Duration::from_millis(500)).await;
    let _ = node.cache.remove_by_tag("tag").background_l2(true).await.unwrap();
    let read = node.cache.get_or_set("tagged", Loads::new().value(3)).options(options());
    assert_eq!(*read.await.unwrap(), 3);
    let batch = batch.await.unwrap();
    assert_eq!((*batch[0], batch[0].meta().is_stale(), *batch[1]), (1, true, 2));
}
