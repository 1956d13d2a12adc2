//! Loads that an invalidation overtakes: T1, T2, T3, T4, T22.

use std::time::Duration;

use crinkle_core::{EntryOptions, ErrorKind, Source};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, World, gated, go, kind_of, load, options, pass, until};

const SHORT: Duration = Duration::from_millis(50);

/// T1: the load that its caller gave up on completes in the background, after the removal.
#[tokio::test(start_paused = true)]
async fn a_timed_out_load_completed_after_remove_by_tag_is_never_served() {
    for soft in [false, true] {
        let world = World::new().await;
        let node = world.node().await;
        let gate = Gate::new();
        let mut options = options().factory_hard_timeout(SHORT);
        if soft {
            let _ = node.cache.set("key", 1).tags(["tag"]).options(options.clone()).await.unwrap();
            let _ = node.cache.expire("key").await.unwrap();
            options = options.factory_soft_timeout(SHORT);
        }
        let caller = load(&node.cache, "key", &["tag"], options.clone(), gated(&gate, 2));
        gate.reached().await;
        let answer = caller.await.unwrap();
        match answer {
            Ok(fallback) => assert!(soft && *fallback == 1 && fallback.meta().is_stale()),
            Err(error) => assert!(!soft && error.kind() == ErrorKind::FactoryTimeout),
        }
        let _ = node.cache.remove_by_tag("tag").await.unwrap();
        gate.open();
        until("the load has ended", || node.cache.health().in_flight == 0).await;
        assert!(node.cache.peek::<i32>("key").is_none());
        assert!(node.cache.get::<i32>("key").allow_stale().await.unwrap().is_none());
        let other = world.node().await;
        assert!(other.cache.get::<i32>("key").allow_stale().await.unwrap().is_none());
        let loads = Loads::new();
        let read = node.cache.get_or_set("key", loads.value(3)).options(options).await.unwrap();
        assert_eq!((*read, loads.count()), (3, 1));
    }
}

/// T1: the same on another node than the one that removes.
#[tokio::test(start_paused = true)]
async fn a_background_load_is_hidden_by_another_nodes_remove_by_tag() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let options = EntryOptions::default().factory_hard_timeout(SHORT);
    let caller = load(&one.cache, "key", &["tag"], options, gated(&gate, 1));
    gate.reached().await;
    assert_eq!(kind_of(caller.await.unwrap()), ErrorKind::FactoryTimeout);
    let token = two.cache.remove_by_tag("tag").await.unwrap().token();
    assert!(token.is_some());
    gate.open();
    until("the load has ended", || one.cache.health().in_flight == 0).await;
    for node in [&one, &two] {
        assert!(node.cache.get::<i32>("key").allow_stale().await.unwrap().is_none());
    }
}

/// T2, S1: joiners that came after the removal load for themselves.
#[tokio::test(start_paused = true)]
async fn a_foreground_load_overtaken_by_remove_by_tag_is_for_earlier_callers_only() {
    let world = World::new().await;
    let node = world.node().await;
    let gate = Gate::new();
    let loads = Loads::new();
    let early = load(&node.cache, "key", &["tag"], options(), loads.gated(&gate, 1));
    gate.reached().await;
    let joined = load(&node.cache, "key", &["tag"], options(), loads.value(7));
    until("the second caller has joined", || node.cache.stats().joined == 1).await;
    let _ = node.cache.remove_by_tag("tag").await.unwrap();
    let late = load(&node.cache, "key", &["tag"], options(), loads.value(2));
    pass(SHORT).await;
    gate.open();
    let early = early.await.unwrap().unwrap();
    assert_eq!((*early, early.meta().is_stale()), (1, true));
    let joined = joined.await.unwrap().unwrap();
    assert_eq!((*joined, joined.meta().is_stale()), (1, true));
    let late = late.await.unwrap().unwrap();
    assert_eq!((*late, late.meta().is_stale()), (2, false));
    assert_eq!(loads.count(), 2);
    assert_eq!(node.cache.peek::<i32>("key").as_deref(), Some(&2));
}

/// T2 with a clear of either kind, which hides whatever the tags are.
#[tokio::test(start_paused = true)]
async fn a_foreground_load_overtaken_by_a_clear_is_not_kept() {
    for hard in [false, true] {
        let world = World::new().await;
        let node = world.node().await;
        let gate = Gate::new();
        let early = load(&node.cache, "key", &[], EntryOptions::default(), gated(&gate, 1));
        gate.reached().await;
        if hard {
            let _ = node.cache.remove_all().await.unwrap();
        } else {
            let _ = node.cache.expire_all().await.unwrap();
        }
        gate.open();
        assert!(early.await.unwrap().unwrap().meta().is_stale());
        assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
    }
}

