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

/// How often what moka has let go is collected in a row: each time about 500 of it.
const FLUSHES: usize = 32;

/// moka, of which only `get`, `insert` and `invalidate` are used, and never its loader: an older load
/// would overwrite a newer `invalidate`.
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
        self.settle();
    }

    pub(super) fn all(&self) -> Vec<ErasedEntry> {
        self.scan().map(|(_, erased)| erased).collect()
    }

    pub(super) fn scan(&self) -> impl Iterator<Item = (KeyHash, ErasedEntry)> + Send {
        self.0.iter().map(|(hash, erased)| (*hash, erased))
    }

    /// moka only marks what is removed, and drops it as part of later work; what it drops then goes once no
    /// thread is in the map that could still see it. True if there may be more to do.
    pub(super) fn settle(&self) -> bool {
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
