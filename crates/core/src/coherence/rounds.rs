//! Counts comparisons with the ledger.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// Comparisons with the ledger, counted as they are asked.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    asked: AtomicU64,
    /// The youngest of those that were answered.
    answered: AtomicU64,
    /// The first that begins after the youngest subscription; zero before the first.
    confirms: AtomicU64,
}

impl Rounds {
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(super) fn answer(&self, round: u64) {
        self.answered.fetch_max(round, Ordering::AcqRel);
    }

    /// A subscription was made: from now on L2 is believed once it has answered a comparison that begins later.
    /// The first of all does: before it, nothing is asked, and without L2 nothing ever is.
    pub(super) fn subscribed(&self) {
        let asked = self.asked();
        if asked > 0 {
            self.confirms.fetch_max(asked + 1, Ordering::AcqRel);
        }
    }

    /// Whether L2 has answered a comparison that began after the youngest subscription. A comparison writes, so a
    /// server that was demoted and kept its connections refuses it; what it answers to reads may be old.
    pub(super) fn are_confirmed(&self) -> bool {
        self.answered() >= self.confirms.load(Ordering::Acquire)
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }
}
