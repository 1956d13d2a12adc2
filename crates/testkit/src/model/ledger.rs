//! Model of the ledger with two nodes: removals, lost and reordered messages, lost replies, a
//! flushed store, a failover that loses the newest removals.
//!
//! The model has one key with tag 1; tag 2 exists to make gaps. The source is a counter that grows
//! with every removal of tag 1 or of everything. So a value is stale if it is below the required
//! number.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crinkle_core::protocol::ledger::{
    Advanced, Authority, Item, Levels, Removal, Replica, Strength, SyncReply, Target,
};
use crinkle_core::protocol::validity::{EntryState, Knowledge, TagLevels, Verdict, judge};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};
use stateright::{Model, Property};

use super::{REACH, same};

/// The tag of the key.
pub(super) const TAG: Target = Target::Tag(TagHash(1));
/// Another tag.
pub(super) const OTHER: Target = Target::Tag(TagHash(2));
/// A third tag, in the same register as the first.
pub(super) const SHARER: Target = Target::Tag(TagHash(0x1_0001));
/// Targets that do not hide the key, or only because they share its register.
pub(super) const ELSEWHERE: [Target; 3] = [OTHER, SHARER, Target::Register(2)];

/// A copy of the value, in L1 or in L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) value: u8,
    pub(super) epoch: Option<Epoch>,
    pub(super) stamp: u64,
    pub(super) origin: u64,
}

/// A load in progress. It reads the source when it begins. A later read of the source would be
/// newer, and decides only whether the value is stale.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) entry: Entry,
    pub(super) joined: Option<u8>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) replica: Replica,
    pub(super) generation: u64,
    pub(super) l1: Option<Entry>,
    pub(super) flight: Option<Flight>,
    /// How many loads have yet to begin.
    pub(super) flights: u8,
    pub(super) queue: Vec<(Epoch, Item)>,
    /// The reply of a `SYNC` in progress.
    pub(super) answer: Option<SyncReply>,
    /// The reply of an `ADVANCE` in progress.
    pub(super) reply: Option<(Removal, Advanced)>,
    /// The lowest allowed fresh value, and below it the lowest allowed fallback.
    pub(super) required: u8,
    pub(super) required_hard: u8,
    /// Every id that this node received.
    pub(super) known: BTreeSet<Nonce>,
    /// The ids on the pages of the `SYNC` in progress.
    pub(super) shown: BTreeSet<Nonce>,
    /// Whether the node has completed a `SYNC` since the last step that required one.
    pub(super) synced: bool,
    /// For sabotaged variants: the last number received for the tag, and the last id received.
    pub(super) last_number: u64,
    pub(super) newest: Option<Nonce>,
}

/// The state of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) source: u8,
    pub(super) now: u64,
    /// The highest number ever issued.
    pub(super) issued: u64,
    pub(super) server: Arc<(Authority, Option<Entry>)>,
    /// The state that a failover would restore; `None` if no failover is left.
    pub(super) copy: Option<Arc<(Authority, Option<Entry>)>>,
    pub(super) nodes: [Arc<Node>; 2],
    /// What each removal protects: the source's number, and whether the removal was hard.
    pub(super) ghosts: Arc<BTreeMap<Nonce, (u8, Strength)>>,
    pub(super) step: usize,
    /// Whether anything was loaded. The replicas do not depend on it, so properties of the replicas
    /// alone are checked only in states without a load.
    pub(super) has_loaded: bool,
    pub(super) drops: u8,
    pub(super) failovers: u8,
    pub(super) flushes: u8,
    pub(super) epochs: u64,
    pub(super) nonces: u64,
    /// How many of the nonces were for another attempt.
    pub(super) resent: u64,
    /// Whether no server has issued a number that a node had already passed.
    pub(super) monotonic: bool,
    pub(super) bad: Option<&'static str>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
#[non_exhaustive]
pub enum Action {
    Begin(usize),
    Advance(usize),
    Reply(usize),
    LoseReply(usize),
    Deliver(usize),
    DeliverSecond(usize),
    Drop(usize),
    Sync(usize),
    AskSync(usize),
    AnswerSync(usize),
    LoseSync(usize),
    Replicate,
    Failover,
    Flush,
    Start(usize),
    Join(usize),
    Done(usize),
    ReadL2(usize),
}

