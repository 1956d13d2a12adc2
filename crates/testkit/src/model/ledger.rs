//! The ledger between two nodes: removals, lost and reordered messages, lost replies, a flushed
//! store, a failover that loses a suffix.
//!
//! One key tagged with tag 1; tag 2 is there to make gaps. The source is a counter that moves with
//! every removal of tag 1 or of everything, so "stale" is a number below the one required.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crinkle_core::protocol::ledger::{
    Advanced, Authority, Item, Levels, Removal, Replica, Strength, SyncReply, Target,
};
use crinkle_core::protocol::validity::{Facts, Knowledge, TagLevels, Verdict, judge};
use crinkle_core::protocol::{Epoch, Nonce, TagHash};
use stateright::{Model, Property};

use super::{Expect, REACH, Report, explore};

/// The tag that the key carries.
pub(super) const TAG: Target = Target::Tag(TagHash(1));
/// Another tag.
pub(super) const OTHER: Target = Target::Tag(TagHash(2));

/// A copy of the value, in L1 or in L2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) value: u8,
    pub(super) epoch: Option<Epoch>,
    pub(super) stamp: u64,
    pub(super) origin: u64,
}

/// A load under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) entry: Entry,
    pub(super) loaded: bool,
    pub(super) joined: Option<u8>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) replica: Replica,
    pub(super) generation: u64,
    pub(super) l1: Option<Entry>,
    pub(super) flight: Option<Flight>,
    pub(super) flights: u8,
    pub(super) queue: Vec<(Epoch, Item)>,
    /// The reply of a `SYNC` under way.
    pub(super) answer: Option<SyncReply>,
    /// The reply of an ADVANCE under way.
    pub(super) reply: Option<(Removal, Advanced)>,
    /// No fresh value may be below this, no fallback below that.
    pub(super) required: u8,
    pub(super) required_hard: u8,
    /// Every id this node was told of.
    pub(super) known: BTreeSet<Nonce>,
    /// Whether it has completed a `SYNC` since the last doubtful step.
    pub(super) synced: bool,
    /// Of the sabotaged variants: the last number heard for the tag, the last id heard.
    pub(super) last_number: u64,
    pub(super) newest: Option<Nonce>,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(super) source: u8,
    pub(super) now: u64,
    pub(super) server: Arc<(Authority, Option<Entry>)>,
    pub(super) copy: Arc<(Authority, Option<Entry>)>,
    pub(super) nodes: [Arc<Node>; 2],
    /// What each removal protects: the source's number, and whether it was hard.
    pub(super) ghosts: Arc<BTreeMap<Nonce, (u8, Strength)>>,
    pub(super) step: usize,
    pub(super) drops: u8,
    pub(super) failovers: u8,
    pub(super) flushes: u8,
    pub(super) epochs: u64,
    pub(super) nonces: u64,
    /// Whether no server has ever issued a number that a node had passed.
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
    Load(usize),
    Join(usize),
    Done(usize),
    ReadL2(usize),
}

/// A rule that a variant breaks.
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
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(super) script: Vec<(Target, Strength)>,
    pub(super) drops: u8,
    pub(super) failovers: u8,
    pub(super) flushes: u8,
    pub(super) flights: u8,
    /// Which nodes load; the first removal is always of node 0.
    pub(super) loaders: [bool; 2],
    pub(super) joins: bool,
    pub(super) reorder: bool,
    /// `SYNC` in two steps, so that things happen in between; or at once.
    pub(super) slow_sync: bool,
    /// Whether a promoted server's clock is past every number issued.
    pub(super) clock_ahead: bool,
    pub(super) page: usize,
    pub(super) max_nonces: u64,
    pub(super) sabotage: Sabotage,
}

impl Ledger {
    fn base(script: &[(Target, Strength)]) -> Self {
        Self {
            script: script.to_vec(),
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
            max_nonces: 5,
            sabotage: Sabotage::None,
        }
    }

