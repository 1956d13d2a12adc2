//! Invalidations that skip L2: they apply on this node until L2 holds something newer.
//!
//! An invalidation covers what L2 held at that moment: the version that this node had a copy of,
//! and every record older than the invalidation. (A record's age follows from the TTL that L2
//! reports as left, so no two machines' clocks are compared. The estimated age is never too young,
//! so an error is only a miss.) Each key has its own mark; on overflow, one mark covers everything.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::clock::Moment;
use crate::entry::Meta;
use crate::protocol::ledger::Strength;
use crate::protocol::{KeyHash, Version};
use crate::sync::{AtomicBool, Mutex};

/// The records of L2 that only this node treats as invalid.
#[derive(Debug, Default)]
pub(crate) struct LocalInvalidations {
    marks: Mutex<Marks>,
    /// Mostly false, which saves the lookup.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Marks {
    keys: HashMap<KeyHash, Mark, RandomState>,
    /// Everything created until then counts as removed.
    hard_until: Option<Moment>,
    /// Everything created until then counts as stale.
    soft_until: Option<Moment>,
}

/// The mark of one key.
#[derive(Clone, Copy, Debug)]
struct Mark {
    strength: Strength,
    at: Moment,
    /// The version that it covers, once it is known.
    version: Option<Version>,
}

impl LocalInvalidations {
    /// Makes L2's record of a key invalid on this node. It remembers at most `most` keys, each for
    /// `longest`: no older record lasts longer. On overflow it covers everything that exists now.
    pub(crate) fn hide(
        &self,
        hash: KeyHash,
        strength: Strength,
        version: Option<Version>,
        at: Moment,
        (longest, most): (Duration, usize),
    ) {
        let mut marks = self.marks.lock();
        self.any.store(true, Ordering::Release);
        let in_force = |mark: &Mark| at < mark.at + longest;
        if marks.keys.len() >= most && !marks.keys.contains_key(&hash) {
            marks.keys.retain(|_, mark| in_force(mark));
        }
        let known = marks.keys.get(&hash).copied().filter(in_force);
        let mark = Mark {
            strength: known.map_or(strength, |known| known.strength.max(strength)),
            at,
            version: version.or_else(|| known?.version),
        };
        marks.keys.insert(hash, mark);
        if marks.keys.len() > most {
            marks.overflow(at);
        }
    }

    /// Removes the mark of a key, for which this node has stored something newer. (A received
    /// message may announce the very write that the mark covers.)
    pub(crate) fn replaced(&self, hash: KeyHash) {
        if self.any.load(Ordering::Acquire) {
            self.marks.lock().keys.remove(&hash);
        }
    }

    /// Whether the mark covers exactly this version.
    pub(crate) fn is_of(&self, hash: KeyHash, version: Version) -> bool {
        let is_covered = |mark: &Mark| mark.version == Some(version);
        self.any.load(Ordering::Acquire)
            && self.marks.lock().keys.get(&hash).is_some_and(is_covered)
    }

    /// How this node weakens a record of L2.
    pub(crate) fn strength(&self, meta: &Meta) -> Option<Strength> {
        if !self.any.load(Ordering::Acquire) || meta.local_only {
            return None;
        }
        let mut marks = self.marks.lock();
        let of_all = marks.of_all(meta.created);
        let Some(mark) = marks.keys.get_mut(&KeyHash::of(&meta.key)) else { return of_all };
        // A record that another node expired since has another version, and is no newer.
        let is_covered = mark.version == Some(meta.version) || meta.is_expired();
        if !is_covered && meta.created > mark.at {
            return of_all;
        }
        mark.version = Some(meta.version);
        of_all.max(Some(mark.strength))
    }
}

impl Marks {
    /// Replaces the marks of single keys by one for everything that exists now.
    fn overflow(&mut self, now: Moment) {
        for mark in self.keys.values() {
            match mark.strength {
                Strength::Hard => self.hard_until = Some(now),
                Strength::Soft => self.soft_until = Some(now),
            }
        }
        self.keys.clear();
    }

    fn of_all(&self, created: Moment) -> Option<Strength> {
        let covers = |until: Option<Moment>| until.is_some_and(|until| created <= until);
        match (covers(self.hard_until), covers(self.soft_until)) {
            (true, _) => Some(Strength::Hard),
            (false, true) => Some(Strength::Soft),
            (false, false) => None,
        }
    }
}
