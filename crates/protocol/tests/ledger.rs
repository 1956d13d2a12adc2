//! Laws of the replica against the authority under random histories, and regressions.

mod seed;

use std::collections::BTreeMap;

use crinkle_protocol::ledger::{
    Advance, Advanced, Authority, Item, Levels, ReceiveResult, Removal, Replica, Strength, SyncAsk,
    Synced, Target,
};
use crinkle_protocol::{Epoch, Nonce, TagHash};
use proptest::prelude::*;

const RETENTION_MS: u64 = 1_000_000;

/// Four tags in two registers.
const TAGS: [u128; 4] = [1, 2, 0x1_0001, 0x1_0002];

/// More barriers than any test creates.
const ENOUGH: usize = 200_000;

fn removal(nonce: u64, tag: u128, strength: Strength) -> Removal {
    Removal { nonce: Nonce(nonce), strength, targets: vec![Target::Tag(TagHash(tag))] }
}

fn advance(server: &mut Authority, node: &Replica, removal: &Removal) -> (Epoch, Item) {
    let (answer, item) = numbered(server, node, removal);
    (answer.epoch, item)
}

fn numbered(server: &mut Authority, node: &Replica, removal: &Removal) -> (Advanced, Item) {
    numbered_in(server, node, removal, Epoch(77))
}

/// The same if several ledgers may begin: each has an epoch of its own.
fn numbered_in(
    server: &mut Authority,
    node: &Replica,
    removal: &Removal,
    new_epoch: Epoch,
) -> (Advanced, Item) {
    let ask = Advance {
        removal: removal.clone(),
        epoch: node.epoch(),
        frontier: node.highest(),
        new_epoch,
        retention_ms: RETENTION_MS,
    };
    let answer = server.advance(1, &ask);
    let item = Item { seq: answer.seq, prev: answer.prev, removal: removal.clone() };
    (answer, item)
}

fn ask(node: &mut Replica, new_epoch: u64, page: usize) -> SyncAsk {
    node.ask(Epoch(new_epoch), page, RETENTION_MS)
}

fn sync(server: &mut Authority, node: &mut Replica, page: usize) -> Synced {
    for _ in 0..100 {
        let ask = ask(node, 50, page);
        let synced = node.synced(&server.sync(1, &ask));
        if !synced.again || !synced.reissue.is_empty() {
            return synced;
        }
    }
    panic!("SYNC does not end");
}

fn probe(server: &Authority) -> Replica {
    let mut node = Replica::default();
    sync(&mut server.clone(), &mut node, 1000);
    node
}

#[test]
fn an_idle_sync_is_answered() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node, 10);
    advance(&mut server, &node, &removal(1, 1, Strength::Hard));
    sync(&mut server, &mut node, 10);
    assert_eq!(sync(&mut server, &mut node, 10), Synced::default());
}

#[test]
fn a_pending_removal_hides_until_its_replacement_is_known() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node, 1);
    let mine = removal(1, 1, Strength::Hard);
    node.begin(mine.clone(), 1);
    advance(&mut server, &node, &mine);
    for (nonce, tag) in [(2, 2), (3, 3), (4, 1)] {
        advance(&mut server, &node, &removal(nonce, tag, Strength::Hard));
    }
    let question = ask(&mut node, 50, 1);
    assert!(node.synced(&server.sync(1, &question)).again);
    assert_eq!(node.levels(TagHash(1)).hard, 0, "the replacement is on a later page");
    assert_eq!(node.pending().len(), 1, "so it is still pending");
    sync(&mut server, &mut node, 1);
    assert_eq!(node.pending().len(), 0);
    assert_eq!(node.levels(TagHash(1)).hard, 5);
}

#[test]
fn a_foreign_message_during_a_sync_is_not_forgotten() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node, 10);
    let question = ask(&mut node, 50, 10);
    let reply = server.sync(1, &question);
    let item = Item { seq: 9, prev: None, removal: removal(1, 1, Strength::Hard) };
    assert_eq!(node.received(Epoch(60), item), ReceiveResult::Foreign);
    assert!(node.synced(&reply).again);
    assert!(node.is_suspect());
}

