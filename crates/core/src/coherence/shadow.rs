//! Copies of L1 that shadow verification compares with L2.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Moment;
use crate::entry::ErasedEntry;

/// How many copies one poll compares.
const MOST: usize = 64;

/// Copies to compare.
#[derive(Default)]
pub(crate) struct Shadow {
    sampled: Mutex<Vec<ErasedEntry>>,
    /// Copies that differed, and since when.
    suspects: Mutex<Vec<(ErasedEntry, Moment)>>,
}

impl std::fmt::Debug for Shadow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shadow")
            .field("sampled", &self.sampled.lock().len())
            .finish_non_exhaustive()
    }
}

impl Shadow {
    /// Samples a hit. Drops it if there are enough.
    #[cold]
    pub(crate) fn draw(&self, copy: ErasedEntry) {
        let mut sampled = self.sampled.lock();
        let same = |other: &ErasedEntry| other.meta().version == copy.meta().version;
        if sampled.len() < MOST && !copy.meta().local_only && !sampled.iter().any(same) {
            sampled.push(copy);
        }
    }

    /// Takes the samples since the last call.
    pub(crate) fn drawn(&self) -> Vec<ErasedEntry> {
        std::mem::take(&mut *self.sampled.lock())
    }

    /// Takes the copies that have differed for this long.
    pub(crate) fn due(&self, legal: Duration, now: Moment) -> Vec<ErasedEntry> {
        let mut suspects = self.suspects.lock();
        let (due, waiting) = std::mem::take(&mut *suspects)
            .into_iter()
            .partition(|(_, since)| now.since(*since) >= legal);
        *suspects = waiting;
        let due: Vec<(ErasedEntry, Moment)> = due;
        due.into_iter().map(|(copy, _)| copy).collect()
    }

    /// Keeps a copy that differs, to compare it again later. Drops it if there are enough.
    pub(crate) fn suspect(&self, copy: ErasedEntry, now: Moment) {
        let mut suspects = self.suspects.lock();
        if suspects.len() < MOST {
            suspects.push((copy, now));
        }
    }
}
