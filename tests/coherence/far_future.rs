//! Numbers that no ledger has issued: of the far future, or the last there is. They cost hits, once.

use std::time::Duration;

use bytes::Bytes;
use crinkle_core::backplane::Backplane;
use crinkle_core::backplane::message::{self, KeyOp};
use crinkle_core::l2::L2;
use crinkle_core::l2::record::Envelope;
use crinkle_core::protocol::ledger::{Advanced, Removal, Strength, Target};
use crinkle_core::protocol::{KeyHash, Nonce, PublisherId, TagHash, Version};
use crinkle_tests::{CHANNEL, Node, World, has, hold, overheard, pass};

const POLL: Duration = Duration::from_millis(1100);
const STRANGER: PublisherId = PublisherId(666);
const HOUR_US: u64 = 3_600_000_000;

/// Values are cached, and removals hold.
async fn works(one: &Node, two: &Node) {
    for node in [one, two] {
        let health = node.cache.health();
        assert!(!health.ledger_suspect && health.pending_removals == 0, "{health:?}");
    }
    hold(one, "after", "after").await;
    assert!(has(two, "after").await && two.cache.peek::<u64>("after").is_some());
    let _ = two.cache.remove_by_tag("after").await.expect("no trouble");
    pass(Duration::from_millis(50)).await;
    assert!(!has(one, "after").await && !has(two, "after").await);
    hold(one, "after", "after").await;
    assert!(has(two, "after").await && two.cache.peek::<u64>("after").is_some());
}

/// One that no removal would ever be newer than.
#[tokio::test(start_paused = true)]
async fn a_record_from_the_far_future_is_a_counted_miss() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&one, "key", "tag").await;
    let found = world.store.read(&World::record("key"), None).await.unwrap().found.unwrap();
    let sound = Envelope::decode(&found.bytes).unwrap();
    for (at, stamp) in [u64::MAX, 1 << 53, sound.stamp + HOUR_US].into_iter().enumerate() {
        let key = format!("forged:{at}");
        let forged = Envelope { key: &key, stamp, ..sound.clone() }.encode();
        world.store.plant(&World::record(&key), forged, Duration::from_secs(600));
        let before = two.cache.stats().l2_undecodable;
        assert!(!has(&two, &key).await, "{stamp}");
        assert_eq!(two.cache.stats().l2_undecodable, before + 1, "{stamp}");
        // What is loaded takes its place.
        hold(&one, &key, "tag").await;
        assert!(has(&two, &key).await);
    }
    // A node that has heard of a removal before this one is a minute ahead at most.
    let ahead = Envelope { key: "ahead", stamp: sound.stamp + HOUR_US / 60, ..sound.clone() };
    world.store.plant(&World::record("ahead"), ahead.encode(), Duration::from_secs(600));
    assert!(has(&two, "ahead").await);
}

/// In its place in the sequence, or with a gap before it.
#[tokio::test(start_paused = true)]
async fn a_removal_from_the_far_future_costs_hits_once() {
    for in_order in [true, false] {
        for seq in [u64::MAX, u64::MAX - 1, 1 << 53, 0] {
            let world = World::new().await;
            let (one, two) = (world.node().await, world.node().await);
            hold(&one, "key", "tag").await;
            assert!(has(&two, "key").await);
            let (epoch, last) = overheard(&world, &one).await;
            let prev = in_order.then_some(last.removal.nonce).or(Some(Nonce(77)));
            let targets = vec![Target::Tag(TagHash::of("tag")), Target::Everything];
            for targets in targets.into_iter().map(|target| vec![target]) {
                let nonce = Nonce(1000 + u64::from(targets == [Target::Everything]));
                let removal = Removal { nonce, strength: Strength::Hard, targets };
                let announced = message::removal(STRANGER, 0, CHANNEL, &removal);
                let numbers = Advanced { epoch, prev, seq, announced: false };
                let forged = message::numbered(&announced, numbers);
                world.bus.publish(CHANNEL, forged).await.unwrap();
            }
            pass(4 * POLL).await;
            works(&one, &two).await;
            let epochs = two.cache.stats().epochs;
            assert!(epochs <= 2, "{epochs} ledgers, in order: {in_order}, {seq}");
            pass(20 * POLL).await;
            assert!(has(&two, "after").await);
            assert_eq!(two.cache.stats().epochs, epochs, "it is over: {in_order}, {seq}");
        }
    }
}

/// Versions are equal or not, and a sequence that cannot go on costs a resync.
#[tokio::test(start_paused = true)]
async fn messages_with_the_last_number_there_is_cost_a_check() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&one, "key", "tag").await;
    assert!(has(&two, "key").await);
    pass(POLL).await;
    let resyncs = two.cache.stats().resyncs;
    let last = u64::MAX;
    let messages: [Bytes; 3] = [
        message::key(STRANGER, last, KeyOp::Written, Version(last), KeyHash::of("key")),
        message::heartbeat(STRANGER, last, last, last),
        message::key(STRANGER, last, KeyOp::Expired, Version(last), KeyHash::of("key")),
    ];
    for message in messages {
        world.bus.publish(CHANNEL, message).await.unwrap();
        pass(POLL).await;
        assert!(has(&two, "key").await, "it is in L2 as it was");
    }
    assert_eq!(two.cache.stats().resyncs, resyncs + 1, "one, for all that it has not heard");
    works(&one, &two).await;
}

/// A node on a forked ledger holds copies that were verified with another history.
#[tokio::test(start_paused = true)]
async fn a_removal_under_a_number_that_is_taken_ends_the_session() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&one, "other", "tag").await;
    let record = World::record("key");
    let found = world.store.read(&World::record("other"), None).await.unwrap().found.unwrap();
    let planted = Envelope { key: "key", ..Envelope::decode(&found.bytes).unwrap() };
    world.store.plant(&record, planted.encode(), Duration::from_secs(600));
    assert!(has(&two, "key").await);
    let (epoch, last) = overheard(&world, &one).await;
    pass(2 * POLL).await;
    world.store.remove(&record, None).await.expect("nobody is told");
    assert!(has(&two, "key").await, "the copy needs no check yet");
    let targets = vec![Target::Tag(TagHash::of("another tag"))];
    let removal = Removal { nonce: Nonce(1000), strength: Strength::Hard, targets };
    let announced = message::removal(STRANGER, 0, CHANNEL, &removal);
    let numbers = Advanced { epoch, prev: None, seq: last.seq, announced: false };
    world.bus.publish(CHANNEL, message::numbered(&announced, numbers)).await.unwrap();
    pass(2 * POLL).await;
    assert!(!two.cache.health().ledger_suspect, "it has synced since");
    assert!(!has(&two, "key").await, "it is verified");
    assert_eq!(two.cache.stats().resyncs_number_conflict, 1);
}
