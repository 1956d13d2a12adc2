//! What happened in a universe, as seen from outside the caches: by callers, by the source, and by the
//! store and the bus beneath the faults.

use std::collections::HashMap;

use bytes::Bytes;

/// A moment: its place in the total order of events, and the virtual time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) order: u32,
    pub(super) ms: u64,
}

/// Which entries an invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Key(u8),
    /// A set of tags, as bits.
    Tags(u8),
    All,
}

impl Scope {
    pub(super) fn covers(self, load: &Load) -> bool {
        match self {
            Self::Key(key) => load.key == key,
            Self::Tags(tags) => load.tags & tags != 0,
            Self::All => true,
        }
    }
}

/// What a caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A read that may load.
    Load,
    /// A read that runs nothing.
    Get,
    /// The last look at a key, after everything has healed.
    LastLook,
    /// A value was set: this load.
    Set(usize),
    /// An invalidation, hard or soft.
    Invalidate { hard: bool },
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    Done,
    Queued,
    Unknown,
    Other,
}

/// One call of one caller.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) node: usize,
    pub(super) what: What,
    /// One scope per key, or one of tags.
    pub(super) scopes: Vec<Scope>,
    pub(super) start: At,
    pub(super) end: Option<At>,
    pub(super) outcome: Outcome,
    pub(super) answers: Vec<Answer>,
    pub(super) said: Said,
    pub(super) has_barrier: bool,
    pub(super) error: String,
}

/// One value that a reader got.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) key: u8,
    pub(super) load: usize,
    /// What the value itself says its key is.
    pub(super) says_key: u8,
    pub(super) stale: bool,
    pub(super) source: &'static str,
}

/// One value that came to be: by a run of a factory, or by a `set`.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) node: usize,
    pub(super) key: u8,
    pub(super) call: usize,
    /// When the factory began, or the `set` was called.
    pub(super) began: At,
    pub(super) ended: Option<At>,
    /// The version of the source that it read.
    pub(super) version: u32,
    pub(super) tags: u8,
    pub(super) is_set: bool,
    /// One run of a factory for several keys.
    pub(super) in_batch: bool,
    /// Runs of factories that said it is still current: begin and end.
    pub(super) confirmed: Vec<(u32, u32)>,
    /// Places in [`Log::applied`] where L2 took it.
    pub(super) stored: Vec<usize>,
}

/// What the store did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Put(usize),
    Set(usize),
    Remove,
    Expire,
    /// A removal was numbered.
    Advance {
        scope: Scope,
        hard: bool,
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
pub(super) struct Applied {
    pub(super) at: At,
    /// When it was sent: what came to be between then and now overlapped it.
    pub(super) sent: u32,
    /// On whose behalf; faults have none.
    pub(super) node: Option<usize>,
    pub(super) key: Option<u8>,
    pub(super) deed: Deed,
    pub(super) call: Option<usize>,
    /// Whether a message of its own tells of it.
    pub(super) told: bool,
    /// When a failover took it back.
    pub(super) lost: Option<At>,
}

/// A node was told of a change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) node: usize,
    pub(super) applied: usize,
    pub(super) at: At,
}

/// A node got the answer of a `SYNC`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Synced {
    pub(super) node: usize,
    pub(super) applied: At,
    pub(super) at: At,
}

/// A fault that was in force for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// One node, or all.
    pub(super) node: Option<usize>,
    pub(super) from: At,
    pub(super) until_ms: u64,
}

/// One life of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) slot: usize,
    pub(super) born: At,
    pub(super) died: Option<At>,
    /// When its clock jumped last.
    pub(super) jumped_ms: Option<u64>,
}

/// The history of a universe.
#[derive(Debug, Default)]
pub(super) struct Log {
    order: u32,
    pub(super) calls: Vec<Call>,
    pub(super) loads: Vec<Load>,
    pub(super) applied: Vec<Applied>,
    pub(super) heard: Vec<Heard>,
    pub(super) synced: Vec<Synced>,
    pub(super) subscribed: Vec<(usize, At)>,
    pub(super) faults: Vec<Fault>,
    pub(super) lives: Vec<Life>,
    /// Violations that were seen as they happened: rule, what, key, order.
    pub(super) seen: Vec<(&'static str, String, Option<u8>, At)>,
    /// Which change a message tells of.
    pub(super) told_by: HashMap<Bytes, usize>,
    /// Removals that have been numbered.
    pub(super) numbers: HashMap<(u64, u64), usize>,
    /// How often single things happened.
    pub(super) counts: HashMap<&'static str, u64>,
}

impl Log {
    /// The next place in the order.
    pub(super) fn at(&mut self, ms: u64) -> At {
        self.order += 1;
        At { order: self.order, ms }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// The store did something; its place in the list.
    pub(super) fn apply(&mut self, applied: Applied) -> usize {
        let index = self.applied.len();
        if let Deed::Put(load) | Deed::Set(load) = applied.deed {
            self.loads[load].stored.push(index);
        }
        if let Deed::Failover(snapshot) = applied.deed {
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
    pub(super) fn digest(&self) -> u64 {
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
