//! The history of a cluster as seen from outside the caches: by callers, by the source, and by the
//! store and the bus below the faults. The simulator writes it as things happen. For real servers,
//! it is merged from the records of several processes.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A moment: its place in the total order of events, and the time, virtual or real.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) order: u32,
    pub(crate) ms: u64,
}

/// The entries that an invalidation covers.
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

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// A read that may load.
    Load,
    /// A read without a factory.
    Get,
    /// A strict read: it returns what L2 holds, nothing, or what its factory loads.
    Strict { loads: bool },
    /// The final read of a key, after all faults have ended.
    LastLook,
    /// A `set` of the value with this load id.
    Set(usize),
    /// An invalidation, hard or soft.
    Invalidate { hard: bool },
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The call has not ended.
    Open,
    /// The call returned an answer or a receipt.
    Done,
    /// The call returned an error.
    Failed,
    /// The caller dropped the call.
    Cancelled,
    /// The node went down.
    Crashed,
}

/// What the receipt of a write says about L2.
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
    /// How often the call used L2, if that is known.
    pub(crate) asked: u32,
    /// The options that decide what the call may get.
    pub(crate) allows: Allows,
}

impl Call {
    /// A call that has begun.
    pub(crate) fn begun(node: usize, what: What, scopes: Vec<Scope>, start: At) -> Self {
        Self {
            node,
            what,
            scopes,
            start,
            end: None,
            outcome: Outcome::Open,
            answers: Vec::new(),
            said: Said::Nothing,
            has_barrier: false,
            error: String::new(),
            asked: 0,
            allows: Allows::default(),
        }
    }
}

/// What the options of a call allow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allows {
    /// A stale value when the load fails.
    pub(crate) fail_safe: bool,
    /// An error when another call's load takes too long.
    pub(crate) wait_timeout: bool,
}

/// One value that a reader got.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) key: u8,
    pub(crate) load: usize,
    /// The key that the value itself names.
    pub(crate) says_key: u8,
    pub(crate) stale: bool,
    pub(crate) source: &'static str,
}

/// One value, made by a factory run or by a `set`.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) node: usize,
    pub(crate) key: u8,
    pub(crate) call: usize,
    /// When the factory began, or the `set` was called.
    pub(crate) began: At,
    pub(crate) ended: Option<At>,
    /// The source's version that the load read.
    pub(crate) version: u32,
    pub(crate) tags: u8,
    pub(crate) is_set: bool,
    /// Whether the factory run loaded several keys.
    pub(crate) in_batch: bool,
    /// Factory runs that confirmed the value as current: begin and end.
    pub(crate) confirmed: Vec<(u32, u32)>,
    /// Indexes into [`Log::applied`] of the changes that stored the value in L2.
    pub(crate) stored: Vec<usize>,
}

/// What the store did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Put(usize),
    Set(usize),
    Remove,
    Expire,
    /// The ledger numbered a removal.
    Advance {
        scope: Scope,
        hard: bool,
        epoch: u64,
        number: u64,
    },
    /// A record vanished, or junk overwrote it.
    Evict,
    /// Everything vanished.
    Wipe,
    /// The ledger vanished.
    LedgerLost,
    /// The store went back to its state after this order.
    Failover(u32),
}

/// One change of the store.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) at: At,
    /// When the command was sent. What was made between then and `at` overlaps the change.
    pub(crate) sent: u32,
    /// The earliest moment of the change; `at` is the latest. Both are the same if the store itself
    /// records its changes.
    pub(crate) not_before: u32,
    /// False if the change may not have happened.
    pub(crate) sure: bool,
    /// The node that sent the command; faults have none.
    pub(crate) node: Option<usize>,
    pub(crate) key: Option<u8>,
    pub(crate) operation: Operation,
    pub(crate) call: Option<usize>,
    /// The version of the record that it wrote, if known. Messages refer to it.
    pub(crate) version: Option<u64>,
    /// The record's stamp, if known.
    pub(crate) stamp: Option<Stamped>,
    /// Whether a message announces the change.
    pub(crate) announced: bool,
    /// When a failover took the change back.
    pub(crate) lost: Option<At>,
}

/// A node received the announcement of a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    pub(crate) node: usize,
    pub(crate) applied: usize,
    pub(crate) at: At,
}

/// The stamp of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamped {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
    /// Whether record and ledger share a server. Only then does its writer know how far the ledger is.
    pub(crate) is_near: bool,
}

/// A node received the reply of a `SYNC`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Synced {
    pub(crate) node: usize,
    /// The earliest moment at which it ran.
    pub(crate) applied: At,
    pub(crate) at: At,
    /// Whether the node agreed with the ledger, if that is known.
    pub(crate) is_equal: bool,
}

/// The fault of a stopped process: L2 does not answer it, and it records events late.
pub(crate) const STOPPED: &str = "L2 does not answer a process that does not run";

/// A fault that was in force for a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// One node; `None` means all.
    pub(crate) node: Option<usize>,
    pub(crate) from: At,
    pub(crate) until_ms: u64,
}

/// A node, from its start until it goes down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeRun {
    pub(crate) slot: usize,
    pub(crate) born: At,
    pub(crate) died: Option<At>,
    /// When its clock first jumped.
    pub(crate) jumped_ms: Option<u64>,
    /// The node's own settings; `None` means those of the cluster.
    pub(crate) pace: Option<Pace>,
}

/// The settings of a node that the judge needs, in milliseconds: the poll, the coherence TTL plus
/// the largest clock error, the limit of an L2 call, and the limit of a call with a fallback.
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
    pub(crate) received: Vec<Received>,
    pub(crate) synced: Vec<Synced>,
    /// When the ledger took a barrier, including marks of owed announcements.
    pub(crate) advanced: Vec<At>,
    pub(crate) subscribed: Vec<(usize, At)>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) node_runs: Vec<NodeRun>,
    /// Violations that were noticed as they happened: rule, text, key, moment.
    pub(crate) seen: Vec<(&'static str, String, Option<u8>, At)>,
    /// The change that a message announces.
    pub(crate) announced_by: HashMap<Bytes, usize>,
    /// The removals that have a number.
    pub(crate) numbers: HashMap<(u64, u64), usize>,
    /// For a call that removes keys and tags: its keys part, mapped to its tags part.
    pub(crate) companions: HashMap<usize, usize>,
    /// Nodes that set a mark of owed announcements in the ledger, and the number of changes at the
    /// time they cleared it.
    pub(crate) owing: BTreeMap<usize, Option<usize>>,
    /// Details for the timeline only: moment, key, text.
    pub(crate) details: Vec<(At, Option<u8>, String)>,
    /// How often each counted event happened.
    pub(crate) counts: HashMap<&'static str, u64>,
}

impl Log {
    /// Returns the next moment in the order.
    pub(crate) fn at(&mut self, ms: u64) -> At {
        self.order += 1;
        At { order: self.order, ms }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Records that a node sets or clears its mark of owed announcements. A mark removes nothing.
    pub(crate) fn owes(&mut self, node: usize, owes: bool) {
        self.owing.insert(node, (!owes).then_some(self.applied.len()));
    }

    /// Returns whether the number of this epoch belongs to a recorded removal. A removal that a
    /// failover took back does not count: the new primary may issue the same number to another one.
    pub(crate) fn is_numbered(&self, number: (u64, u64)) -> bool {
        self.numbers.get(&number).is_some_and(|at| self.applied[*at].lost.is_none())
    }

    /// Records a change of the store; returns its index.
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

    /// Returns a checksum of everything that callers saw, to compare two runs.
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
