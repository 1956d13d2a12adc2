//! A flood of messages by a client that may publish: what the node keeps is bounded, reads are answered,
//! and no read returns a removed value.

use std::time::Duration;

use bytes::Bytes;
use crinkle_core::backplane::Backplane;
use crinkle_core::backplane::message::{self, KeyOp};
use crinkle_core::protocol::ledger::{Advanced, MAX_BARRIERS, Removal, Strength, Target};
use crinkle_core::protocol::{Epoch, KeyHash, Nonce, PublisherId, TagHash, Version};
use crinkle_tests::{CHANNEL, Node, World, has, hold, overheard, pass, until};
use stats_alloc::Region;

use crate::{ALLOCATOR, TURN};

/// How many messages come at once, most of what waits for a subscriber without one being told; how
/// many of 64 tags each, which cost as much; and how often.
const BURST: u64 = 50_000;
const TAGS_BURST: u64 = 1_500;
const BURSTS: u64 = 4;

/// What two nodes and a store may keep because of a flood; what waits to be heard is not counted.
const MOST: usize = 64 << 20;

/// What they may keep of removals: what a node has for the tags and registers that it keeps at most.
const MOST_OF_REMOVALS: usize = 2 * (MAX_BARRIERS + REGISTERS) * 160;
const REGISTERS: usize = 1 << 16;

const POLL: Duration = Duration::from_millis(1100);

const ATTACKER: PublisherId = PublisherId(666);

/// Removals that nobody was asked for, from far beyond a gap, of 64 tags each.
fn forged(number: u64, epoch: Epoch, seq: u64) -> Bytes {
    let tag = |at| Target::Tag(TagHash(u128::from(number * 64 + at) << 64 | u128::from(number)));
    let targets = (0..64).map(tag).collect();
    removal(epoch, seq, Removal { nonce: Nonce(number + 1), strength: Strength::Hard, targets })
}

fn removal(epoch: Epoch, seq: u64, removal: Removal) -> Bytes {
    let announced = message::removal(ATTACKER, 0, CHANNEL, &removal);
    let prev = Some(Nonce(u64::MAX));
    message::numbered(&announced, Advanced { epoch, prev, seq, announced: false })
}

/// Publishes, looks at what is kept after each burst, and reads meanwhile.
async fn flood(
    world: &World,
    [one, two]: [&Node; 2],
    burst: u64,
    what: impl Fn(u64) -> Bytes + Send,
) -> usize {
    let region = Region::new(ALLOCATOR);
    let mut most = 0;
    for first in (0..BURSTS).map(|at| at * burst) {
        let (kept, gone) = (format!("kept:{first}"), format!("gone:{first}"));
        hold(one, &kept, &kept).await;
        hold(one, &gone, &gone).await;
        assert!(has(two, &gone).await);
        for number in first..first + burst {
            world.bus.publish(CHANNEL, what(number)).await.expect("the bus is there");
        }
        let removed = one.cache.remove_by_tag(&gone).await.expect("no trouble");
        assert!(removed.is_propagated());
        let heard = two.cache.stats().messages;
        until("all of it is heard", || two.cache.stats().messages >= heard + burst).await;
        assert!(!has(two, &gone).await, "what was removed is answered");
        let change = region.change();
        most = most.max(change.bytes_allocated.saturating_sub(change.bytes_deallocated));
        let _ = one.cache.set(&kept, 2_u64).await.expect("no trouble");
        pass(POLL).await;
        assert!(has(two, &kept).await, "what was set is not to be had");
        assert!(!has(two, &gone).await, "what was removed is answered");
    }
    most
}

async fn is_calm_again(one: &Node, two: &Node) {
    pass(4 * POLL).await;
    for node in [one, two] {
        let health = node.cache.health();
        assert!(!health.ledger_suspect && health.pending_removals == 0, "{health:?}");
    }
    hold(one, "after", "after").await;
    assert!(has(two, "after").await);
    let verified = two.cache.stats().l1_verified;
    assert!(has(two, "after").await);
    assert_eq!(two.cache.stats().l1_verified, verified, "a hit costs no check again");
    let _ = one.cache.remove_by_tag("after").await.expect("no trouble");
    pass(Duration::from_millis(50)).await;
    assert!(!has(two, "after").await);
}

