//! The one function that judges an entry. No value leaves the cache by another path.
//!
//! ```text
//!  other epoch ───┐
//!  hard floor ────┤           soft floor ──┐
//!  hard barrier ──┼─▶ Hidden  soft barrier ┼─▶ Stale   other session ─────────┐
//!  physical end ──┘           expire() ────┤           coherence TTL expired ──┼─▶ Unverified
//!                             logical end ─┘           ledger suspect ─────────┘   else ─▶ Fresh
//! ```
//!
//! A hidden entry is never answered, not even by fail-safe (S9). A stale one may be a fallback.
//! An unverified one may be served after a version check.

use super::Epoch;
use super::ledger::Levels;

/// The state of an entry. All times are on one monotonic clock, in any unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EntryState {
    /// The epoch of its stamp; `None` if the node had not met a ledger yet.
    pub epoch: Option<Epoch>,
    /// The node's frontier before its factory started.
    pub stamp: u64,
    /// The node's generation before its factory started; 0 if another node loaded it.
    pub origin: u64,
    /// The session in which it was last verified.
    pub session: u64,
    /// The *start* of the read or factory that last verified it.
    pub verified_at: u64,
    /// When it expires logically (turns stale).
    pub logical: u64,
    /// When it expires physically (is removed).
    pub physical: u64,
    /// Whether `expire` has marked it.
    pub expired: bool,
}

/// The state of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Knowledge {
    /// The ledger's epoch.
    pub epoch: Option<Epoch>,
    /// The floors.
    pub floor: Levels,
    /// Pending removals of everything, as `born` generations.
    pub pending: Levels,
    /// The current session.
    pub session: u64,
    /// Until when entries verified in the current session need no check of their own.
    pub coherent_until: u64,
    /// How long an entry's own check counts (the coherence TTL).
    pub coherence_ttl: u64,
    /// Whether the ledger is suspect, until the next `SYNC`.
    pub suspect: bool,
}

/// The state of one tag on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TagLevels {
    /// Numbered removals.
    pub levels: Levels,
    /// Pending removals, as `born` generations.
    pub pending: Levels,
}

/// Why an entry may not be served as fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Its TTL has expired.
    Lifetime,
    /// `expire` marked it.
    Expired,
    /// A barrier of one of its tags.
    Tag,
    /// A clear.
    Clear,
    /// Its ledger no longer exists.
    Epoch,
}

/// The result of [`judge`].
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
#[inline]
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
    if node.suspect || other_session || !is_within_coherence_ttl(entry.verified_at, node, now) {
        return Verdict::Unverified;
    }
    Verdict::Fresh
}

/// Whether the coherence TTL, the node's or the entry's own, covers a check at `verified_at`.
/// Applies with and without the memo.
#[must_use]
#[inline]
pub fn is_within_coherence_ttl(verified_at: u64, node: &Knowledge, now: u64) -> bool {
    now <= node.coherent_until
        || now <= verified_at.saturating_add(node.coherence_ttl)
        || sabotaged!(CoherenceForEver)
}

/// The part of the result that only a new generation can change.
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

/// Whether a barrier hides the entry: a numbered one by stamp, a pending one by generation.
#[inline]
fn is_below(entry: &EntryState, barrier: u64, born: u64) -> bool {
    entry.stamp < barrier || (born != 0 && entry.origin < born)
}
