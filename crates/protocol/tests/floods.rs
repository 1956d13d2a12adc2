//! Any amount of input from other nodes takes bounded memory, and stays hidden as it should.

use crinkle_protocol::ledger::{
    Advance, Authority, Item, MAX_AHEAD, MAX_BARRIERS, MAX_TARGETS, ReceiveResult, Removal,
    Replica, Strength, Target,
};
use crinkle_protocol::resync::Peers;
use crinkle_protocol::{Epoch, Nonce, PublisherId, TagHash};

const RETENTION_MS: u64 = 1_000_000;
const REGISTERS: usize = 1 << 16;

fn sync(server: &mut Authority, node: &mut Replica) -> usize {
    let mut reissued = 0;
    for _ in 0..1000 {
        let ask = node.ask(Epoch(50), 4096, RETENTION_MS);
        let synced = node.synced(&server.sync(1, &ask));
        for (strength, target) in synced.reissue {
            let nonce = Nonce(1 << 40 | reissued as u64);
            reissued += 1;
            let removal = Removal { nonce, strength, targets: vec![target] };
            let (epoch, frontier) = (node.epoch(), node.highest());
            let ask = Advance {
                removal: removal.clone(),
                epoch,
                frontier,
                new_epoch: Epoch(51),
                retention_ms: RETENTION_MS,
            };
            let advanced = server.advance(1, &ask);
            node.committed(removal, advanced);
        }
        if !synced.again {
            return reissued;
        }
    }
    panic!("SYNC does not end");
}

fn forged(number: u64, seq: u64) -> Item {
    let tag = |at: usize| Target::Tag(TagHash(u128::from(number) << 64 | (at as u128) << 4));
    let targets = (0..MAX_TARGETS).map(tag).collect();
    let removal = Removal { nonce: Nonce(number), strength: Strength::Hard, targets };
    Item { seq, prev: Some(Nonce(u64::MAX)), removal }
}

/// Beyond a gap, the first removals are kept exactly and the rest by register. This hides more, and
/// forgets nothing.
#[test]
fn removals_beyond_a_gap_are_bounded_and_all_hold() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node);
    let (epoch, begin) = (node.epoch().unwrap(), node.frontier());
    let flood = 5 * MAX_AHEAD as u64;
    for number in 1..=flood {
        let result = node.received(epoch, forged(number, begin + 100 + number));
        let crowded = number > MAX_AHEAD as u64;
        assert_eq!(
            result,
            if crowded { ReceiveResult::Anomaly } else { ReceiveResult::Gap },
            "{number}"
        );
        assert_eq!(node.is_suspect(), crowded, "no frontier is guessed");
    }
    assert_eq!(node.frontier(), begin);
    assert!(node.len() <= MAX_AHEAD * MAX_TARGETS + REGISTERS, "{}", node.len());
    let hides = |node: &Replica| {
        let last = TagHash(u128::from(flood) << 64);
        let levels = node.levels(last);
        levels.hard.max(node.floor().hard) >= begin + 100 + flood
    };
    assert!(hides(&node), "the last is hidden as well");
    // There are more removals than may wait for a number: one removal of everything replaces them.
    assert_eq!(sync(&mut server, &mut node), 1);
    assert!(!node.is_suspect() && hides(&node));
    assert!(node.floor().hard > begin, "what only this node knew is in the ledger");
}

/// The bound holds for any number of barriers in the ledger.
#[test]
fn a_ledger_without_end_is_kept_within_bounds_and_holds() {
    let count = MAX_BARRIERS as u64 + 100_000;
    let mut node = Replica::default();
    let ask = node.ask(Epoch(1), 4096, RETENTION_MS);
    let mut server = Authority::default();
    let mut reply = server.sync(1, &ask);
    let tag = |number: u64| TagHash(u128::from(number) << 64 | u128::from(number));
    let levels = (1..=count).map(|number| (number, Target::Tag(tag(number)), Strength::Hard));
    (reply.levels, reply.frontier) = (levels.collect(), count);
    node.synced(&reply);
    assert!(node.len() <= MAX_BARRIERS + REGISTERS, "{}", node.len());
    assert_eq!(node.frontier(), count);
    for number in [1, MAX_BARRIERS as u64, MAX_BARRIERS as u64 + 1, count] {
        assert!(node.levels(tag(number)).hard >= number, "{number}");
    }
}

/// Each publisher announces that it has sent 256 messages.
#[test]
fn holes_of_many_publishers_are_bounded_and_a_resync() {
    let mut peers = Peers::default();
    for number in 0..20_000_u128 {
        peers.received(PublisherId(number), 256, 1000);
    }
    assert!(peers.take_loss(0), "losses beyond the bound require a resync at once");
    assert!(!peers.take_loss(999));
    assert!(peers.take_loss(1000), "and the rest when it is due");
    assert!(!peers.take_loss(u64::MAX));
}
