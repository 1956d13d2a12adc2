//! Promoted servers with clocks of their own.

use crinkle_protocol::ledger::{
    Advance, Advanced, Authority, Item, MAX_ATTEMPTS, MAX_DRIFT_US, Removal, Replica, Strength,
    Synced, Target,
};
use crinkle_protocol::{Epoch, Nonce, TagHash};

const RETENTION_MS: u64 = 1_000_000;

fn removal(nonce: u64, tag: u128, strength: Strength) -> Removal {
    Removal { nonce: Nonce(nonce), strength, targets: vec![Target::Tag(TagHash(tag))] }
}

/// T14: if a promoted server's clock is behind the last number by more than the allowed drift, it
/// begins another epoch, for any caller. Older stamps are then hidden, not taken for newer than
/// removals.
#[test]
fn a_promoted_server_whose_clock_is_behind_begins_another_epoch() {
    const NOW: u64 = 1_700_000_000_000_000;
    let (mut server, mut node) = (Authority::default(), Replica::default());
    let question = node.ask(Epoch(50), 10, RETENTION_MS);
    node.synced(&server.sync(NOW, &question));
    let mine = removal(1, 1, Strength::Hard);
    node.begin(mine.clone(), 1);
    let later = |removal: Removal, node: &Replica| Advance {
        removal,
        epoch: node.epoch(),
        frontier: node.highest(),
        new_epoch: Epoch(77),
        retention_ms: RETENTION_MS,
    };
    let answer = server.advance(NOW, &later(mine.clone(), &node));
    node.committed(mine, answer);
    assert_eq!((node.epoch(), node.frontier()), (Some(Epoch(50)), answer.seq));
    // Within the drift, the numbers continue.
    let behind = answer.seq - MAX_DRIFT_US;
    let question = node.ask(Epoch(51), 10, RETENTION_MS);
    assert!(!node.synced(&server.clone().sync(behind, &question)).new_epoch);
    let next = server.clone().advance(behind, &later(removal(2, 2, Strength::Hard), &node));
    assert!(next.epoch == Epoch(50) && next.seq > answer.seq, "{next:?}");
    // Beyond it, a new epoch begins.
    let next = server.clone().advance(behind - 1, &later(removal(2, 2, Strength::Hard), &node));
    assert_eq!(next.epoch, Epoch(77));
    let question = node.ask(Epoch(52), 10, RETENTION_MS);
    let synced = node.synced(&server.sync(behind - 1, &question));
    assert!(synced.new_epoch, "{synced:?}");
    assert_eq!(node.epoch(), Some(Epoch(52)));
    assert!(node.frontier() < answer.seq);
}

/// The time of servers whose clocks do not move.
const STANDS: u64 = 1;

fn sync(server: &mut Authority, node: &mut Replica) -> Synced {
    for _ in 0..10 {
        let question = node.ask(Epoch(50), 10, RETENTION_MS);
        let synced = node.synced(&server.sync(STANDS, &question));
        if !synced.again || !synced.reissue.is_empty() {
            return synced;
        }
    }
    panic!("SYNC does not end");
}

fn advance(server: &mut Authority, node: &Replica, removal: &Removal) -> (Advanced, Item) {
    let ask = Advance {
        removal: removal.clone(),
        epoch: node.epoch(),
        frontier: node.highest(),
        new_epoch: Epoch(77),
        retention_ms: RETENTION_MS,
    };
    let answer = server.advance(STANDS, &ask);
    let item = Item { seq: answer.seq, prev: answer.prev, removal: removal.clone() };
    (answer, item)
}

/// Returns a server and two nodes that have synced with it.
fn three() -> (Authority, [Replica; 2]) {
    let (mut server, mut nodes) = (Authority::default(), [Replica::default(), Replica::default()]);
    nodes.iter_mut().for_each(|node| drop(sync(&mut server, node)));
    (server, nodes)
}

