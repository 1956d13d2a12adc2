//! Counts comparisons with the ledger.

use std::sync::atomic::Ordering;

use crate::sync::AtomicU64;

/// Comparisons with the ledger, numbered as they begin.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    asked: AtomicU64,
    /// The newest one that was answered.
    answered: AtomicU64,
    /// The first one that begins after the newest subscription; zero before the first.
    confirms: AtomicU64,
}

impl Rounds {
    pub(crate) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn answer(&self, round: u64) {
        self.answered.fetch_max(round, Ordering::AcqRel);
    }

    /// Notes a new subscription: from now on L2 is trusted once it has answered a comparison that
    /// begins later. Before the very first comparison nothing changes: that one confirms L2, and
    /// without L2 there is none.
    pub(crate) fn subscribed(&self) {
        let asked = self.asked();
        if asked > 0 {
            self.confirms.fetch_max(asked + 1, Ordering::AcqRel);
        }
    }

    /// Whether L2 has answered a comparison that began after the newest subscription. A comparison
    /// writes, so a demoted server that kept its connections refuses it. Its replies to reads may
    /// be old.
    pub(crate) fn are_confirmed(&self) -> bool {
        self.answered() >= self.confirms.load(Ordering::Acquire)
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }
}
