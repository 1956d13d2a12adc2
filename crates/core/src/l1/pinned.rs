use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use foldhash::fast::RandomState;

use crate::clock::Moment;
use crate::entry::ErasedEntry;
use crate::protocol::KeyHash;

/// Entries that L1 does not evict before they expire: outside of the engine, with their own bound.
pub(super) struct Pinned {
    entries: DashMap<KeyHash, Pin, RandomState>,
    /// The total weight.
    weight: AtomicU64,
    most: u64,
    /// No pinned entry expires before this.
    first_end: AtomicU64,
}

/// An entry with its weight.
type Pin = (ErasedEntry, u64);

impl Pinned {
    pub(super) fn new(most: u64) -> Self {
        let (weight, first_end) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self { entries: DashMap::default(), weight, most, first_end }
    }

    /// The entry of a key. Costs one atomic load while nothing is pinned.
    #[inline]
    pub(super) fn find(&self, hash: KeyHash) -> Option<ErasedEntry> {
        if self.weight.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.entries.get(&hash).map(|pin| ErasedEntry::clone(&pin.0))
    }

    /// Keeps an entry, if there is room after the removal of expired ones.
    pub(super) fn keep(
        &self,
        hash: KeyHash,
        erased: &ErasedEntry,
        weight: u32,
        now: Moment,
    ) -> bool {
        let weight = u64::from(weight);
        self.remove(hash);
        if !self.has_room(weight) && self.first_end.load(Ordering::Relaxed) <= now.as_nanos() {
            self.sweep(now);
        }
        if !self.has_room(weight) {
            return false;
        }
        self.weight.fetch_add(weight, Ordering::Relaxed);
        self.first_end.fetch_min(erased.meta().physical.as_nanos(), Ordering::Relaxed);
        self.entries.insert(hash, (ErasedEntry::clone(erased), weight));
        true
    }

    fn has_room(&self, weight: u64) -> bool {
        self.weight.load(Ordering::Relaxed) + weight <= self.most
    }

    fn sweep(&self, now: Moment) {
        let mut first_end = u64::MAX;
        self.entries.retain(|_, pin| {
            let end = pin.0.meta().physical;
            if now < end {
                first_end = first_end.min(end.as_nanos());
            } else {
                self.weight.fetch_sub(pin.1, Ordering::Relaxed);
            }
            now < end
        });
        self.first_end.store(first_end, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, hash: KeyHash) {
        if self.weight.load(Ordering::Relaxed) != 0
            && let Some((_, pin)) = self.entries.remove(&hash)
        {
            self.weight.fetch_sub(pin.1, Ordering::Relaxed);
        }
    }

    pub(super) fn all(&self) -> Vec<ErasedEntry> {
        self.entries.iter().map(|pin| ErasedEntry::clone(&pin.0)).collect()
    }

    pub(super) fn hashes(&self) -> Vec<KeyHash> {
        self.entries.iter().map(|pin| *pin.key()).collect()
    }

    pub(super) fn clear(&self) {
        self.hashes().into_iter().for_each(|hash| self.remove(hash));
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }
}
