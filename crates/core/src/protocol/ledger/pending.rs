//! Removals of this node that have no number yet, and what finds one of them without a scan.
//!
//! In an outage 10,000 of them may wait, of 64 targets each, and every tag that is interned or changed asks
//! for its own, under the lock that each stamp needs. So they are found by target and by nonce.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use super::{Levels, MAX_ATTEMPTS, Removal, Strength, Target};
use crate::protocol::Nonce;

/// A removal of this node that has no number yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pending {
    /// What it removes.
    pub removal: Removal,
    /// The node's generation when it began: only factories begun at or after it on this node pass.
    pub born: u64,
    /// The nonces of earlier attempts, oldest first: one of them may have its number already.
    pub earlier: Vec<Nonce>,
}

impl Pending {
    fn nonces(&self) -> impl Iterator<Item = Nonce> + '_ {
        self.earlier.iter().copied().chain([self.removal.nonce])
    }
}

/// All of them, oldest first. What they are found by follows from them, and is not compared.
#[derive(Clone, Default)]
pub(super) struct Unnumbered {
    /// By a count of those that there have been.
    all: BTreeMap<u64, Pending>,
    next: u64,
    by_nonce: BTreeSet<(Nonce, u64)>,
    /// By what they hide, how hard, and when they began.
    by_target: BTreeSet<(Target, Strength, u64, u64)>,
}

impl Unnumbered {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Pending> + '_ {
        self.all.values().inspect(|_| looks::count())
    }

    pub(super) fn push(&mut self, removal: Removal, born: u64) {
        let (at, pending) = (self.next, Pending { removal, born, earlier: Vec::new() });
        self.next += 1;
        self.by_nonce.extend(pending.nonces().map(|nonce| (nonce, at)));
        self.by_target.extend(places(&pending, at));
        self.all.insert(at, pending);
    }

    /// Takes all of them out.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Pending> + use<> {
        std::mem::take(self).all.into_values()
    }

    /// For each strength, when the youngest began that hides this target; zero if none does.
    pub(super) fn born(&self, target: Target) -> Levels {
        let youngest = |strength| {
            let all = (target, strength, 0, 0)..=(target, strength, u64::MAX, u64::MAX);
            let found = self.by_target.range(all).next_back();
            found.inspect(|_| looks::count()).map_or(0, |(_, _, born, _)| *born)
        };
        Levels { soft: youngest(Strength::Soft), hard: youngest(Strength::Hard) }
    }

    /// Gives one a nonce that was never sent, and returns what to send.
    pub(super) fn renew(&mut self, nonce: Nonce, unsent: Nonce) -> Option<Removal> {
        let mut found = self.under(nonce);
        let at = found.find(|at| self.all.get(at).is_some_and(|p| p.removal.nonce == nonce))?;
        drop(found);
        let pending = self.all.get_mut(&at)?;
        if pending.earlier.len() >= MAX_ATTEMPTS {
            self.by_nonce.remove(&(pending.earlier.remove(0), at));
        }
        pending.earlier.push(std::mem::replace(&mut pending.removal.nonce, unsent));
        self.by_nonce.insert((unsent, at));
        Some(pending.removal.clone())
    }

    /// Takes out what has been sent under this nonce.
    pub(super) fn settle(&mut self, nonce: Nonce) -> Vec<Pending> {
        let found: Vec<_> = self.under(nonce).collect();
        found.into_iter().filter_map(|at| self.remove(at)).collect()
    }

    fn under(&self, nonce: Nonce) -> impl Iterator<Item = u64> + '_ {
        let all = self.by_nonce.range((nonce, 0)..=(nonce, u64::MAX));
        all.inspect(|_| looks::count()).map(|(_, at)| *at)
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

/// Where it is found by its targets.
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

/// How many entries have been looked at, for the test that nothing is scanned.
#[cfg(test)]
mod looks {
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
mod looks {
    #[inline]
    pub(super) fn count() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TagHash;
    use crate::protocol::ledger::{MAX_TARGETS, Replica};

    fn targets(of: u64) -> Vec<Target> {
        let tag = |n: u64| Target::Tag(TagHash(u128::from(of * MAX_TARGETS as u64 + n)));
        (0..MAX_TARGETS as u64).map(tag).collect()
    }

    /// What an outage costs grows as the number of removals that wait, not as its square.
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
        let changed = looks::take();
        assert!(changed <= MANY * MAX_TARGETS as u64, "{changed} for one look at each target");
        for n in 0..MANY {
            assert!(replica.resend(Nonce(n + 1), Nonce(MANY + n + 1)).is_some());
            assert_eq!(replica.pending_levels(Target::Everything), Levels::default());
        }
        (0..MANY).for_each(|n| replica.settle(Nonce(n + 1)));
        assert_eq!(replica.pending().len(), 0);
        let sent = looks::take();
        assert!(sent <= MANY * 2, "{sent} for two attempts at each");
    }

    /// Whatever is pushed, renewed and settled: what is found is what a scan finds.
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