async fn survives(name: &str, burst: u64, what: impl Fn(u64, Epoch, u64) -> Bytes + Send + Sync) {
    let _turn = TURN.lock().await;
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    let (epoch, last) = overheard(&world, &one).await;
    let most = flood(&world, [&one, &two], burst, |number| what(number, epoch, last.seq)).await;
    let barriers = two.cache.health().ledger_size;
    println!("{name}: {most} bytes at most, {barriers} barriers");
    let limit = if burst == TAGS_BURST { MOST_OF_REMOVALS } else { MOST };
    assert!(most < limit && barriers <= MAX_BARRIERS + REGISTERS, "{name}: {most}, {barriers}");
    is_calm_again(&one, &two).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_changes_of_keys_is_bounded() {
    survives("keys", BURST, |number, _, _| {
        let op = [KeyOp::Written, KeyOp::Removed, KeyOp::Expired][(number % 3) as usize];
        let key = KeyHash::of(&number.to_string());
        message::key(ATTACKER, number + 1, op, Version(number), key)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_writes_that_are_never_confirmed_is_bounded() {
    survives("unconfirmed", BURST, |number, _, _| {
        let key = KeyHash::of(&number.to_string());
        message::key(ATTACKER, number + 1, KeyOp::Before, Version(number), key)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_forged_removals_is_bounded() {
    survives("removals", TAGS_BURST, |number, epoch, seq| {
        forged(number, epoch, seq + 1_000 + number)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_removals_of_another_epoch_is_bounded() {
    survives("foreign", TAGS_BURST, |number, _, seq| forged(number, Epoch(number + 1), seq)).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_junk_is_bounded() {
    survives("junk", BURST, |number, _, _| Bytes::copy_from_slice(&number.to_be_bytes())).await;
}

/// Each has sent 256 messages, it says, that nobody has heard.
#[tokio::test(start_paused = true)]
async fn a_flood_of_publishers_with_holes_is_bounded() {
    survives("publishers", BURST, |number, _, _| {
        let key = KeyHash::of(&number.to_string());
        let from = PublisherId(u128::from(number) << 32);
        message::key(from, 256, KeyOp::Written, Version(number), key)
    })
    .await;
}

/// An honest node that was forgotten among them is one of which nothing is known: what it says next,
/// or that it has said something, costs a resync.
#[tokio::test(start_paused = true)]
async fn among_100_000_publishers_a_lost_message_is_still_noticed() {
    let _turn = TURN.lock().await;
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    hold(&two, "key", "tag").await;
    let region = Region::new(ALLOCATOR);
    for round in 0..2 {
        for number in 0..50_000_u64 {
            let from = PublisherId(u128::from(number + round * 50_000) << 32);
            let key = KeyHash::of(&number.to_string());
            let news = message::key(from, 1, KeyOp::Written, Version(number), key);
            world.bus.publish(CHANNEL, news).await.expect("the bus is there");
        }
        pass(POLL).await;
    }
    let change = region.change();
    let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    let peers = two.cache.health().peers;
    println!("{peers} publishers are remembered, {kept} bytes");
    assert!(peers <= 65_536 && kept < MOST, "{peers} publishers, {kept} bytes");
    // What it has of the other node's key is verified, and not by a word of that node.
    assert!(has(&two, "key").await);
    let verified = two.cache.stats().l1_verified;
    assert!(has(&two, "key").await);
    assert_eq!(two.cache.stats().l1_verified, verified, "it is fresh");
    two.bus.mute(true);
    let _ = one.cache.remove("key").await.expect("no trouble");
    pass(Duration::from_millis(50)).await;
    two.bus.mute(false);
    assert!(two.cache.peek::<u64>("key").is_some(), "the message is lost");
    pass(3 * POLL).await;
    assert!(!has(&two, "key").await, "that it was lost is noticed");
}