/// A promoted server with a stopped clock has lost numbers of the server before it. A removal sent
/// again gets the same number as before, above another history. A node that knew it must not take
/// the two histories for one.
#[test]
fn a_removal_sent_again_after_a_failover_does_not_make_two_histories_look_alike() {
    let (mut server, [mut issuer, mut peer]) = three();
    let mut promoted = server.clone();

    // The peer's own removal, and a removal of the issuer that the peer receives and whose reply is
    // lost.
    let lost = removal(1, 1, Strength::Hard);
    peer.begin(lost.clone(), 1);
    let (answer, _) = advance(&mut server, &peer, &lost);
    peer.committed(lost, answer);
    let repeated = removal(2, 2, Strength::Hard);
    issuer.begin(repeated.clone(), 1);
    let (first, item) = advance(&mut server, &issuer, &repeated);
    peer.received(first.epoch, item);
    assert_eq!(peer.frontier(), first.seq);

    // The failover loses both. The issuer removes something else, then sends the other removal
    // again.
    let other = removal(3, 3, Strength::Hard);
    issuer.begin(other.clone(), 2);
    let (answer, _) = advance(&mut promoted, &issuer, &other);
    issuer.committed(other, answer);
    let repeated = issuer.resend(repeated.nonce, Nonce(4)).expect("it is pending");
    let (second, _) = advance(&mut promoted, &issuer, &repeated);
    assert_eq!(second.seq, first.seq, "the clock stands");

    // The peer received none of this.
    let synced = sync(&mut promoted, &mut peer);
    assert!(peer.levels(TagHash(3)).hard >= answer.seq, "a removal below its frontier is unknown");
    assert!(synced.forked || !synced.reissue.is_empty(), "what only the peer knows: {synced:?}");
}

/// A node that received a number which the server then lost has a frontier but no newest id.
/// Removals that a second promoted server issues at or below that frontier are compared all the
/// same.
#[test]
fn a_frontier_without_a_newest_id_is_compared() {
    let (mut server, [mut issuer, mut node]) = three();
    let copy = server.clone();
    let (answer, item) = advance(&mut server, &issuer, &removal(1, 1, Strength::Soft));
    node.received(answer.epoch, item);
    sync(&mut copy.clone(), &mut node);
    assert_eq!(node.frontier(), answer.seq, "and there is no removal at or below it");

    let mut promoted = copy;
    let other = removal(2, 2, Strength::Hard);
    issuer.begin(other.clone(), 1);
    let (second, _) = advance(&mut promoted, &issuer, &other);
    assert_eq!(second.seq, answer.seq, "the clock stands");
    let synced = sync(&mut promoted, &mut node);
    assert!(node.levels(TagHash(2)).hard >= second.seq, "a removal below its frontier is unknown");
    assert!(synced.forked, "{synced:?}");
}

/// A removal is complete if any of its attempts got a number.
#[test]
fn an_announcement_of_an_earlier_attempt_settles_a_removal() {
    let (mut server, [mut issuer, _]) = three();
    let mine = removal(1, 1, Strength::Hard);
    issuer.begin(mine.clone(), 1);
    let (answer, item) = advance(&mut server, &issuer, &mine);
    for attempt in 2..4 {
        let last = issuer.pending().next().expect("it waits").removal.nonce;
        assert!(issuer.resend(last, Nonce(attempt)).is_some());
    }
    issuer.received(answer.epoch, item);
    assert_eq!(issuer.pending().len(), 0);
    assert_eq!(issuer.resend(Nonce(3), Nonce(4)), None, "there is nothing to send");
}

/// The same by a `SYNC`; of very many attempts, the newest are remembered.
#[test]
fn a_sync_settles_a_removal_by_any_of_its_last_attempts() {
    let (mut server, [mut issuer, _]) = three();
    let mine = removal(1, 1, Strength::Hard);
    issuer.begin(mine, 1);
    for attempt in 2..100 {
        let last = issuer.pending().next().expect("it waits").removal.nonce;
        let again = issuer.resend(last, Nonce(attempt)).expect("it is pending");
        if attempt == 99 - MAX_ATTEMPTS as u64 {
            advance(&mut server, &issuer, &again);
        }
    }
    assert_eq!(issuer.pending().next().expect("it waits").earlier.len(), MAX_ATTEMPTS);
    sync(&mut server, &mut issuer);
    assert_eq!(issuer.pending().len(), 0);
}
