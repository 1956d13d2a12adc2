//! L2: what is there, what it costs, and what becomes of a call when it goes away in between.

use crinkle_core::l2::{L2, L2ErrorKind};
use crinkle_core::{Cache, EntryOptions, FailSafe, Settings, Source, WriteStatus};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, World, gated, load, long, ms, options, pass, until};
use tokio::time::Instant;

use crate::{SHORT, any, fresh, load_or, put, secs};

#[tokio::test(start_paused = true)]
async fn records_are_under_the_prefix_and_the_name_is_its_default() {
    let world = World::new().await;
    let named = world.node().await;
    let prefixed = world.node_with(|builder| builder.key_prefix("a.b-c_1:")).await;
    put(&named.cache, "key", 1, &[]).await;
    put(&prefixed.cache, "key", 1, &[]).await;
    let mut keys = world.store.keys();
    keys.sort();
    assert_eq!(keys, ["a.b-c_1:v1:e:key", "shop:v1:e:key"]);
}

/// Two caches of different names that were given one prefix are nodes of one cache.
#[tokio::test(start_paused = true)]
async fn caches_of_one_prefix_share_their_entries() {
    let world = World::new().await;
    let one = world.node().await;
    let two = world.node_with(|_| Cache::builder("reports").clock(world.clock).key_prefix("shop:"));
    let two = two.await;
    put(&one.cache, "key", 1, &["tag"]).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    let _ = two.cache.remove_by_tag("tag").await.unwrap();
    pass(SHORT).await;
    assert_eq!(any(&one.cache, "key").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_l2_has_dropped_is_loaded_once_more() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&one.cache, "key", 1, &[]).await;
    pass(SHORT).await;
    world.store.evict(&World::record("key"));
    assert_eq!(load_or(&two.cache, "key", 2, &[]).await, (2, true));
    pass(SHORT).await;
    assert_eq!(fresh(&one.cache, "key").await, Some(2), "it was told");
}

/// An eviction in L2 is not a removal: nobody says so, and L1 goes on.
#[tokio::test(start_paused = true)]
async fn a_copy_outlives_the_eviction_of_its_record() {
    let world = World::new().await;
    let node = world.node().await;
    put(&node.cache, "key", 1, &[]).await;
    world.store.evict(&World::record("key"));
    pass(secs(60)).await;
    let read = node.cache.get::<i32>("key").await.unwrap().unwrap();
    assert_eq!((*read, read.meta().source()), (1, Source::L1));
}

/// L2 goes away while the factory runs: the value is answered and stays here.
#[tokio::test(start_paused = true)]
async fn an_outage_that_begins_during_a_load_does_not_break_it() {
    let world = World::new().await;
    for hang in [false, true] {
        let node = world.node().await;
        let key = format!("key:{hang}");
        let gate = Gate::new();
        let running = load(&node.cache, &key, &[], long(), gated(&gate, 42));
        gate.reached().await;
        if hang {
            node.l2.hang()
        } else {
            node.l2.down()
        }
        pass(ms(500)).await;
        gate.open();
        let opened = Instant::now();
        let read = running.await.unwrap().unwrap();
        assert_eq!((*read, read.meta().is_stale()), (42, false));
        assert!(opened.elapsed() <= secs(1), "one hard timeout");
        assert!(node.cache.peek::<i32>(&key).is_some());
        let other = world.node().await;
        assert_eq!(fresh::<i32>(&other.cache, &key).await, None, "L2 never got it");
    }
}

/// It began without L2 and ends with it: the value is not written blindly over what is there.
#[tokio::test(start_paused = true)]
async fn an_outage_that_ends_during_a_load_overwrites_nothing() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    put(&two.cache, "key", 2, &[]).await;
    one.l2.down();
    let gate = Gate::new();
    let running = load(&one.cache, "key", &[], long(), gated(&gate, 1));
    gate.reached().await;
    one.l2.heal();
    pass(secs(3)).await;
    gate.open();
    assert_eq!(*running.await.unwrap().unwrap(), 1);
    let third = world.node().await;
    assert_eq!(fresh(&third.cache, "key").await, Some(2));
}

/// The breaker leaves what was in L2 as it was: upstream's scenario of three sets.
#[tokio::test(start_paused = true)]
async fn writes_while_l2_is_left_alone_do_not_reach_it_as_values() {
    let world = World::new().await;
    let settings = Settings::default().breaker_failures(1);
    let node = world.node_with(|builder| builder.settings(settings)).await;
    put(&node.cache, "key", 1, &[]).await;
    node.l2.always(L2Op::Set, Fate::Fail(L2ErrorKind::Disconnected));
    node.l2.always(L2Op::Sync, Fate::Fail(L2ErrorKind::Disconnected));
    assert!(!node.cache.set("key", 2).await.unwrap().is_propagated());
    assert!(!node.cache.health().l2_up);
    node.l2.next(L2Op::Set, Fate::Pass);
    node.l2.forget();
    assert_eq!(node.cache.set("key", 3).await.unwrap().l2(), WriteStatus::Queued);
    assert_eq!(node.l2.count(L2Op::Set), 0, "it is not even asked");
    assert_eq!(fresh(&node.cache, "key").await, Some(3));
    node.l2.heal();
    until("what waited has gone out", || node.cache.health().recovery_backlog == 0).await;
    let other = world.node().await;
    assert_eq!(fresh::<i32>(&other.cache, "key").await, None, "neither 1, nor 2, nor 3");
}

