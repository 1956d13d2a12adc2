//! Invalidations that their calls kept from L2: they hold on this node until L2 holds something newer.
//!
//! What is meant is what L2 held at that moment: the version that this node had a copy of, and whatever is
//! older than the invalidation. (How old a record is follows from what L2 says is left of its life, so no
//! two machines' clocks are compared. It is older or as old as that, never younger, so the error is a
//! miss.) Of each key that is remembered; what there is no room for is meant as a whole.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::clock::Moment;
use crate::entry::Meta;
use crate::protocol::ledger::Strength;
use crate::protocol::{KeyHash, Version};
use crate::sync::{AtomicBool, Mutex};

/// What this node alone takes for invalid, of what L2 holds.
#[derive(Debug, Default)]
pub(crate) struct Own {
    marks: Mutex<Marks>,
    /// Mostly there are none, and then nobody looks.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Marks {
    keys: HashMap<KeyHash, Mark, RandomState>,
    /// Up to when everything is removed, and up to when everything is stale.
    hard_until: Option<Moment>,
    soft_until: Option<Moment>,
}

/// One key.
#[derive(Clone, Copy, Debug)]
struct Mark {
    strength: Strength,
    at: Moment,
    /// The version that is meant, once it is known.
    version: Option<Version>,
}

impl Own {
    /// What L2 holds of a key is invalid here. At most so many keys are remembered, for so long as what was
    /// there before may live; beyond that it is everything that is there now.
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
        let lives = |mark: &Mark| at < mark.at + longest;
        if marks.keys.len() >= most && !marks.keys.contains_key(&hash) {
            marks.keys.retain(|_, mark| lives(mark));
        }
        let known = marks.keys.get(&hash).copied().filter(lives);
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

    /// This node has stored something newer. (What it hears of another's write may be of the very one that
    /// is meant.)
    pub(crate) fn replaced(&self, hash: KeyHash) {
        if self.any.load(Ordering::Acquire) {
            self.marks.lock().keys.remove(&hash);
        }
    }

    /// Whether exactly this version is meant.
    pub(crate) fn is_of(&self, hash: KeyHash, version: Version) -> bool {
        let meant = |mark: &Mark| mark.version == Some(version);
        self.any.load(Ordering::Acquire) && self.marks.lock().keys.get(&hash).is_some_and(meant)
    }

    /// What is made here of a record of L2.
    pub(crate) fn strength(&self, meta: &Meta) -> Option<Strength> {
        if !self.any.load(Ordering::Acquire) || meta.own {
            return None;
        }
        let mut marks = self.marks.lock();
        let of_all = marks.of_all(meta.created);
        let Some(mark) = marks.keys.get_mut(&KeyHash::of(&meta.key)) else { return of_all };
        // What was expired elsewhere since has another version, and is no newer.
        let meant = mark.version == Some(meta.version) || meta.is_expired();
        if !meant && meta.created > mark.at {
            return of_all;
        }
        mark.version = Some(meta.version);
        of_all.max(Some(mark.strength))
    }
}

impl Marks {
    /// Everything that is there now counts as what the marks say.
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
