//! What happened to a cluster, as seen from outside the caches: by callers, by the source, and by the
//! store and the bus beneath the faults. The simulator writes it down as it happens; of real servers it is
//! put together from what several processes saw.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A moment: its place in the total order of events, and the time, virtual or real.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) order: u32,
    pub(crate) ms: u64,
}

/// Which entries an invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scope {
    Key(u8),
    /// A set of tags, as bits.
    Tags(u8),
    All,
}

impl Scope {
    pub(crate) fn covers(self, load: &Load) -> bool {
        match self {
            Self::Key(key) => load.key == key,
            Self::Tags(tags) => load.tags & tags != 0,
            Self::All => true,
        }
    }
}

/// What a caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// A read that may load.
    Load,
    /// A read that runs nothing.
    Get,
    /// A read that is what L2 holds, or nothing; or what a factory brings.
    Strict { loads: bool },
    /// The last look at a key, after everything has healed.
    LastLook,
    /// A value was set: this load.
    Set(usize),
    /// An invalidation, hard or soft.
    Invalidate { hard: bool },
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Not yet.
    Open,
    /// With an answer or a receipt.
    Done,
    /// With an error.
    Failed,
    /// Its caller dropped it.
    Cancelled,
    /// Its node went down.
    Crashed,
}

/// How far a write says it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    Nothing,
    Done,
    Queued,
    Unknown,
    Other,
}

/// One call of one caller.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) node: usize,
    pub(crate) what: What,
    /// One scope per key, or one of tags.
    pub(crate) scopes: Vec<Scope>,
    pub(crate) start: At,
    pub(crate) end: Option<At>,
    pub(crate) outcome: Outcome,
    pub(crate) answers: Vec<Answer>,
    pub(crate) said: Said,
    pub(crate) has_barrier: bool,
    pub(crate) error: String,
    /// How often L2 was asked on its behalf, if that is known.
    pub(crate) asked: u32,
    /// Which of its options decide about what it gets.
    pub(crate) allows: Allows,
}

/// What the options of a call allow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allows {
    /// A stale value when the load fails.
    pub(crate) fail_safe: bool,
    /// An error when another's load takes too long.
    pub(crate) wait_timeout: bool,
}

/// One value that a reader got.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) key: u8,
    pub(crate) load: usize,
    /// What the value itself says its key is.
    pub(crate) says_key: u8,
    pub(crate) stale: bool,
    pub(crate) source: &'static str,
}

/// One value that came to be: by a run of a factory, or by a `set`.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) node: usize,
    pub(crate) key: u8,
    pub(crate) call: usize,
    /// When the factory began, or the `set` was called.
    pub(crate) began: At,
    pub(crate) ended: Option<At>,
    /// The version of the source that it read.
    pub(crate) version: u32,
    pub(crate) tags: u8,
    pub(crate) is_set: bool,
    /// One run of a factory for several keys.
    pub(crate) in_batch: bool,
    /// Runs of factories that said it is still current: begin and end.
    pub(crate) confirmed: Vec<(u32, u32)>,
    /// Places in [`Log::applied`] where L2 took it.
    pub(crate) stored: Vec<usize>,
}

/// What the store did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Put(usize),
    Set(usize),
    Remove,
    Expire,
    /// A removal was numbered.
    Advance {
        scope: Scope,
        hard: bool,
        epoch: u64,
        number: u64,
    },
    /// A record vanished, or junk was written over it.
    Evict,
    /// Everything vanished.
    Wipe,
    /// The ledger vanished.
    LedgerLost,
    /// The store went back to what it was after this order.
    Failover(u32),
}

/// One change of the store.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) at: At,
    /// When it was sent: what came to be between then and now overlapped it.
    pub(crate) sent: u32,
    /// It did not happen earlier; `at` is no earlier than it happened. One and the same moment where the
    /// store tells what it does.
    pub(crate) not_before: u32,
    /// False if nobody knows whether it happened at all.
    pub(crate) sure: bool,
    /// On whose behalf; faults have none.
    pub(crate) node: Option<usize>,
    pub(crate) key: Option<u8>,
    pub(crate) operation: Operation,
    pub(crate) call: Option<usize>,
    /// The version of the record that it wrote, if that is known: what messages tell it by.
    pub(crate) version: Option<u64>,
    /// What its record is stamped with, if that is known.
    pub(crate) stamp: Option<Stamped>,
    /// Whether a message of its own tells of it.
    pub(crate) told: bool,
    /// When a failover took it back.
    pub(crate) lost: Option<At>,
}

/// A node was told of a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) node: usize,
    pub(crate) applied: usize,
    pub(crate) at: At,
}

