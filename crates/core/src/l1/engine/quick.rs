use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;

use foldhash::fast::RandomState;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use smallvec::SmallVec;

use crate::entry::ErasedEntry;
use crate::l1::weight_of;
use crate::options::Settings;
use crate::protocol::KeyHash;
use crate::telemetry::Telemetry;

/// An entry of this weight fits into a shard, for every number of shards.
const FITS: u64 = 1024;
/// The estimated size of an entry in bytes, for the expected number of entries.
const USUAL_BYTES: u64 = 1024;

/// The quick_cache engine. Its S3-FIFO policy keeps entries that are read again before eviction.
pub(in crate::l1) struct Quick(Cache<KeyHash, ErasedEntry, Weigh, RandomState, OnEvict>);

impl Quick {
    pub(super) fn new(settings: &Settings, telemetry: Arc<Telemetry>) -> Self {
        let (capacity, in_bytes) = (settings.capacity, settings.capacity_in_bytes);
        let fits = if in_bytes { settings.max_value_bytes as u64 } else { FITS };
        let entries = if in_bytes { capacity / USUAL_BYTES } else { capacity };
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity(usize::try_from(entries).unwrap_or(usize::MAX).max(1))
            .shards(shards(capacity, fits))
            .build()
            .expect("both capacities are given");
        let (weigh, on_evict) = (Weigh { in_bytes }, OnEvict(telemetry));
        Self(Cache::with_options(options, weigh, RandomState::default(), on_evict))
    }

    #[inline]
    pub(super) fn get(&self, hash: KeyHash) -> Option<ErasedEntry> {
        self.0.get(&hash)
    }

    pub(super) fn insert(&self, hash: KeyHash, erased: ErasedEntry) {
        // The map asks for the weight again at the removal: it must not have changed.
        erased.meta().settle_size();
        self.0.insert(hash, erased);
    }

    pub(super) fn remove(&self, hash: KeyHash) {
        self.0.remove(&hash);
    }

    pub(super) fn clear(&self) {
        self.0.clear();
    }

    pub(super) fn all(&self) -> Vec<ErasedEntry> {
        self.scan().map(|(_, erased)| erased).collect()
    }

    pub(super) fn scan(&self) -> impl Iterator<Item = (KeyHash, ErasedEntry)> + Send {
        self.0.iter()
    }

    pub(super) fn about_len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn len(&self) -> u64 {
        self.about_len()
    }
}

/// The number of threads that run in parallel. Cached, because the query reads kernel files.
static THREADS: LazyLock<usize> =
    LazyLock::new(|| available_parallelism().map_or(2, NonZeroUsize::get));

/// The number of shards: enough to separate the threads, but each with room for an entry of `fits`.
fn shards(capacity: u64, fits: u64) -> usize {
    let most = *THREADS * 4;
    let roomy = usize::try_from(capacity / fits / 2).unwrap_or(usize::MAX).clamp(1, most);
    // The map rounds up to a power of two. An entry may take most of a shard, but not all of it.
    1 << roomy.ilog2()
}

#[derive(Clone)]
struct Weigh {
    in_bytes: bool,
}

impl Weighter<KeyHash, ErasedEntry> for Weigh {
    fn weight(&self, _: &KeyHash, erased: &ErasedEntry) -> u64 {
        u64::from(weight_of(erased, self.in_bytes))
    }
}

/// Reports evicted entries.
#[derive(Clone)]
struct OnEvict(Arc<Telemetry>);

impl Lifecycle<KeyHash, ErasedEntry> for OnEvict {
    /// The removed entries: dropped after the map unlocks.
    type RequestState = SmallVec<[ErasedEntry; 2]>;

    /// Runs only for an entry that is evicted because the map is full.
    fn before_evict(&self, _: &mut Self::RequestState, _: &KeyHash, erased: &mut ErasedEntry) {
        self.0.evicted(erased.meta());
    }

    /// Runs for an entry that is evicted or replaced.
    fn on_evict(&self, dropped: &mut Self::RequestState, _: KeyHash, erased: ErasedEntry) {
        dropped.push(erased);
    }
}
