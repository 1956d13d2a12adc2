//! Removals of this node without a number yet, with indexes that find one without a scan.
//!
//! In an outage 10,000 of them may wait, with 64 targets each. Every tag that is interned or
//! changed looks up its own under the lock that each stamp needs. Indexes by target and by nonce
//! keep that lookup short.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use super::{Levels, MAX_ATTEMPTS, Removal, Strength, Target};
use crate::Nonce;

/// A removal of this node that has no number yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// What it removes.
    pub removal: Removal,
    /// The node's generation when the removal began. Only entries whose factory began on this node
    /// at or after it stay visible.
    pub born: u64,
    /// The nonces of earlier attempts, oldest first: one of them may already have a number.
    pub earlier: Vec<Nonce>,
}

impl Pending {
    fn nonces(&self) -> impl Iterator<Item = Nonce> + '_ {
        self.earlier.iter().copied().chain([self.removal.nonce])
    }
}

/// All pending removals, oldest first. The indexes follow from them, so `Eq` and `Hash` skip them.
#[derive(Clone, Default)]
pub(super) struct Unnumbered {
    /// Keyed by a counter.
    all: BTreeMap<u64, Pending>,
    next: u64,
    by_nonce: BTreeSet<(Nonce, u64)>,
    /// Keyed by target, strength and `born` generation.
    by_target: BTreeSet<(Target, Strength, u64, u64)>,
}

impl Unnumbered {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Pending> + '_ {
        self.all.values().inspect(|_| visits::count())
    }

    pub(super) fn push(&mut self, removal: Removal, born: u64) {
        let (at, pending) = (self.next, Pending { removal, born, earlier: Vec::new() });
        self.next += 1;
        self.by_nonce.extend(pending.nonces().map(|nonce| (nonce, at)));
        self.by_target.extend(places(&pending, at));
        self.all.insert(at, pending);
    }

    /// Removes and returns all of them.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Pending> + use<> {
        std::mem::take(self).all.into_values()
    }

    /// For each strength, the newest `born` generation that hides this target; zero if none does.
    pub(super) fn born(&self, target: Target) -> Levels {
        let youngest = |strength| {
            let all = (target, strength, 0, 0)..=(target, strength, u64::MAX, u64::MAX);
            let found = self.by_target.range(all).next_back();
            found.inspect(|_| visits::count()).map_or(0, |(_, _, born, _)| *born)
        };
        Levels { soft: youngest(Strength::Soft), hard: youngest(Strength::Hard) }
    }

    /// Gives a removal a fresh nonce and returns the request to send.
    pub(super) fn renew(&mut self, nonce: Nonce, fresh: Nonce) -> Option<Removal> {
        let mut found = self.under(nonce);
        let at = found.find(|at| self.all.get(at).is_some_and(|p| p.removal.nonce == nonce))?;
        drop(found);
        let pending = self.all.get_mut(&at)?;
        if pending.earlier.len() >= MAX_ATTEMPTS {
            self.by_nonce.remove(&(pending.earlier.remove(0), at));
        }
        pending.earlier.push(std::mem::replace(&mut pending.removal.nonce, fresh));
        self.by_nonce.insert((fresh, at));
        Some(pending.removal.clone())
    }

    /// Removes and returns every removal sent under this nonce.
    pub(super) fn settle(&mut self, nonce: Nonce) -> Vec<Pending> {
        let found: Vec<_> = self.under(nonce).collect();
        found.into_iter().filter_map(|at| self.remove(at)).collect()
    }

    fn under(&self, nonce: Nonce) -> impl Iterator<Item = u64> + '_ {
        let all = self.by_nonce.range((nonce, 0)..=(nonce, u64::MAX));
        all.inspect(|_| visits::count()).map(|(_, at)| *at)
    }

    fn remove(&mut self, at: u64) -> Option<Pending> {
        let pending = self.all.remove(&at)?;
        for nonce in pending.nonces() {
            self.by_nonce.remove(&(nonce, at));
        }
        for place in places(&pending, at) {
            self.by_target.remove(&place);
        }
        Some(pending)
    }
}

