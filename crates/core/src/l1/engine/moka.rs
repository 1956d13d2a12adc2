use std::sync::Arc;

use foldhash::fast::RandomState;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::entry::ErasedEntry;
use crate::l1::weight_of;
use crate::options::{Eviction, Settings};
use crate::protocol::KeyHash;
use crate::telemetry::Telemetry;

/// How many epoch flushes run in a row: each frees about 500 removed entries.
const FLUSHES: usize = 32;

/// The moka engine. It uses only `get`, `insert` and `invalidate`, and never moka's loader: an
/// older load would overwrite a newer `invalidate`.
pub(in crate::l1) struct Moka(Cache<KeyHash, ErasedEntry, RandomState>);

impl Moka {
    pub(super) fn new(policy: Eviction, settings: &Settings, telemetry: Arc<Telemetry>) -> Self {
        let in_bytes = settings.capacity_in_bytes;
        let policy = match policy {
            Eviction::TinyLfu => EvictionPolicy::tiny_lfu(),
            _ => EvictionPolicy::lru(),
        };
        let cache = Cache::builder()
            .max_capacity(settings.capacity)
            .weigher(move |_, erased: &ErasedEntry| weight_of(erased, in_bytes))
            .eviction_policy(policy)
            .eviction_listener(move |_, erased: ErasedEntry, cause| {
                if cause == RemovalCause::Size {
                    telemetry.evicted(erased.meta());
                }
            })
            .build_with_hasher(RandomState::default());
        Self(cache)
    }

    pub(super) fn get(&self, hash: KeyHash) -> Option<ErasedEntry> {
        self.0.get(&hash)
    }

    pub(super) fn insert(&self, hash: KeyHash, erased: ErasedEntry) {
        self.0.insert(hash, erased);
    }

    pub(super) fn remove(&self, hash: KeyHash) {
        self.0.invalidate(&hash);
    }

    pub(super) fn clear(&self) {
        self.0.invalidate_all();
        self.run_pending();
    }

    pub(super) fn all(&self) -> Vec<ErasedEntry> {
        self.scan().map(|(_, erased)| erased).collect()
    }

    pub(super) fn scan(&self) -> impl Iterator<Item = (KeyHash, ErasedEntry)> + Send {
        self.0.iter().map(|(hash, erased)| (*hash, erased))
    }

    /// Frees removed entries. True if there may be more to do.
    ///
    /// moka only marks a removed entry and drops it during later work. The epoch collector then
    /// frees it, once no thread in the map can see it.
    pub(super) fn run_pending(&self) -> bool {
        let before = self.0.entry_count();
        self.0.run_pending_tasks();
        for _ in 0..FLUSHES {
            crossbeam_epoch::pin().flush();
        }
        self.0.entry_count() < before
    }

    pub(super) fn about_len(&self) -> u64 {
        self.0.entry_count()
    }

    pub(super) fn len(&self) -> u64 {
        self.0.run_pending_tasks();
        self.about_len()
    }
}