/// T2 without L2: the cache's own ledger numbers the removal.
#[tokio::test(start_paused = true)]
async fn a_load_overtaken_by_remove_by_tag_is_not_kept_in_a_cache_without_l2() {
    let world = World::new().await;
    let cache = world.alone();
    let gate = Gate::new();
    let early = load(&cache, "key", &["tag"], EntryOptions::default(), gated(&gate, 1));
    gate.reached().await;
    let _ = cache.remove_by_tag("tag").await.unwrap();
    gate.open();
    assert!(early.await.unwrap().unwrap().meta().is_stale());
    assert!(cache.get::<i32>("key").await.unwrap().is_none());
}

/// T2, Pending: L2 does not number the removal, yet it holds here at once.
#[tokio::test(start_paused = true)]
async fn a_load_overtaken_by_a_removal_without_a_number_is_not_kept() {
    let world = World::new().await;
    let node = world.node().await;
    let gate = Gate::new();
    let early = load(&node.cache, "key", &["tag"], EntryOptions::default(), gated(&gate, 1));
    gate.reached().await;
    node.l2.always(L2Op::Advance, Fate::Hang);
    let cache = node.cache.clone();
    let removal = go(async move { cache.remove_by_tag("tag").await });
    until("the removal has begun", || node.cache.health().pending_removals == 1).await;
    gate.open();
    assert!(early.await.unwrap().unwrap().meta().is_stale());
    assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
    assert!(!removal.await.unwrap().unwrap().is_propagated());
    let _ = node.cache.set("key", 2).tags(["tag"]).await.unwrap();
    assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// T3 on the same node.
#[tokio::test(start_paused = true)]
async fn a_load_overtaken_by_remove_is_for_earlier_callers_only() {
    let world = World::new().await;
    for (key, cache) in [("alone", world.alone()), ("shared", world.node().await.cache)] {
        let (gate, loads) = (Gate::new(), Loads::new());
        let early = load(&cache, key, &[], EntryOptions::default(), loads.gated(&gate, 1));
        gate.reached().await;
        let _ = cache.remove(key).await.unwrap();
        let late = load(&cache, key, &[], EntryOptions::default(), loads.value(2));
        assert_eq!(*late.await.unwrap().unwrap(), 2, "nobody waits for the fenced load");
        gate.open();
        let early = early.await.unwrap().unwrap();
        assert_eq!((*early, early.meta().is_stale()), (1, true));
        assert_eq!(*cache.get::<i32>(key).await.unwrap().unwrap(), 2);
        assert_eq!(loads.count(), 2);
    }
}

/// T3 from another node, with the notification and without it (the compare in L2 alone).
#[tokio::test(start_paused = true)]
async fn a_load_overtaken_by_another_nodes_remove_is_not_kept() {
    for heard in [true, false] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        if !heard {
            one.bus.lose(1);
        }
        let gate = Gate::new();
        let early = load(&one.cache, "key", &[], EntryOptions::default(), gated(&gate, 1));
        gate.reached().await;
        let _ = two.cache.remove("key").await.unwrap();
        pass(SHORT).await;
        gate.open();
        let early = early.await.unwrap().unwrap();
        assert_eq!((*early, early.meta().is_stale()), (1, true));
        for node in [&one, &two] {
            assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
        }
    }
}

/// T4: a slow load against a newer `set`, here and elsewhere, heard and not.
#[tokio::test(start_paused = true)]
async fn a_slow_load_never_replaces_a_newer_set() {
    for (here, heard) in [(true, true), (false, true), (false, false)] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        if !heard {
            one.bus.lose(1);
        }
        let gate = Gate::new();
        let slow = load(&one.cache, "key", &[], EntryOptions::default(), gated(&gate, 1));
        gate.reached().await;
        let writer = if here { &one } else { &two };
        let _ = writer.cache.set("key", 2).await.unwrap();
        pass(SHORT).await;
        gate.open();
        assert_eq!(*slow.await.unwrap().unwrap(), 1);
        for node in [&one, &two] {
            let read = node.cache.get::<i32>("key").await.unwrap();
            assert_eq!(read.as_deref(), Some(&2), "here {here}, heard {heard}");
        }
    }
}