/// The rule that a sabotaged variant breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
#[non_exhaustive]
pub enum Sabotage {
    None,
    StampAfter,
    UncheckedJoin,
    NoEpoch,
    LastWriteWins,
    IgnoreGap,
    NewestAsPrev,
    NoLogMatching,
    NoPending,
    OriginAfter,
    NoReissue,
    IgnoreSuspect,
    SoftForHard,
    NoFold,
    NonceSentTwice,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    pub(super) script: &'static [(Target, Strength)],
    pub(super) drops: u8,
    pub(super) failovers: u8,
    pub(super) flushes: u8,
    pub(super) flights: u8,
    /// Which nodes load; the first removal is always of node 0.
    pub(super) loaders: [bool; 2],
    pub(super) joins: bool,
    pub(super) reorder: bool,
    /// Whether a `SYNC` takes two steps, so that other steps can happen in between.
    pub(super) slow_sync: bool,
    /// Whether a promoted server's clock is past every issued number.
    pub(super) clock_ahead: bool,
    pub(super) page: usize,
    /// How many barriers the server keeps exactly.
    pub(super) cap: usize,
    pub(super) max_nonces: u64,
    pub(super) sabotage: Sabotage,
}

impl Ledger {
    pub(super) fn base(script: &'static [(Target, Strength)]) -> Self {
        Self {
            script,
            drops: 0,
            failovers: 0,
            flushes: 0,
            flights: 1,
            loaders: [true, true],
            joins: false,
            reorder: false,
            slow_sync: false,
            clock_ahead: true,
            page: PAGE,
            cap: CAP,
            max_nonces: 5,
            sabotage: Sabotage::None,
        }
    }

    /// Returns this node's verdict on a copy.
    pub(super) fn judge(&self, node: &Node, entry: &Entry) -> Verdict {
        let replica = &node.replica;
        let epoch = if self.sabotage == Sabotage::NoEpoch { replica.epoch() } else { entry.epoch };
        let state = EntryState {
            epoch,
            stamp: entry.stamp,
            origin: entry.origin,
            session: 0,
            verified_at: 0,
            logical: 1,
            physical: 1,
            expired: false,
        };
        let pending = |target| match self.sabotage {
            Sabotage::NoPending => Levels::default(),
            _ => replica.pending_levels(target),
        };
        let knowledge = Knowledge {
            epoch: replica.epoch(),
            floor: replica.floor(),
            pending: pending(Target::Everything),
            session: 0,
            coherent_until: 1,
            coherence_ttl: 1,
            suspect: replica.is_suspect() && self.sabotage != Sabotage::IgnoreSuspect,
        };
        let mut levels = replica.levels(TagHash(1));
        if self.sabotage == Sabotage::LastWriteWins {
            levels.hard = node.last_number;
        }
        if self.sabotage == Sabotage::SoftForHard {
            levels.soft = levels.soft.max(levels.hard);
            levels.hard = 0;
        }
        let tag = TagLevels { levels, pending: pending(TAG) };
        let register = Target::Register(TagHash(1).register());
        let register = TagLevels { levels: Levels::default(), pending: pending(register) };
        judge(&state, &knowledge, [tag, register].into_iter(), 0)
    }

    /// Returns whether stale reads count as violations. They do not after a failover to a slow
    /// clock until both nodes have completed a `SYNC`.
    pub(super) fn counts(state: &State) -> bool {
        state.monotonic
            || state.nodes.iter().all(|node| {
                node.synced
                    && node.replica.pending().len() == 0
                    && node.reply.is_none()
                    && node.queue.is_empty()
            })
    }

    fn served_right(&self, state: &State) -> bool {
        if state.bad.is_some() {
            return false;
        }
        let fine = state.nodes.iter().all(|node| {
            let l2 = state.server.1.map(|entry| Entry { origin: 0, ..entry });
            [node.l1, l2].into_iter().flatten().all(|entry| match self.judge(node, &entry) {
                Verdict::Fresh => entry.value >= node.required,
                Verdict::Stale(_) => entry.value >= node.required_hard,
                Verdict::Unverified | Verdict::Hidden(_) => true,
            })
        });
        fine || !Self::counts(state)
    }

    fn frontier_sound(&self, state: &State) -> bool {
        if state.has_loaded {
            return true;
        }
        let mut server = state.server.0.clone();
        let reply = server.sync(state.now, &full());
        state.nodes.iter().all(|node| {
            node.replica.epoch() != Some(reply.epoch)
                || node.replica.is_suspect()
                || reply
                    .ids
                    .iter()
                    .all(|(seq, id)| *seq > node.replica.frontier() || node.known.contains(id))
        }) || !Self::counts(state)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { source, now, issued, server, copy, nodes, ghosts, step, has_loaded, .. } = self;
        let Self { drops, failovers, flushes, nonces, resent, monotonic, bad, .. } = self;
        // The first removal is always of node 0.
        let views = if *step > 0 { &[0, 1][..] } else { &[0] };
        same::hash(to, views, |first, names| {
            (server, copy, &nodes[first], &nodes[1 - first]).hash(names);
            names.unordered(ghosts.iter().map(|(nonce, ghost)| (nonce.0, ghost)));
            (source, now, issued, step, has_loaded, drops, failovers, flushes).hash(names);
            (nonces, resent, monotonic, bad).hash(names);
        });
    }
}

