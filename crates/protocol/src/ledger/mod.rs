//! The barrier ledger: *stamp an entry with what this node knew before its factory started; reject
//! it if any of its barriers is newer. If the ledger is lost, reject everything stamped under it.*
//!
//! The [`Authority`] numbers removals: in Redis a script over one sorted set, in memory and in the
//! models this type. Each node keeps a [`Replica`], which announcements and `SYNC` update.
//!
//! ```text
//!  remove_by_tag ──▶ Replica::begin (hidden here at once)
//!                      │ ADVANCE
//!                      ▼
//!                  Authority ── seq = max(last + 1, clock, caller's frontier + 1)
//!                      │ announcement { prev id, seq, nonce }
//!        in order ─────┴───── gap, anomaly, foreign epoch
//!        frontier moves        barrier applied at once, frontier stays, then SYNC
//! ```
//!
//! Invariants, cited by number in the code:
//!
//! - **B1** The frontier of a replica is the number below or at which it knows every removal.
//! - **B2** Levels only rise within one epoch; a hard level is never lowered by a soft one.
//! - **B3** A removal that is received is applied at once, in order or not.
//! - **B4** `prev` is compared with the newest *contiguous* item, never with the newest known one.
//! - **B5** After an anomaly no frontier is guessed: the replica is suspect until a full `SYNC`.
//! - **B6** What only this node knows is issued again under a new number, never forgotten.
//! - **B7** The newest barriers of tags are exact. Older ones fold, in order, into 65,536 registers
//!   by hash, hard and soft apart: folding hides more, never less. A register's number is the
//!   newest barrier folded into it. So the items above a frontier include every register that
//!   changed above it, and a replica folds its own barriers by itself.
//! - **B8** The retention belongs to the ledger: the longest that any caller has asked for since
//!   the epoch began. A caller with a shorter retention trims by the ledger's.
//! - **B9** A nonce is sent once. A promoted copy with a slow clock can issue the same numbers
//!   again. Each new attempt uses a new nonce, so a number with its nonce names one history only.
//!   Any nonce of a removal, in an announcement or in a `SYNC`, shows that it has a number.

// `authority` gives the numbers. `replica` is a node's copy, with `sync` (its `SYNC` cycle) and
// `pending` (removals without a number). `owed` is the mark of a node that could not announce.

mod authority;
mod owed;
mod pending;
mod replica;
mod sync;

pub use authority::{Authority, Snapshot};
pub use owed::short;
pub use owed::{Mark, owed, paid};
pub use pending::Pending;
pub use replica::{ReceiveResult, Replica, Synced};

use super::{Epoch, Nonce, TagHash};

/// How many ids of removals the authority and each replica remember, newest first.
pub const RECENT_IDS: usize = 1024;

/// How many removals of one node may wait for a number; one more folds all of them into a clear.
pub const MAX_PENDING: usize = 10_000;

/// How many earlier nonces of a pending removal a replica remembers. A forgotten nonce costs at
/// most a second number, which hides more (B9).
pub const MAX_ATTEMPTS: usize = 8;

/// How many removals beyond a gap a replica keeps one by one. Beyond that it keeps only their
/// barriers, folded (B7), and is suspect until a full `SYNC` (B5).
pub const MAX_AHEAD: usize = 1024;

/// How many tags' barriers a replica keeps exactly, whatever the ledger keeps; others fold (B7).
pub const MAX_BARRIERS: usize = 1 << 19;

/// How many targets one removal may carry; longer lists are split by the caller.
pub const MAX_TARGETS: usize = 64;

/// How far a number may run ahead of the authority's clock before the ledger starts a new epoch,
/// in microseconds (5 minutes).
pub const MAX_DRIFT_US: u64 = 300_000_000;

/// Whether a removal still allows its entries as a fail-safe fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// Expired: never fresh again, but a legal fallback.
    Soft,
    /// Removed: never answered again, not even as a fallback.
    Hard,
}

/// What a removal hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Every entry of the cache (`expire_all`, `remove_all`).
    Everything,
    /// Every entry that carries a tag of this register: what remains of old removals (B7).
    Register(u16),
    /// Every entry that carries this tag.
    Tag(TagHash),
}

/// Two numbers per target: the newest removal of each strength. Zero means never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Levels {
    /// Entries with a lower stamp are stale.
    pub soft: u64,
    /// Entries with a lower stamp are removed.
    pub hard: u64,
}

