//! One function judges an entry; there is no second path by which a value leaves the cache.
//!
//! ```text
//!  epoch foreign ─┐
//!  hard floor ────┤           soft floor ─┐
//!  hard barrier ──┼─▶ Hidden  soft barrier┼─▶ Stale     other session ──┐
//!  physical end ──┘           expire() ───┤             coherence_ttl ran out ──┼─▶ Unverified
//!                             logical end ┘             ledger suspect ─┘     else ─▶ Fresh
//! ```
//!
//! Hard is never answered, not even by fail-safe (S9); stale may be a fallback; unverified may be
//! served after a version check.

use super::Epoch;
use super::ledger::Levels;

/// What an entry says about itself. Times are on one monotonic clock, any unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryState {
    /// The epoch its stamp belongs to; `None` if the node had not met a ledger yet.
    pub epoch: Option<Epoch>,
    /// The node's frontier before its factory started.
    pub stamp: u64,
    /// The node's generation before its factory started; 0 if it was loaded elsewhere.
    pub origin: u64,
    /// The session it was last verified in.
    pub session: u64,
    /// The *start* of the read or factory that last verified it.
    pub verified_at: u64,
    /// The end of its logical life.
    pub logical: u64,
    /// The end of its physical life.
    pub physical: u64,
    /// Whether `expire` has marked it.
    pub expired: bool,
}

/// What the node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Knowledge {
    /// The ledger's epoch.
    pub epoch: Option<Epoch>,
    /// The floors.
    pub floor: Levels,
    /// Removals of everything that wait for a number, as `born` generations.
    pub pending: Levels,
    /// The current session.
    pub session: u64,
    /// Until when what was verified in the current session needs no check of its own.
    pub coherent_until: u64,
    /// How long an own check counts (the coherence coherence_ttl X).
    pub coherence_ttl: u64,
    /// Whether the ledger is in resync.
    pub suspect: bool,
}

/// What the node knows of one tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagLevels {
    /// Numbered removals.
    pub levels: Levels,
    /// Removals that wait for a number, as `born` generations.
    pub pending: Levels,
}

/// Why an entry may not be served as fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Its life is over.
    Lifetime,
    /// `expire` marked it.
    Expired,
    /// A barrier of one of its tags.
    Tag,
    /// A clear.
    Clear,
    /// Its ledger is gone.
    Epoch,
}

/// The judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// May be served.
    Fresh,
    /// Would be fresh, after a version check.
    Unverified,
    /// Never fresh again; may be a fallback.
    Stale(Why),
    /// Must not be answered in any way.
    Hidden(Why),
}

/// Judges an entry.
pub fn judge(
    entry: &EntryState,
    node: &Knowledge,
    tags: impl Iterator<Item = TagLevels>,
    now: u64,
) -> Verdict {
    let barriers = barriers(entry, node, tags);
    if let Verdict::Hidden(_) = barriers {
        return barriers;
    }
    if now >= entry.physical {
        return Verdict::Hidden(Why::Lifetime);
    }
    if let Verdict::Stale(_) = barriers {
        return barriers;
    }
    if entry.expired {
        return Verdict::Stale(Why::Expired);
    }
    if now >= entry.logical {
        return Verdict::Stale(Why::Lifetime);
    }
    let other_session = entry.session != node.session && !sabotaged!(VerifySkipped);
    if node.suspect || other_session || !is_leased(entry.verified_at, node, now) {
        return Verdict::Unverified;
    }
    Verdict::Fresh
}

/// Whether the coherence coherence_ttl still covers something verified at `verified_at`: the node's, or its
/// own check's. Never skipped, memo or not.
#[must_use]
pub fn is_leased(verified_at: u64, node: &Knowledge, now: u64) -> bool {
    now <= node.coherent_until
        || now <= verified_at.saturating_add(node.coherence_ttl)
        || sabotaged!(CoherenceForEver)
}

/// The part of the judgement that only a new generation can change.
fn barriers(
    entry: &EntryState,
    node: &Knowledge,
    tags: impl Iterator<Item = TagLevels>,
) -> Verdict {
    if entry.epoch != node.epoch && !sabotaged!(EpochIgnored) {
        return Verdict::Hidden(Why::Epoch);
    }
    let clear = TagLevels { levels: node.floor, pending: node.pending };
    if is_below(entry, clear.levels.hard, clear.pending.hard) {
        return Verdict::Hidden(Why::Clear);
    }
    let mut verdict = Verdict::Fresh;
    if is_below(entry, clear.levels.soft, clear.pending.soft) {
        verdict = Verdict::Stale(Why::Clear);
    }
    for tag in tags {
        if is_below(entry, tag.levels.hard, tag.pending.hard) {
            return Verdict::Hidden(Why::Tag);
        }
        if is_below(entry, tag.levels.soft, tag.pending.soft) {
            verdict = Verdict::Stale(Why::Tag);
        }
    }
    verdict
}

/// Below a numbered barrier, or not begun on this node after a pending one.
fn is_below(entry: &EntryState, barrier: u64, born: u64) -> bool {
    entry.stamp < barrier || (born != 0 && entry.origin < born)
}