#[test]
fn a_failover_between_two_pages_loses_nothing() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node, 1);
    let copy = server.clone();
    for tag in 1..=3 {
        advance(&mut server, &node, &removal(tag, tag.into(), Strength::Hard));
    }
    let question = ask(&mut node, 50, 1);
    assert!(node.synced(&server.sync(1, &question)).again);
    let mut server = copy;
    let lost = sync(&mut server, &mut node, 1);
    assert!(lost.reissue.contains(&(Strength::Hard, Target::Tag(TagHash(1)))), "{lost:?}");
}

#[test]
fn a_life_that_comes_back_is_a_fork() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node, 10);
    let mut copy = server;
    let mut server = Authority::default();
    let question = ask(&mut node, 51, 10);
    node.synced(&server.sync(1, &question));
    sync(&mut server, &mut node, 10);
    let returned = sync(&mut copy, &mut node, 10);
    assert!(returned.forked, "{returned:?}");
    assert_eq!(returned.reissue, [(Strength::Hard, Target::Everything)]);
}

#[test]
fn a_fork_below_everything_remembered_is_seen() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node, 10);
    let mut copy = server.clone();
    for nonce in 1..=4 {
        let (epoch, item) = advance(&mut server, &node, &removal(nonce, 1, Strength::Hard));
        if nonce == 4 {
            node.received(epoch, item);
        }
    }
    sync(&mut server, &mut node, 10);
    let peer = probe(&copy);
    let (epoch, item) = advance(&mut copy, &peer, &removal(9, 2, Strength::Hard));
    assert_eq!(node.received(epoch, item), ReceiveResult::Anomaly);
    assert!(sync(&mut copy, &mut node, 10).forked);
}

#[test]
fn a_jump_of_the_server_clock_revives_nothing() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node, 10);
    let (epoch, item) = advance(&mut server, &node, &removal(1, 1, Strength::Hard));
    node.received(epoch, item);
    let later = Advance {
        removal: removal(2, 2, Strength::Hard),
        epoch: node.epoch(),
        frontier: node.highest(),
        new_epoch: Epoch(77),
        retention_ms: 1,
    };
    // Further than the longest requested retention, which is the ledger's.
    let jumped = RETENTION_MS * 1000 + 1_000_000_000;
    server.advance(jumped, &later);
    let question = ask(&mut node, 50, 10);
    node.synced(&server.sync(jumped, &question));
    assert_eq!(node.levels(TagHash(1)).hard, 0, "dropped");
    assert_eq!(node.floor().hard, 2, "and folded");
}

#[test]
fn a_retry_under_another_number_counts() {
    let (mut server, mut node) = (Authority::default(), Replica::default());
    sync(&mut server, &mut node, 10);
    let (epoch, item) = advance(&mut server, &node, &removal(1, 1, Strength::Hard));
    node.received(epoch, item.clone());
    let again = Item { seq: item.seq + 1, ..item.clone() };
    assert_eq!(node.received(epoch, again.clone()), ReceiveResult::Gap);
    assert_eq!(node.levels(TagHash(1)).hard, again.seq);
    assert_eq!(node.received(epoch, item), ReceiveResult::Known);
}