    /// How this node judges a copy.
    pub(super) fn judge(&self, node: &Node, entry: &Entry) -> Verdict {
        let replica = &node.replica;
        let epoch = if self.sabotage == Sabotage::NoEpoch { replica.epoch() } else { entry.epoch };
        let facts = Facts {
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
            lease: 1,
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
        judge(&facts, &knowledge, std::iter::once(tag), 0)
    }

    /// Whether stale reads count: not between a failover to a clock that was behind and the
    /// moment at which both nodes have seen and repaired it.
    pub(super) fn counts(state: &State) -> bool {
        state.monotonic
            || state.nodes.iter().all(|node| {
                node.synced
                    && node.replica.pending().is_empty()
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
        if state.has_loaded() {
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

impl State {
    pub(super) fn node(&mut self, i: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[i])
    }

    pub(super) fn server(&mut self) -> &mut (Authority, Option<Entry>) {
        Arc::make_mut(&mut self.server)
    }

    /// Whether anything was loaded. What the replicas do does not depend on it, so properties of
    /// the replicas alone are checked in the states in which nothing was.
    pub(super) fn has_loaded(&self) -> bool {
        self.nodes.iter().any(|node| node.flights > 0 || node.l1.is_some())
    }
}

/// Larger than any ledger here.
pub(super) const PAGE: usize = 64;
/// Longer than any history here.
pub(super) const RETENTION_MS: u64 = 1_000_000;

/// The question of a node that knows nothing.
pub(super) fn full() -> crinkle_core::protocol::ledger::SyncAsk {
    Replica::default().ask(Epoch(99), PAGE, RETENTION_MS)
}

/// The server's ledger as a node that has just loaded it sees it.
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
        let pruned =
            state.nonces > self.max_nonces || state.nodes.iter().any(|node| node.queue.len() > 2);
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

/// Runs the configurations whose name contains `filter`; the large ones only if `deep`.
pub fn run(deep: bool, filter: &str, judge: &mut dyn FnMut(Report)) {
    let all = designs(deep)
        .into_iter()
        .map(|(name, model)| (format!("ledger {name}"), model, Expect::Holds))
        .chain(sabotaged().into_iter().map(|(what, model)| {
            let model = Ledger { sabotage: what, ..model };
            (format!("ledger sabotage: {what:?}"), model, Expect::Caught)
        }));
    for (name, model, expect) in all {
        if name.contains(filter) {
            judge(explore(name, model, expect));
        }
    }
}

const HARD: (Target, Strength) = (TAG, Strength::Hard);
const SOFT: (Target, Strength) = (TAG, Strength::Soft);
const NOISE: (Target, Strength) = (OTHER, Strength::Hard);
const CLEAR: (Target, Strength) = (Target::Everything, Strength::Hard);

fn designs(deep: bool) -> Vec<(&'static str, Ledger)> {
    let both = Ledger::base(&[HARD]);
    let issuer = Ledger { loaders: [true, false], ..both.clone() };
    let peer = Ledger { loaders: [false, true], ..both.clone() };
    let two = vec![HARD, HARD];
    let tags = vec![NOISE, HARD];
    let mut all = vec![
        (
            "A two removals, a lost message, joiners",
            Ledger { script: two.clone(), drops: 1, joins: true, ..peer.clone() },
        ),
        (
            "B two tags, a lost message, reordering",
            Ledger { script: tags.clone(), drops: 1, reorder: true, ..peer.clone() },
        ),
        ("C a removal, a flush, joiners", Ledger { flushes: 1, joins: true, ..both.clone() }),
        ("D two removals, a flush", Ledger { script: two.clone(), flushes: 1, ..peer.clone() }),
        ("E a removal, a failover", Ledger { failovers: 1, ..peer.clone() }),
        (
            "F two tags, a failover, a lost message",
            Ledger { script: tags.clone(), failovers: 1, drops: 1, ..peer.clone() },
        ),
        (
            "G a removal, a failover, clock behind",
            Ledger { failovers: 1, clock_ahead: false, ..both.clone() },
        ),
        (
            "H two removals, reordering, joiners",
            Ledger { script: two.clone(), reorder: true, joins: true, ..peer.clone() },
        ),
        ("P a lost reply, slow SYNC", Ledger { drops: 1, slow_sync: true, ..issuer.clone() }),
        (
            "Q soft and hard, a lost reply, reordering",
            Ledger { script: vec![SOFT, HARD], drops: 1, reorder: true, ..issuer.clone() },
        ),
        (
            "R two tags, slow SYNC, pages of one",
            Ledger { script: tags.clone(), slow_sync: true, page: 1, ..issuer.clone() },
        ),
        ("S a removal, a flush, slow SYNC", Ledger { flushes: 1, slow_sync: true, ..peer.clone() }),
        (
            "T a removal, a failover, slow SYNC",
            Ledger { failovers: 1, slow_sync: true, ..peer.clone() },
        ),
    ];
    if deep {
        all.extend([
            ("A+ both load", Ledger { script: two.clone(), drops: 1, joins: true, ..both.clone() }),
            ("D+ both load", Ledger { script: two.clone(), flushes: 1, ..both.clone() }),
            ("E+ both load", Ledger { script: two.clone(), failovers: 1, ..both.clone() }),
            (
                "G+ two removals, a failover, clock behind",
                Ledger { script: two.clone(), failovers: 1, clock_ahead: false, ..peer.clone() },
            ),
            (
                "U two removals, a lost reply, slow SYNC, pages of one",
                Ledger {
                    script: vec![HARD, NOISE],
                    drops: 1,
                    slow_sync: true,
                    page: 1,
                    ..issuer.clone()
                },
            ),
            (
                "V a removal, a flush and a failover",
                Ledger { flushes: 1, failovers: 1, ..peer.clone() },
            ),
            (
                "W two removals, a failover, slow SYNC",
                Ledger { script: two, failovers: 1, slow_sync: true, ..peer.clone() },
            ),
            (
                "X clear and tag, a failover, clock behind",
                Ledger { script: vec![CLEAR, HARD], failovers: 1, clock_ahead: false, ..issuer },
            ),
            (
                "Y a removal, a flush, slow SYNC, a loss",
                Ledger { flushes: 1, slow_sync: true, drops: 1, ..both },
            ),
            (
                "Z two tags, slow SYNC, reordering, two losses",
                Ledger { script: tags, slow_sync: true, reorder: true, drops: 2, page: 1, ..peer },
            ),
        ]);
    }
    all
}

fn sabotaged() -> Vec<(Sabotage, Ledger)> {
    let one = Ledger::base(&[HARD]);
    let two = Ledger::base(&[HARD, HARD]);
    let tags = Ledger::base(&[NOISE, HARD]);
    vec![
        (Sabotage::StampAfter, one.clone()),
        (Sabotage::UncheckedJoin, Ledger { joins: true, ..one.clone() }),
        (Sabotage::NoEpoch, Ledger { flushes: 1, ..one.clone() }),
        (Sabotage::LastWriteWins, Ledger { reorder: true, ..two.clone() }),
        (Sabotage::IgnoreGap, Ledger { drops: 1, ..tags.clone() }),
        (Sabotage::NewestAsPrev, Ledger { drops: 1, ..Ledger::base(&[HARD, NOISE, NOISE]) }),
        (Sabotage::NoLogMatching, Ledger { failovers: 1, ..two.clone() }),
        (Sabotage::NoPending, one.clone()),
        (Sabotage::OriginAfter, one.clone()),
        (Sabotage::NoReissue, Ledger { failovers: 1, ..two }),
        (Sabotage::IgnoreSuspect, Ledger { flushes: 1, ..one.clone() }),
        (Sabotage::SoftForHard, one),
    ]
}