/// T4 on a store that cannot announce as it writes.
#[tokio::test(start_paused = true)]
async fn a_slow_load_never_replaces_a_newer_set_on_a_store_that_announces_nothing() {
    let world = World::apart().await;
    let (one, two) = (world.node().await, world.node().await);
    let gate = Gate::new();
    let slow = load(&one.cache, "key", &[], EntryOptions::default(), gated(&gate, 1));
    gate.reached().await;
    let _ = two.cache.set("key", 2).await.unwrap();
    pass(SHORT).await;
    gate.open();
    assert_eq!(*slow.await.unwrap().unwrap(), 1);
    for node in [&one, &two] {
        assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
    }
}

/// A refresh of a stale record against a newer `set`: the version compared is the stale one's.
#[tokio::test(start_paused = true)]
async fn a_slow_refresh_never_replaces_a_newer_set() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(Duration::from_secs(11)).await;
    one.bus.lose(1);
    let gate = Gate::new();
    let slow = load(&one.cache, "key", &[], options(), gated(&gate, 2));
    gate.reached().await;
    let _ = two.cache.set("key", 3).options(options()).await.unwrap();
    gate.open();
    assert_eq!(*slow.await.unwrap().unwrap(), 2);
    for node in [&one, &two] {
        assert_eq!(node.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&3));
    }
}

/// T22: the reply of a read is still on its way when the message that invalidates it arrives.
#[tokio::test(start_paused = true)]
async fn a_message_that_overtakes_a_get_wins() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).await.unwrap();
    pass(SHORT).await;
    for newer in [None, Some(2)] {
        let gate = Gate::new();
        two.l2.next(L2Op::Look, Fate::HoldReply(gate.clone()));
        let cache = two.cache.clone();
        let read = go(async move { cache.get::<i32>("key").await });
        gate.reached().await;
        match newer {
            Some(value) => drop(one.cache.set("key", value).await.unwrap()),
            None => drop(one.cache.remove("key").await.unwrap()),
        }
        pass(SHORT).await;
        gate.open();
        read.await.unwrap().unwrap();
        assert!(two.cache.peek::<i32>("key").is_none(), "what was overtaken is not kept");
        assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref().copied(), newer);
    }
}

/// T22 for `get_or_set`.
#[tokio::test(start_paused = true)]
async fn a_message_that_overtakes_the_read_of_a_load_wins() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).await.unwrap();
    pass(SHORT).await;
    let gate = Gate::new();
    two.l2.next(L2Op::Read, Fate::HoldReply(gate.clone()));
    let early = load(&two.cache, "key", &[], EntryOptions::default(), Loads::new().value(9));
    gate.reached().await;
    let _ = one.cache.remove("key").await.unwrap();
    pass(SHORT).await;
    let late = load(&two.cache, "key", &[], EntryOptions::default(), Loads::new().value(2));
    let late = late.await.unwrap().unwrap();
    gate.open();
    let early = early.await.unwrap().unwrap();
    assert_eq!((*early, early.meta().is_stale()), (1, true), "it came before the removal");
    assert_eq!((*late, late.meta().source()), (2, Source::Factory));
    assert_eq!(two.cache.get::<i32>("key").await.unwrap().as_deref(), Some(&2));
}

/// T22 for tags: the barrier arrives before the reply of the read.
#[tokio::test(start_paused = true)]
async fn a_barrier_that_overtakes_a_read_hides_what_it_brings() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).tags(["tag"]).await.unwrap();
    pass(SHORT).await;
    let gate = Gate::new();
    two.l2.next(L2Op::Look, Fate::HoldReply(gate.clone()));
    let cache = two.cache.clone();
    let read = go(async move { cache.get::<i32>("key").allow_stale().await });
    gate.reached().await;
    let _ = one.cache.remove_by_tag("tag").await.unwrap();
    pass(SHORT).await;
    gate.open();
    assert!(read.await.unwrap().unwrap().is_none());
    assert!(two.cache.peek::<i32>("key").is_none());
}

/// Join: L2 refuses the fill because of a removal this node never heard of. Callers that came after
/// the load began read again.
#[tokio::test(start_paused = true)]
async fn a_refused_fill_is_for_the_caller_that_led_only() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.bus.lose(1);
    let (gate, loads) = (Gate::new(), Loads::new());
    let early = load(&one.cache, "key", &[], EntryOptions::default(), loads.gated(&gate, 1));
    gate.reached().await;
    let _ = two.cache.remove("key").await.unwrap();
    let late = load(&one.cache, "key", &[], EntryOptions::default(), loads.value(2));
    until("it has joined", || one.cache.stats().joined == 1).await;
    gate.open();
    assert_eq!(*early.await.unwrap().unwrap(), 1);
    let late = late.await.unwrap().unwrap();
    assert_eq!((*late, late.meta().is_stale(), loads.count()), (2, false, 2));
    assert_eq!(one.cache.stats().fill_refused, 1);
}
