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

/// An entry that weighs this much fits, however the capacity is split.
const FITS: u64 = 1024;
/// What an entry weighs in bytes, about, where nobody knows.
const USUAL_BYTES: u64 = 1024;

/// Entries in the order of S3-FIFO: what is read again before it would go, stays.
pub(in crate::l1) struct Quick(Cache<KeyHash, ErasedEntry, Weigh, RandomState, Emit>);

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
        let (weigh, emit) = (Weigh { in_bytes }, Emit(telemetry));
        Self(Cache::with_options(options, weigh, RandomState::default(), emit))
    }

    #[inline]
    pub(super) fn get(&self, hash: KeyHash) -> Option<ErasedEntry> {
        self.0.get(&hash)
    }

    pub(super) fn insert(&self, hash: KeyHash, erased: ErasedEntry) {
        // The map asks for the weight again when the entry goes.
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

/// How many threads may run at a time. To find out takes reading files of the kernel.
static THREADS: LazyLock<usize> =
    LazyLock::new(|| available_parallelism().map_or(2, NonZeroUsize::get));

/// As many as there are threads to keep apart, and no more than leaves room in each for one of `fits`.
fn shards(capacity: u64, fits: u64) -> usize {
    let most = *THREADS * 4;
    let roomy = usize::try_from(capacity / fits / 2).unwrap_or(usize::MAX).clamp(1, most);
    // They are rounded up to a power of two, and an entry may take most of a shard, but not all of it.
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

/// Tells what went for want of room.
#[derive(Clone)]
struct Emit(Arc<Telemetry>);

impl Lifecycle<KeyHash, ErasedEntry> for Emit {
    /// What went: dropped when the map is no longer locked.
    type RequestState = SmallVec<[ErasedEntry; 2]>;

    /// For want of room.
    fn before_evict(&self, _: &mut Self::RequestState, _: &KeyHash, erased: &mut ErasedEntry) {
        self.0.evicted(erased.meta());
    }

    /// For want of room, or because it was replaced.
    fn on_evict(&self, gone: &mut Self::RequestState, _: KeyHash, erased: ErasedEntry) {
        gone.push(erased);
    }
}