/// Its entries in the index by target.
fn places(pending: &Pending, at: u64) -> impl Iterator<Item = (Target, Strength, u64, u64)> + '_ {
    let (strength, born) = (pending.removal.strength, pending.born);
    pending.removal.targets.iter().map(move |target| (*target, strength, born, at))
}

impl PartialEq for Unnumbered {
    fn eq(&self, other: &Self) -> bool {
        self.all.values().eq(other.all.values())
    }
}

impl Eq for Unnumbered {}

impl Hash for Unnumbered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.all.len());
        self.all.values().for_each(|pending| pending.hash(state));
    }
}

impl fmt::Debug for Unnumbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.values()).finish()
    }
}

/// How many index entries the code has visited, for the test that nothing is scanned.
#[cfg(test)]
mod visits {
    use std::cell::Cell;

    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });

    pub(super) fn count() {
        COUNT.set(COUNT.get() + 1);
    }

    pub(super) fn take() -> u64 {
        COUNT.take()
    }
}

#[cfg(not(test))]
mod visits {
    #[inline]
    pub(super) fn count() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TagHash;
    use crate::ledger::{MAX_TARGETS, Replica};

    fn targets(of: u64) -> Vec<Target> {
        let tag = |n: u64| Target::Tag(TagHash(u128::from(of * MAX_TARGETS as u64 + n)));
        (0..MAX_TARGETS as u64).map(tag).collect()
    }

    /// The cost of an outage is linear in the number of waiting removals, not quadratic.
    #[test]
    fn nothing_is_scanned_while_many_removals_wait() {
        const MANY: u64 = 2000;
        let mut replica = Replica::default();
        for n in 0..MANY {
            let (nonce, strength) = (Nonce(n + 1), Strength::Hard);
            replica.begin(Removal { nonce, strength, targets: targets(n) }, n + 1);
            for target in replica.take_changed() {
                assert_eq!(replica.pending_levels(target), Levels { soft: 0, hard: n + 1 });
            }
        }
        let changed = visits::take();
        assert!(changed <= MANY * MAX_TARGETS as u64, "{changed} for one visit of each target");
        for n in 0..MANY {
            assert!(replica.resend(Nonce(n + 1), Nonce(MANY + n + 1)).is_some());
            assert_eq!(replica.pending_levels(Target::Everything), Levels::default());
        }
        (0..MANY).for_each(|n| replica.settle(Nonce(n + 1)));
        assert_eq!(replica.pending().len(), 0);
        let sent = visits::take();
        assert!(sent <= MANY * 2, "{sent} for two attempts at each");
    }

    /// After any sequence of pushes, renewals and settles, the indexes agree with a scan.
    #[test]
    fn what_is_found_is_what_a_scan_finds() {
        let mut all = Unnumbered::default();
        let tag = |n: u64| Target::Tag(TagHash(u128::from(n % 3)));
        for n in 1..=60_u64 {
            let strength = if n % 2 == 0 { Strength::Hard } else { Strength::Soft };
            all.push(
                Removal { nonce: Nonce(n), strength, targets: vec![tag(n), tag(n / 3)] },
                n / 4,
            );
            for attempt in 0..n % 11 {
                let newest = all.iter().last().map(|pending| pending.removal.nonce);
                assert!(all.renew(newest.expect("pushed"), Nonce(n * 100 + attempt)).is_some());
            }
            if n % 5 == 0 {
                let nonce = Nonce(n - 3);
                let scanned = all.iter().filter(|p| p.nonces().any(|of| of == nonce)).count();
                assert_eq!(all.settle(nonce).len(), scanned);
            }
            for target in [tag(0), tag(1), tag(2), Target::Everything] {
                let mut scanned = Levels::default();
                for pending in all.iter().filter(|p| p.removal.targets.contains(&target)) {
                    scanned.raise(pending.removal.strength, pending.born);
                }
                assert_eq!(all.born(target), scanned);
            }
        }
        let nonces: usize = all.iter().map(|pending| pending.nonces().count()).sum();
        assert_eq!(all.by_nonce.len(), nonces);
        let count = all.take().count();
        assert!(count > 40 && all.len() == 0 && all.by_target.is_empty(), "{count}");
    }
}
