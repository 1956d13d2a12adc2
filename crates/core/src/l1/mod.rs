//! L1: the in-memory level, as a dumb store.
//!
//! Expiry, validity and single flight are ours, so of moka only `get`, `insert` and `invalidate` are
//! used, and never its loader (an older load would overwrite a newer `invalidate`). Entries are
//! keyed by the 128-bit hash of the key and carry the key itself; a collision is a miss.
//!
//! The eviction policy is LRU: moka's default, TinyLFU, refuses most fresh keys once it is full of
//! hot ones, and a cache that silently drops what was just `set` surprises its users.

use foldhash::fast::RandomState;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::entry::Held;
use crate::protocol::{KeyHash, Version};

pub(crate) struct L1 {
    entries: Cache<KeyHash, Held, RandomState>,
}

impl std::fmt::Debug for L1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("L1").field("entries", &self.entries.entry_count()).finish()
    }
}

impl L1 {
    /// A store that holds at most `capacity` weight, or about that many bytes.
    pub(crate) fn new(capacity: u64, in_bytes: bool) -> Self {
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(move |_, held: &Held| if in_bytes { held.size() } else { held.meta().weight })
            .eviction_policy(EvictionPolicy::lru())
            .build_with_hasher(RandomState::default());
        Self { entries }
    }

    /// The entry of exactly this key.
    pub(crate) fn get(&self, hash: KeyHash, key: &str) -> Option<Held> {
        self.entries.get(&hash).filter(|held| &*held.meta().key == key)
    }

    /// Stores an entry. The key's lock in the flight table is held.
    pub(crate) fn insert(&self, hash: KeyHash, entry: Held) {
        self.entries.insert(hash, entry);
    }

    /// Drops the entry. The key's lock in the flight table is held.
    pub(crate) fn invalidate(&self, hash: KeyHash) {
        self.entries.invalidate(&hash);
    }

    /// Drops the entry unless it is of exactly this version. The key's lock is held.
    pub(crate) fn keep_only(&self, hash: KeyHash, version: Version) {
        if self.entries.get(&hash).is_some_and(|held| held.meta().version != version) {
            self.entries.invalidate(&hash);
        }
    }

    /// Marks the entry as expired. The key's lock is held.
    pub(crate) fn expire(&self, hash: KeyHash) {
        if let Some(held) = self.entries.get(&hash) {
            held.meta().expire();
        }
    }

    /// Marks the entry as expired unless it is of exactly this version. The key's lock is held.
    pub(crate) fn expire_other(&self, hash: KeyHash, version: Version) {
        if let Some(held) = self.entries.get(&hash).filter(|h| h.meta().version != version) {
            held.meta().expire();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// How many entries there are, about.
    pub(crate) fn len(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }
}
