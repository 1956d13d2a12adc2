//! L1: the in-memory level, as a plain store.
//!
//! The cache decides expiry, validity and single-flight; the engine only decides what to evict when
//! it is full. The 128-bit hash of the key is the map's key, and an entry carries the key itself: a
//! collision is a miss.
//!
//! `engine` is the evicting map. `pinned` holds the entries that are not evicted.

mod engine;
mod pinned;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Moment;
use crate::entry::ErasedEntry;
use crate::options::Settings;
use crate::protocol::ledger::Strength;
use crate::protocol::{KeyHash, Version};
use crate::sync::AtomicBool;
use crate::telemetry::Telemetry;
use engine::Engine;
use pinned::Pinned;

/// The divisor that bounds pinned entries: they take at most a quarter of the capacity.
const PINNED_SHARE: u64 = 4;

pub(crate) struct L1 {
    entries: Engine,
    pinned: Pinned,
    in_bytes: bool,
    /// L1 keeps no entries any more.
    closed: AtomicBool,
}

impl std::fmt::Debug for L1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("L1").field("entries", &self.entries.about_len()).finish()
    }
}

impl L1 {
    /// Creates a store for at most `capacity` weight, or about that many bytes. It reports
    /// evictions.
    pub(crate) fn new(settings: &Settings, telemetry: Arc<Telemetry>) -> Self {
        let pinned = Pinned::new(settings.capacity / PINNED_SHARE);
        let entries = Engine::new(settings, telemetry);
        let closed = AtomicBool::new(false);
        Self { entries, pinned, in_bytes: settings.capacity_in_bytes, closed }
    }

    /// The entry of exactly this key.
    pub(crate) fn get(&self, hash: KeyHash, key: &str) -> Option<ErasedEntry> {
        self.find(hash).filter(|erased| &*erased.meta().key == key)
    }

    /// The entry with this hash, which may belong to another key.
    #[inline]
    pub(crate) fn find(&self, hash: KeyHash) -> Option<ErasedEntry> {
        self.entries.get(hash).or_else(|| self.pinned.find(hash))
    }

    /// Stores an entry, unless it must stay out of L1. The caller holds the key's lock in the
    /// flight table.
    pub(crate) fn insert(&self, hash: KeyHash, entry: ErasedEntry) {
        self.store(hash, entry);
        // Checked after the store: an entry that `close` missed sees the flag that `close` set
        // first.
        if self.closed.load(Ordering::SeqCst) {
            self.invalidate(hash);
        }
    }

    fn store(&self, hash: KeyHash, entry: ErasedEntry) {
        let meta = entry.meta();
        if meta.skip_l1 {
            return self.invalidate(hash);
        }
        let now = Moment::from_nanos(meta.verified_at());
        let weight = weight_of(&entry, self.in_bytes);
        if meta.pinned && self.pinned.keep(hash, &entry, weight, now) {
            return self.entries.remove(hash);
        }
        self.pinned.remove(hash);
        self.entries.insert(hash, entry);
    }

    /// Drops the entry. The caller holds the key's lock in the flight table.
    pub(crate) fn invalidate(&self, hash: KeyHash) {
        self.entries.remove(hash);
        self.pinned.remove(hash);
    }

    /// Drops exactly this entry, if it is still there. The caller holds the key's lock.
    ///
    /// The caller also holds the entry, so that its value is not dropped under any lock.
    pub(crate) fn invalidate_this(&self, hash: KeyHash, entry: &ErasedEntry) {
        let is_it =
            |erased: &ErasedEntry| std::ptr::addr_eq(Arc::as_ptr(erased), Arc::as_ptr(entry));
        if self.find(hash).as_ref().is_some_and(is_it) {
            self.invalidate(hash);
        }
    }

    /// The version of the key's copy of a record, if there is one. The caller holds the key's lock.
    pub(crate) fn version(&self, hash: KeyHash) -> Option<Version> {
        self.find(hash)
            .filter(|erased| !erased.meta().local_only)
            .map(|erased| erased.meta().version)
    }

    /// Drops the entry, or marks it as expired. The caller holds the key's lock.
    pub(crate) fn weaken(&self, hash: KeyHash, strength: Strength) {
        match (strength, self.find(hash)) {
            (Strength::Hard, _) => self.invalidate(hash),
            (Strength::Soft, Some(erased)) => erased.meta().expire(),
            (Strength::Soft, None) => {}
        }
    }

    /// Drops the entry unless it has exactly this version. The caller holds the key's lock.
    pub(crate) fn keep_only(&self, hash: KeyHash, version: Version) {
        if self.find(hash).is_some_and(|erased| erased.meta().version != version) {
            self.invalidate(hash);
        }
    }

    /// Marks the entry as expired unless it has exactly this version. The caller holds the key's
    /// lock.
    pub(crate) fn expire_other(&self, hash: KeyHash, version: Version) {
        if let Some(erased) = self.find(hash).filter(|h| h.meta().version != version) {
            erased.meta().expire();
        }
    }

    /// Drops all entries.
    pub(crate) fn clear(&self) {
        self.entries.clear();
        self.pinned.clear();
    }

    /// Drops all entries, and every entry that is stored from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.clear();
    }

    /// All entries, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = ErasedEntry> {
        self.entries.all().into_iter().chain(self.pinned.all())
    }

    /// Iterates over the entries that stay in L1 until the scan ends, in no order.
    ///
    /// It holds no lock and no entry between two steps.
    pub(crate) fn scan(&self) -> impl Iterator<Item = (KeyHash, ErasedEntry)> + Send {
        let pinned = self.pinned.hashes().into_iter();
        let pinned = pinned.filter_map(|hash| Some((hash, self.pinned.find(hash)?)));
        self.entries.scan().chain(pinned)
    }

    /// Frees removed entries, if the engine has deferred that. True if there may be more to do.
    pub(crate) fn run_pending(&self) -> bool {
        self.entries.run_pending()
    }

    /// The number of entries, less exact than [`L1::len`] but at no cost.
    pub(crate) fn about_len(&self) -> u64 {
        self.entries.about_len() + self.pinned.len()
    }

    /// The approximate number of entries.
    pub(crate) fn len(&self) -> u64 {
        self.entries.len() + self.pinned.len()
    }
}

fn weight_of(erased: &ErasedEntry, in_bytes: bool) -> u32 {
    if in_bytes { erased.size() } else { erased.meta().weight }
}
