//! T16: hundreds of thousands of tags are removed. What is kept is bounded, and nothing is cleared.

use std::collections::HashSet;
use std::time::Duration;

use crinkle_core::EntryOptions;
use crinkle_core::protocol::TagHash;
use crinkle_tests::{Node, World, pass};

const REMOVED: usize = 300_000;
const EXACT: usize = 200_000;
const REGISTERS: usize = 1 << 16;

/// How many tags one call removes.
const BATCH: usize = 5_000;

/// Every so many tags, one has an entry.
const HELD: usize = 2_000;

fn removed(number: usize) -> String {
    format!("removed:{number}")
}

async fn set(node: &Node, key: &str, tags: &[&str]) {
    let options = EntryOptions::new(Duration::from_secs(24 * 3600));
    let tags = tags.iter().copied();
    let _ = node.cache.set(key, 1_u8).tags(tags).options(options).await.expect("L2 answers");
}

async fn has(node: &Node, key: &str) -> bool {
    node.cache.get::<u8>(key).await.expect("L2 answers").is_some()
}

/// Removes tags, and lets the nodes poll.
async fn remove(nodes: &[&Node; 2], numbers: std::ops::Range<usize>) {
    for first in numbers.step_by(BATCH) {
        let issuer = nodes[first / BATCH % 2];
        let tags = (first..first + BATCH).map(removed);
        let _ = issuer.cache.remove_by_tags(tags).await.expect("L2 answers");
        pass(Duration::from_millis(1100)).await;
        for node in nodes {
            let size = node.cache.health().ledger_size;
            assert!(size <= EXACT + REGISTERS, "{size} barriers are kept after {first}");
        }
    }
}

/// The registers that removed tags have been folded into: for sure, and at most. A removal carries 64
/// tags, which fold together.
fn registers() -> [HashSet<u16>; 2] {
    let of = |number| TagHash::of(&removed(number)).register();
    [REMOVED - EXACT, REMOVED - EXACT + 64].map(|end| (0..end).map(of).collect())
}

#[tokio::test(start_paused = true)]
async fn removing_300_000_tags_is_bounded_and_clears_nothing() {
    let world = World::new().await;
    let (one, two) = (world.node().await, world.node().await);
    for number in (0..REMOVED).step_by(HELD) {
        set(&one, &format!("gone:{number}"), &[&removed(number)]).await;
    }
    for number in 0..200 {
        set(&one, &format!("untagged:{number}"), &[]).await;
        set(&one, &format!("early:{number}"), &[&format!("early:{number}")]).await;
    }
    for node in [&one, &two] {
        assert!(has(node, "gone:0").await && has(node, "untagged:0").await);
    }
    remove(&[&one, &two], 0..REMOVED / 2).await;
    for number in 0..200 {
        set(&two, &format!("late:{number}"), &[&format!("late:{number}")]).await;
    }
    remove(&[&one, &two], REMOVED / 2..REMOVED).await;

    let three = world.node().await;
    let [folded, at_most] = registers();
    let mut kept = 0;
    for (name, node) in [("one", &one), ("two", &two), ("three", &three)] {
        let health = node.cache.health();
        assert!(
            health.ledger_size > EXACT - 64 && health.ledger_size <= EXACT + REGISTERS,
            "{name}"
        );
        for number in (0..REMOVED).step_by(HELD) {
            assert!(!has(node, &format!("gone:{number}")).await, "{name}: {number} was removed");
        }
        for number in 0..200 {
            assert!(has(node, &format!("untagged:{number}")).await, "{name}: {number} has no tag");
            assert!(has(node, &format!("late:{number}")).await, "{name}: {number} is younger");
            let key = format!("early:{number}");
            let register = TagHash::of(&key).register();
            if folded.contains(&register) || !at_most.contains(&register) {
                let stays = !folded.contains(&register);
                assert_eq!(has(node, &key).await, stays, "{name}: {number}, {register}");
                kept += usize::from(stays);
            }
        }
    }
    // 100,000 tags leave one register in five alone, e^-(100,000 / 65,536).
    assert!((3 * 20..3 * 70).contains(&kept), "{kept} of 600 old entries with a tag are fresh");
}