#[test]
fn the_end_of_the_numbers_is_no_panic() {
    let mut server = Authority::default();
    let mut node = Replica::default();
    sync(&mut server, &mut node, 10);
    let end = Item { seq: u64::MAX, prev: None, removal: removal(1, 1, Strength::Hard) };
    node.received(Epoch(50), end);
    for nonce in 2..5 {
        advance(&mut server, &node, &removal(nonce, 1, Strength::Hard));
        sync(&mut server, &mut node, 10);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Remove { node: usize, tag: u128, hard: bool, reply: bool },
    Hear { node: usize, which: prop::sample::Index, keep: bool },
    Drop { node: usize, which: prop::sample::Index },
    Sync { node: usize },
    Replicate,
    Failover,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..2_usize;
    let tag = || prop::sample::select(&TAGS[..]);
    prop_oneof![
        6 => (node(), tag(), any::<bool>(), any::<bool>())
            .prop_map(|(node, tag, hard, reply)| Step::Remove { node, tag, hard, reply }),
        8 => (node(), any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(node, which, keep)| Step::Hear { node, which, keep }),
        1 => (node(), any::<prop::sample::Index>()).prop_map(|(node, which)| Step::Drop { node, which }),
        3 => node().prop_map(|node| Step::Sync { node }),
        1 => Just(Step::Replicate),
        1 => Just(Step::Failover),
        1 => Just(Step::Flush),
    ]
}

struct World {
    server: Authority,
    copy: Authority,
    nodes: [Replica; 2],
    queues: [Vec<(Epoch, Item)>; 2],
    nonces: u64,
    epochs: u64,
    page: usize,
    cap: usize,
}

impl World {
    fn sync(&mut self, i: usize) {
        for _ in 0..200 {
            self.epochs += 1;
            let question = ask(&mut self.nodes[i], self.epochs, self.page);
            let synced = self.nodes[i].synced(&self.server.sync(1, &question));
            for (strength, target) in synced.reissue {
                self.nonces += 1;
                let nonce = Nonce(self.nonces);
                self.nodes[i]
                    .begin(Removal { nonce, strength, targets: vec![target] }, self.nonces);
            }
            if !synced.again {
                return;
            }
        }
        panic!("SYNC does not end");
    }

    fn remove(&mut self, i: usize, removal: &Removal, reply: bool) {
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        let (answer, item) = numbered_in(&mut self.server, &self.nodes[i], removal, epoch);
        self.queues[1 - i].push((answer.epoch, item));
        if reply {
            self.nodes[i].committed(removal.clone(), answer);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Remove { node, tag, hard, reply } => {
                self.nonces += 1;
                let strength = if *hard { Strength::Hard } else { Strength::Soft };
                let removal = removal(self.nonces, *tag, strength);
                self.nodes[*node].begin(removal.clone(), self.nonces);
                self.remove(*node, &removal, *reply);
            }
            Step::Hear { node, which, keep } if !self.queues[*node].is_empty() => {
                let at = which.index(self.queues[*node].len());
                let (epoch, item) = self.queues[*node][at].clone();
                if !keep {
                    self.queues[*node].remove(at);
                }
                self.nodes[*node].received(epoch, item);
            }
            Step::Drop { node, which } if !self.queues[*node].is_empty() => {
                let at = which.index(self.queues[*node].len());
                self.queues[*node].remove(at);
            }
            Step::Hear { .. } | Step::Drop { .. } => {}
            Step::Sync { node } => self.sync(*node),
            Step::Replicate => self.copy = self.server.clone(),
            Step::Failover => self.server = self.copy.clone(),
            Step::Flush => self.server = Authority::with_capacity(self.cap),
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            for i in 0..2 {
                self.sync(i);
                let pending: Vec<_> = self.nodes[i].pending().map(|p| p.removal.nonce).collect();
                for nonce in pending {
                    self.nonces += 1;
                    if let Some(removal) = self.nodes[i].resend(nonce, Nonce(self.nonces)) {
                        self.remove(i, &removal, true);
                    }
                }
                self.queues[i].clear();
            }
        }
    }
}

proptest! {
    #![proptest_config(seed::config(300))]

    #[test]
    fn replicas_only_rise_and_end_where_the_authority_is(
        steps in prop::collection::vec(step(), 0..60),
        page in 1..4_usize,
        cap in prop_oneof![0..4_usize, Just(ENOUGH)],
    ) {
        let mut world = World {
            server: Authority::with_capacity(cap), copy: Authority::with_capacity(cap),
            nodes: Default::default(), queues: Default::default(),
            nonces: 0, epochs: 1000, page, cap,
        };
        world.sync(0);
        world.sync(1);
        world.copy = world.server.clone();
        for step in &steps {
            let before = world.nodes.clone();
            world.step(step);
            for (old, new) in before.iter().zip(&world.nodes) {
                if old.epoch() == new.epoch() {
                    for tag in TAGS {
                        let (old, new) = (old.levels(TagHash(tag)), new.levels(TagHash(tag)));
                        prop_assert!(new.hard >= old.hard && new.soft >= old.soft);
                    }
                }
            }
        }
        world.settle();
        let server = probe(&world.server);
        for node in &world.nodes {
            prop_assert!(!node.is_suspect());
            prop_assert_eq!(node.pending().len(), 0);
            prop_assert_eq!(node.epoch(), server.epoch());
            prop_assert_eq!(node.frontier(), server.frontier());
            prop_assert_eq!(node.floor(), server.floor());
            for tag in TAGS {
                let mine = node.levels(TagHash(tag));
                // After a fork, a replica may know numbers of the old epoch; a clear hides as much
                // as they do. A folded replica may hide more than the exact barrier.
                let exact = server.barriers(Target::Tag(TagHash(tag)));
                let floor = server.floor().hard;
                let fine = |mine, exact| mine == exact || mine <= floor || (cap < ENOUGH && mine > exact);
                prop_assert!(fine(mine.hard, exact.hard), "{mine:?} {exact:?}");
                prop_assert!(fine(mine.soft, exact.soft), "{mine:?} {exact:?}");
            }
        }
    }

    /// A node that knows all of a folding ledger hides what the exact ledger hides. It keeps no
    /// more than the cap and its registers.
    #[test]
    fn folding_hides_no_less_and_keeps_no_more(
        removals in prop::collection::vec(
            (prop::collection::vec(0..16_u128, 1..4), any::<bool>(), any::<bool>()), 1..40),
        cap in 0..8_usize,
        page in 1..5_usize,
    ) {
        // 16 tags in 4 registers.
        let hash = |tag: u128| TagHash((tag % 4) | (tag << 16));
        let (mut server, mut node) = (Authority::with_capacity(cap), Replica::default());
        let mut exact = BTreeMap::new();
        sync(&mut server, &mut node, page);
        for (nonce, (tags, hard, asks)) in (1..).zip(removals) {
            let strength = if hard { Strength::Hard } else { Strength::Soft };
            let targets = tags.iter().map(|tag| Target::Tag(hash(*tag))).collect();
            let removal = Removal { nonce: Nonce(nonce), strength, targets };
            let (epoch, item) = advance(&mut server, &Replica::default(), &removal);
            exact.extend(tags.iter().map(|tag| ((*tag, strength), item.seq)));
            if asks {
                sync(&mut server, &mut node, page);
                prop_assert!(node.len() <= cap + 4 && server.len() <= cap + 8);
            } else {
                node.received(epoch, item);
            }
            let newcomer = probe(&server);
            for ((tag, strength), seq) in &exact {
                for replica in [&node, &newcomer] {
                    prop_assert!(replica.levels(hash(*tag)).of(*strength) >= *seq);
                }
            }
            prop_assert_eq!(newcomer.floor(), Levels::default(), "nothing becomes a clear");
        }
    }
}

#[test]
fn a_register_that_a_failover_lost_is_issued_again() {
    let (mut server, mut node) = (Authority::with_capacity(0), Replica::default());
    sync(&mut server, &mut node, 10);
    let mut copy = server.clone();
    advance(&mut server, &node, &removal(1, 0x1_0007, Strength::Hard));
    sync(&mut server, &mut node, 10);
    assert_eq!(node.levels(TagHash(7)).hard, node.levels(TagHash(0x1_0007)).hard, "it is folded");
    let lost = sync(&mut copy, &mut node, 10);
    assert_eq!(lost.reissue, [(Strength::Hard, Target::Register(7))]);
}

#[test]
fn what_a_promoted_copy_has_not_folded_yet_is_not_lost() {
    let (mut server, mut node) = (Authority::with_capacity(1), Replica::default());
    sync(&mut server, &mut node, 10);
    advance(&mut server, &node, &removal(1, 7, Strength::Hard));
    let mut copy = server.clone();
    advance(&mut server, &node, &removal(2, 8, Strength::Hard));
    sync(&mut server, &mut node, 10);
    let lost = sync(&mut copy, &mut node, 10);
    assert_eq!(lost.reissue, [(Strength::Hard, Target::Tag(TagHash(8)))], "this was lost");
}