/// What a record says of the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamped {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    /// Whether record and ledger share a server: only then has the writer to know how far the ledger is.
    pub(crate) is_near: bool,
}

/// A node got the answer of a `SYNC`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synced {
    pub(crate) node: usize,
    /// When it ran, at the earliest.
    pub(crate) applied: At,
    pub(crate) at: At,
    /// Whether the node said what the ledger does, if that is known.
    pub(crate) is_equal: bool,
}

/// The fault of a process that did not run: L2 does not answer it, and what it notes it notes late.
pub(crate) const STOPPED: &str = "L2 does not answer a process that does not run";

/// A fault that was in force for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// One node, or all.
    pub(crate) node: Option<usize>,
    pub(crate) from: At,
    pub(crate) until_ms: u64,
}

/// One life of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) slot: usize,
    pub(crate) born: At,
    pub(crate) died: Option<At>,
    /// When its clock jumped first.
    pub(crate) jumped_ms: Option<u64>,
    /// Its settings, if they are its own.
    pub(crate) pace: Option<Pace>,
}

/// What is to be known of a node's settings, in milliseconds: its poll, its coherence TTL with what its
/// clock may be off, the limit of an L2 call, and that of one whose caller has a fallback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) poll_ms: u64,
    pub(crate) coherence_ms: u64,
    pub(crate) hard_ms: u64,
    pub(crate) soft_ms: u64,
}

/// The history of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Log {
    order: u32,
    pub(crate) calls: Vec<Call>,
    pub(crate) loads: Vec<Load>,
    pub(crate) applied: Vec<Applied>,
    pub(crate) heard: Vec<Heard>,
    pub(crate) synced: Vec<Synced>,
    /// When the ledger took a barrier, a mark of announcements that are owed included.
    pub(crate) advanced: Vec<At>,
    pub(crate) subscribed: Vec<(usize, At)>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) lives: Vec<Life>,
    /// Violations that were seen as they happened: rule, what, key, order.
    pub(crate) seen: Vec<(&'static str, String, Option<u8>, At)>,
    /// Which change a message tells of.
    pub(crate) told_by: HashMap<Bytes, usize>,
    /// Removals that have been numbered.
    pub(crate) numbers: HashMap<(u64, u64), usize>,
    /// For the keys' part of a call that removes keys and tags: its tags' part.
    pub(crate) companions: HashMap<usize, usize>,
    /// Nodes that have said in the ledger that they owe announcements, and how many changes there had been
    /// when they said that they do no more.
    pub(crate) owing: BTreeMap<usize, Option<usize>>,
    /// For a story alone: when, of which key, what.
    pub(crate) told: Vec<(At, Option<u8>, String)>,
    /// How often single things happened.
    pub(crate) counts: HashMap<&'static str, u64>,
}

impl Log {
    /// The next place in the order.
    pub(crate) fn at(&mut self, ms: u64) -> At {
        self.order += 1;
        At { order: self.order, ms }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A node says in the ledger that it owes announcements, or that it does no more. That removes nothing.
    pub(crate) fn owes(&mut self, node: usize, owes: bool) {
        self.owing.insert(node, (!owes).then_some(self.applied.len()));
    }

    /// Whether this number of this epoch is that of a removal that was written down. Of one that a failover
    /// took back it is not: another server may issue the same number to another removal.
    pub(crate) fn is_numbered(&self, number: (u64, u64)) -> bool {
        self.numbers.get(&number).is_some_and(|at| self.applied[*at].lost.is_none())
    }

    /// The store did something; its place in the list.
    pub(crate) fn apply(&mut self, applied: Applied) -> usize {
        let index = self.applied.len();
        if let Operation::Put(load) | Operation::Set(load) = applied.operation {
            self.loads[load].stored.push(index);
        }
        if let Operation::Failover(snapshot) = applied.operation {
            for before in &mut self.applied {
                if before.at.order > snapshot && before.lost.is_none() {
                    before.lost = Some(applied.at);
                }
            }
        }
        self.applied.push(applied);
        index
    }

    /// A short sum of everything that callers saw, to compare two runs.
    pub(crate) fn digest(&self) -> u64 {
        let mut sum = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |x: u64| sum = (sum ^ x).wrapping_mul(0x0100_0000_01b3);
        for call in &self.calls {
            eat(call.start.ms);
            eat(call.end.map_or(0, |at| at.ms));
            eat(call.outcome as u64);
            for answer in &call.answers {
                eat(answer.load as u64 * 2 + u64::from(answer.stale));
            }
        }
        eat(self.applied.len() as u64);
        sum
    }
}
