//! Guarantees that say how soon and how many, and what versions are compared for: L1, L4, S7, B2.

use std::time::Duration;

use crinkle_core::backplane::{Backplane, message};
use crinkle_core::l2::L2ErrorKind;
use crinkle_core::protocol::{KeyHash, PublisherId, Version};
use crinkle_core::{Cache, Source};
use crinkle_testkit::chaos::{Fate, Gate, L2Op};
use crinkle_tests::{Loads, World, load, long, pass, until};

const P: Duration = Duration::from_secs(1);

const RTT: Duration = Duration::from_millis(100);

/// L1: however the polls lie, a node that receives nothing has the ledger of the others after P and an RTT.
#[tokio::test(start_paused = true)]
async fn ledgers_are_equal_within_a_poll_and_a_round_trip() {
    let mut waited = 0;
    for phase in (0..1000).step_by(40) {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        two.bus.mute(true);
        two.l2.always(L2Op::Sync, Fate::Delay(RTT));
        pass(P + RTT + Duration::from_millis(phase)).await;
        let _ = match phase % 3 {
            0 => one.cache.remove_by_tag("tag").await.unwrap(),
            1 => one.cache.expire_all().await.unwrap(),
            _ => one.cache.expire_by_tag("tag").await.unwrap(),
        };
        let ledger = |cache: &Cache| {
            let health = cache.health();
            (health.ledger_frontier, health.ledger_size)
        };
        let now = ledger(&one.cache);
        waited += usize::from(ledger(&two.cache) != now);
        pass(P + RTT).await;
        assert_eq!(ledger(&two.cache), now, "at {phase} ms of a second");
        assert_eq!(ledger(&one.cache), now);
    }
    assert_eq!(waited, 25, "nobody but the poll has told the other node");
}

/// L4: what was loaded is a hit afterwards, on the node that loaded it and on the other.
#[tokio::test(start_paused = true)]
async fn without_an_invalidation_meanwhile_a_load_is_cached_on_every_node() {
    for world in [World::new().await, World::apart().await] {
        let (one, two) = (world.node().await, world.node().await);
        // What was invalidated before it hinders nobody.
        let _ = two.cache.remove_by_tag("tag").await.unwrap();
        let _ = two.cache.expire("key").await.unwrap();
        let _ = two.cache.expire_all().await.unwrap();
        pass(P * 2).await;
        let loads = Loads::new();
        for (node, source) in [(&one, Source::Factory), (&two, Source::L2)] {
            let read = node.cache.get_or_set("key", loads.value(1)).tags(["tag"]).options(long());
            assert_eq!(read.await.unwrap().meta().source(), source);
        }
        pass(P * 20).await;
        for node in [&one, &two] {
            let read = node.cache.get_or_set("key", loads.value(2)).tags(["tag"]).options(long());
            let read = read.await.unwrap();
            assert_eq!(
                (*read, read.meta().source(), read.meta().is_stale()),
                (1, Source::L1, false)
            );
            assert_eq!(node.cache.stats().fill_refused, 0);
        }
        assert_eq!(loads.count(), 1);
    }
}

/// S7: a version that is not the copy's own ends it, be it smaller or greater.
#[tokio::test(start_paused = true)]
async fn another_version_ends_a_copy_whatever_its_number() {
    let world = World::new().await;
    let node = world.node().await;
    let _ = node.cache.set("key", 1).options(long()).await.unwrap();
    pass(P).await;
    for (publisher, version) in [(71, 1), (72, u64::MAX), (73, 2)] {
        let read = node.cache.get::<i32>("key").await.unwrap();
        assert_eq!(read.as_deref(), Some(&1), "L2 holds it as before");
        assert!(node.cache.peek::<i32>("key").is_some());
        let (from, hash) = (PublisherId(publisher), KeyHash::of("key"));
        let written = message::key(from, 1, message::KeyOp::Written, Version(version), hash);
        world.bus.publish("shop:v1:ch", written).await.unwrap();
        pass(Duration::from_millis(50)).await;
        assert!(node.cache.peek::<i32>("key").is_none(), "{version}");
    }
}

/// B2: two loads of a key run at a time; who comes third waits.
#[tokio::test(start_paused = true)]
async fn a_third_load_of_a_key_waits_for_one_of_two() {
    let world = World::new().await;
    for cache in [world.alone(), world.node().await.cache] {
        let (gates, loads) = ([Gate::new(), Gate::new()], Loads::new());
        let mut running = Vec::new();
        for (value, gate) in (1..).zip(&gates) {
            running.push(load(&cache, "key", &[], long(), loads.gated(gate, value)));
            gate.reached().await;
            let _ = cache.remove("key").await.unwrap();
        }
        let third = load(&cache, "key", &[], long(), loads.value(3));
        pass(P * 20).await;
        assert_eq!(loads.count(), 2, "the third has not begun");
        gates.iter().for_each(Gate::open);
        assert_eq!(*third.await.unwrap().unwrap(), 3);
        for (value, first) in (1..).zip(running) {
            assert_eq!(*first.await.unwrap().unwrap(), value, "for those who came before");
        }
        until("all have ended", || cache.health().in_flight == 0).await;
        assert_eq!(cache.get::<i32>("key").await.unwrap().as_deref(), Some(&3));
    }
}

/// S3: that a record is still there proves nothing of the tags of what it holds. If the ledger has not answered for X,
/// neither a copy that is looked at often nor a record that is read is fresh.
#[tokio::test(start_paused = true)]
async fn without_an_answer_of_the_ledger_nothing_is_fresh_for_longer_than_the_coherence_ttl() {
    for silent in [Fate::Hang, Fate::Fail(L2ErrorKind::Disconnected)] {
        let world = World::new().await;
        let (one, two) = (world.node().await, world.node().await);
        for key in ["copy", "record", "unread"] {
            let _ = one.cache.set(key, 1).tags(["tag"]).options(long()).await.unwrap();
        }
        two.cache.get::<i32>("copy").await.unwrap().expect("it is there");
        two.l2.always(L2Op::Sync, silent.clone());
        two.bus.cut();
        let _ = one.cache.remove_by_tag("tag").await.unwrap();
        for _ in 0..40 {
            pass(Duration::from_secs(1)).await;
            two.cache.get::<i32>("copy").await.unwrap();
        }
        for key in ["copy", "record"] {
            assert!(two.cache.get::<i32>(key).await.unwrap().is_none(), "{key}, {silent:?}");
            let many = two.cache.get_many::<i32>(&[key]).await.unwrap();
            assert!(many[0].is_none(), "{key}, {silent:?}");
        }
        for key in ["copy", "record"] {
            let loads = Loads::new();
            let loaded = two.cache.get_or_set(key, loads.value(2)).await.unwrap();
            assert_eq!((*loaded, loaded.meta().is_stale(), loads.count()), (2, false, 1), "{key}");
            // It is not loaded by each call: what a factory brings was right when it began.
            two.cache.get_or_set(key, loads.value(3)).await.unwrap();
            assert_eq!(loads.count(), 1, "{key}, {silent:?}");
        }
        two.l2.heal();
        two.bus.reconnect();
        until("it is coherent again", || two.cache.health().coherent).await;
        assert!(
            two.cache.get::<i32>("unread").await.unwrap().is_none(),
            "the ledger is known again"
        );
    }
}