impl State {
    pub(super) fn node(&mut self, i: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[i])
    }

    pub(super) fn server(&mut self) -> &mut (Authority, Option<Entry>) {
        Arc::make_mut(&mut self.server)
    }

    /// Drops state that no later step can depend on, so that more states are equal.
    fn forget(&mut self) {
        if self.failovers == 0 {
            (self.copy, self.issued) = (None, 0);
        }
        let (has_loaded, monotonic) = (self.has_loaded, self.monotonic);
        for node in &mut self.nodes {
            if has_loaded && !node.known.is_empty() {
                // Only properties of the replicas alone need it.
                Arc::make_mut(node).known.clear();
            }
            if let Some(node) = Arc::get_mut(node) {
                node.forget(monotonic);
            }
        }
    }
}

impl Node {
    /// The same for one node, after one of its steps.
    fn forget(&mut self, monotonic: bool) {
        self.replica.take_changed();
        self.synced &= !monotonic;
        // Origins are compared only with pending removals, and with future ones, which are later
        // than all.
        if self.replica.pending().len() == 0 {
            self.generation = 0;
            let flying = self.flight.iter_mut().map(|flight| &mut flight.entry);
            flying.chain(&mut self.l1).for_each(|entry| entry.origin = 0);
        }
    }
}

/// Larger than any ledger of the model, unless the ledger folds.
pub(super) const CAP: usize = 64;
/// Larger than any ledger of the model.
pub(super) const PAGE: usize = 64;
/// Longer than any history of the model.
pub(super) const RETENTION_MS: u64 = 1_000_000;

/// The `SYNC` request of a node that knows nothing.
pub(super) fn full() -> crinkle_core::protocol::ledger::SyncAsk {
    Replica::default().ask(Epoch(99), PAGE, RETENTION_MS)
}

/// Returns the server's ledger as seen by a node that has just loaded it.
pub(super) fn probe(server: &Authority, now: u64) -> Replica {
    let mut replica = Replica::default();
    let ask = replica.ask(Epoch(99), PAGE, RETENTION_MS);
    replica.synced(&server.clone().sync(now, &ask));
    replica
}

impl Model for Ledger {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.initial()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.bad.is_none() {
            self.enabled(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.step(&mut state, action);
        state.forget();
        let pruned = state.nonces > self.max_nonces + state.resent
            || state.nodes.iter().any(|node| node.queue.len() > 2);
        (!pruned).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no stale read behind a known removal", |model: &Self, state| {
                model.served_right(state)
            }),
            Property::always("the frontier is sound", |model: &Self, state| {
                model.frontier_sound(state)
            }),
            Property::always("quiet nodes agree with the server", |model: &Self, state| {
                model.converges(state)
            }),
            Property::sometimes(REACH, |model: &Self, state: &State| {
                state.step == model.script.len()
                    && state.nodes.iter().any(|node| {
                        if model.loaders == [false, false] {
                            return !node.replica.is_suspect();
                        }
                        node.required > 1
                            && node.l1.is_some_and(|entry| {
                                model.judge(node, &entry) == Verdict::Fresh
                                    && entry.value == state.source
                            })
                    })
            }),
        ]
    }
}

/// Returns whether a replica equals the server. After a fork it may keep numbers of the old epoch,
/// up to the number of its clear, which hides as much. A folded replica hides no less than the
/// exact barriers of the server.
pub(super) fn equal(one: &Replica, server: &Replica, folds: bool) -> bool {
    let same = |mine: u64, theirs: u64| {
        mine == theirs || mine <= server.floor().hard || (folds && mine > theirs)
    };
    one.epoch() == server.epoch()
        && one.frontier() == server.frontier()
        && one.floor() == server.floor()
        && [TAG, OTHER].iter().all(|target| {
            let Target::Tag(tag) = target else { return false };
            let (mine, theirs) = (one.levels(*tag), server.barriers(*target));
            same(mine.soft, theirs.soft) && same(mine.hard, theirs.hard)
        })
}
