use std::sync::atomic::Ordering;

use crate::protocol::ledger::Levels;
use crate::protocol::validity::TagLevels;
use crate::sync::AtomicU64;

/// The barrier levels of one tag or register, as atomics for the hit path.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    soft: AtomicU64,
    hard: AtomicU64,
    pending_soft: AtomicU64,
    pending_hard: AtomicU64,
}

impl Cells {
    pub(crate) fn load(&self) -> TagLevels {
        TagLevels {
            levels: Levels {
                soft: self.soft.load(Ordering::Relaxed),
                hard: self.hard.load(Ordering::Relaxed),
            },
            pending: Levels {
                soft: self.pending_soft.load(Ordering::Relaxed),
                hard: self.pending_hard.load(Ordering::Relaxed),
            },
        }
    }

    pub(crate) fn store(&self, known: TagLevels) {
        self.soft.store(known.levels.soft, Ordering::Relaxed);
        self.hard.store(known.levels.hard, Ordering::Relaxed);
        self.pending_soft.store(known.pending.soft, Ordering::Relaxed);
        self.pending_hard.store(known.pending.hard, Ordering::Relaxed);
    }
}

impl From<TagLevels> for Cells {
    fn from(known: TagLevels) -> Self {
        let cells = Self::default();
        cells.store(known);
        cells
    }
}