impl Levels {
    /// The level of one strength.
    #[must_use]
    #[inline]
    pub fn of(self, strength: Strength) -> u64 {
        match strength {
            Strength::Soft => self.soft,
            Strength::Hard => self.hard,
        }
    }

    /// Raises the level of one strength; never lowers it (B2). True if it moved.
    pub fn raise(&mut self, strength: Strength, seq: u64) -> bool {
        if sabotaged!(SoftSoftensHard) && strength == Strength::Soft && seq > self.soft {
            self.hard = 0;
        }
        let level = match strength {
            Strength::Soft => &mut self.soft,
            Strength::Hard => &mut self.hard,
        };
        let lowered = sabotaged!(BarrierOverwritten) && seq != 0 && seq != *level;
        let moved = seq > *level || lowered;
        *level = if moved { seq } else { *level };
        moved
    }
}

/// A removal, as its issuer requests it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Removal {
    /// The issuer chooses it, a new one for each attempt (B9).
    pub nonce: Nonce,
    /// Hard or soft.
    pub strength: Strength,
    /// What it hides, at most [`MAX_TARGETS`].
    pub targets: Vec<Target>,
}

impl Removal {
    /// Replaces tags by their registers, which hides more and needs at most 65,536 in all (B7).
    fn fold(&mut self) {
        for target in &mut self.targets {
            if let Target::Tag(tag) = target {
                *target = Target::Register(tag.register());
            }
        }
    }
}

/// A removal, as the authority numbered it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Its number.
    pub seq: u64,
    /// The id of the item before it, `None` for the first of an epoch.
    pub prev: Option<Nonce>,
    /// What it removes.
    pub removal: Removal,
}

/// Requests a number for a removal from the authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Advance {
    /// The removal.
    pub removal: Removal,
    /// The epoch this node knows, if any.
    pub epoch: Option<Epoch>,
    /// The highest number this node knows in that epoch; the number issued is above it.
    pub frontier: u64,
    /// The epoch to begin if there is no ledger.
    pub new_epoch: Epoch,
    /// How long barriers must be kept, in milliseconds; 0 for as long as others need them (B8).
    pub retention_ms: u64,
}

/// The authority's answer to [`Advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Advanced {
    /// The epoch the number belongs to.
    pub epoch: Epoch,
    /// The id of the item before it.
    pub prev: Option<Nonce>,
    /// The number issued.
    pub seq: u64,
    /// Whether the store has announced it on the backplane itself.
    pub announced: bool,
}

/// Requests from the authority what this replica does not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SyncAsk {
    /// The epoch this node knows, if any.
    pub epoch: Option<Epoch>,
    /// The reply contains items above this number.
    pub from: u64,
    /// This node's frontier, or the authority's as of the page before; the authority never issues
    /// a number at or below it.
    pub frontier: u64,
    /// The newest id at or below `frontier`. If the authority has another one there, the answer is
    /// [`Standing::Reload`]. `None` skips the comparison.
    pub last: Option<Nonce>,
    /// The epoch to begin if there is no ledger.
    pub new_epoch: Epoch,
    /// The maximum number of items in one reply.
    pub page: usize,
    /// How long barriers must be kept, in milliseconds; 0 for as long as others need them (B8).
    pub retention_ms: u64,
}

/// How the replica's history relates to the authority's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The replica's history is a prefix of the authority's; the reply holds the items above it.
    Current,
    /// The replica names an id that the authority does not have: load everything and compare.
    Reload,
    /// The replica has another epoch, or none.
    NewEpoch,
}

/// The authority's answer to [`SyncAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SyncReply {
    /// See [`Standing`].
    pub standing: Standing,
    /// The epoch of everything below.
    pub epoch: Epoch,
    /// The last number issued, or the frontier of a replica that was higher.
    pub frontier: u64,
    /// Barriers at or below this number may have been dropped into the floors.
    pub trim: u64,
    /// Barriers of tags at or below this number are in registers.
    pub folded: u64,
    /// The floors of `expire_all` and `remove_all`.
    pub floor: Levels,
    /// The newest id.
    pub last: Option<Nonce>,
    /// Ids above `from`, ascending.
    pub ids: Vec<(u64, Nonce)>,
    /// Barriers of tags and registers above `from`, ascending.
    pub levels: Vec<(u64, Target, Strength)>,
    /// False if the page was full: request the next one from the highest number in it.
    pub complete: bool,
    /// The authority's clock, in microseconds since the Unix epoch.
    pub now_us: u64,
}