/// One failure is one failure: the breaker wants several in a row.
#[tokio::test(start_paused = true)]
async fn failures_with_successes_between_them_do_not_open_the_breaker() {
    let world = World::new().await;
    let settings = Settings::default().breaker_failures(3);
    let node = world.node_with(|builder| builder.settings(settings)).await;
    for round in 0..6 {
        for _ in 0..2 {
            node.l2.next(L2Op::Look, Fate::Fail(L2ErrorKind::Disconnected));
            assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
        }
        assert!(node.cache.health().l2_up, "round {round}");
        assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
    }
    for _ in 0..3 {
        node.l2.next(L2Op::Look, Fate::Fail(L2ErrorKind::Disconnected));
        assert!(node.cache.get::<i32>("key").await.unwrap().is_none());
    }
    assert!(!node.cache.health().l2_up);
}

/// L2 fails and the source fails: the fallback in L1 stands in (upstream's 42).
#[tokio::test(start_paused = true)]
async fn with_l2_and_source_down_the_stale_value_stands_in() {
    let world = World::new().await;
    let node = world.node().await;
    let kept = EntryOptions::new(secs(1)).fail_safe(FailSafe::default());
    let _ = node.cache.set("key", 42).options(kept.clone()).await.unwrap();
    pass(secs(2)).await;
    node.l2.down();
    let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(kept);
    let read = read.await.unwrap();
    assert_eq!((*read, read.meta().is_stale()), (42, true));
}

/// What one node loads is not loaded by the next, life after life.
#[tokio::test(start_paused = true)]
async fn nodes_take_turns_in_loading_and_share_what_is_loaded() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let loads = Loads::new();
    for round in 0..6 {
        let (first, second) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        for node in [first, second] {
            let request = node.cache.get_or_set("key", loads.value(round)).options(options());
            let read = request.await.unwrap();
            assert_eq!((*read, read.meta().is_stale()), (round, false));
        }
        assert_eq!(loads.count(), usize::try_from(round).unwrap() + 1);
        pass(secs(11)).await;
    }
}

/// A stale record of another node is no hit, and its load lock is the refresher's.
#[tokio::test(start_paused = true)]
async fn a_stale_record_is_replaced_and_not_answered() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let _ = one.cache.set("key", 1).options(options()).await.unwrap();
    pass(secs(11)).await;
    assert_eq!(fresh::<i32>(&two.cache, "key").await, None);
    assert_eq!(load_or(&two.cache, "key", 2, &[]).await, (2, true));
    pass(SHORT).await;
    assert_eq!(load_or(&one.cache, "key", 3, &[]).await, (2, false));
}

/// Something that no cache wrote lies in L2; a load replaces it.
#[tokio::test(start_paused = true)]
async fn foreign_bytes_at_a_key_are_replaced_by_a_set() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    world.store.plant(&World::record("key"), "what is this", secs(600));
    put(&one.cache, "key", 1, &[]).await;
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
    let found = world.store.read(&World::record("key"), None).await.unwrap().found.unwrap();
    assert_ne!(&found.bytes[..], b"what is this");
}

/// The values of long keys are in L2 as well, under a hash; they do not get in each other's way.
#[tokio::test(start_paused = true)]
async fn long_keys_are_found_on_the_other_node() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let keys = ["a", "b"].map(|end| "k".repeat(5_000) + end);
    for (number, key) in (0..).zip(&keys) {
        put(&one.cache, key, number, &[]).await;
    }
    for (number, key) in (0..).zip(&keys) {
        assert_eq!(fresh(&two.cache, key).await, Some(number));
    }
    assert!(world.store.keys().iter().all(|key| key.len() < 100));
}

/// A write waits for L2, and only then says that it is done.
#[tokio::test(start_paused = true)]
async fn a_set_is_in_l2_when_it_returns() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    one.l2.always(L2Op::Set, Fate::Delay(ms(300)));
    let asked = Instant::now();
    put(&one.cache, "key", 1, &[]).await;
    assert_eq!(asked.elapsed(), ms(300));
    assert_eq!(fresh(&two.cache, "key").await, Some(1));
}

/// How long a caller waits for L2 who has something to answer with is the call's own choice.
#[tokio::test(start_paused = true)]
async fn a_soft_timeout_of_l2_is_as_long_as_the_call_says() {
    let world = World::new().await;
    let minute = secs(60);
    let settings = Settings::default().poll(minute).coherence_ttl(minute * 5);
    let node = world.node_with(|builder| builder.settings(settings)).await;
    let _ = node.cache.set("key", 1).options(options()).await.unwrap();
    pass(secs(11)).await;
    node.l2.hang();
    for limit in [ms(20), ms(700)] {
        let chosen = options().l2_soft_timeout(limit);
        let asked = Instant::now();
        let read = node.cache.get::<i32>("key").options(chosen.clone()).allow_stale();
        assert!(read.await.unwrap().is_some_and(|read| read.meta().is_stale()));
        assert_eq!(asked.elapsed(), limit);
    }
    let asked = Instant::now();
    let chosen = options().l2_soft_timeout(ms(40));
    let read = node.cache.get_or_set("key", Loads::new().fail::<_, i32>()).options(chosen);
    assert!(read.await.unwrap().meta().is_stale());
    assert_eq!(asked.elapsed(), ms(40));
}
