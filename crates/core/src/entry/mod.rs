//! An entry: one value and its metadata in one `Arc`.
//!
//! The value and most of the metadata never change. Atomics hold the mutable part: the time and
//! session of the last verification, the memo of the last check, the `expire` mark, and the
//! throttle after a failed load.
//!
//! `deadlines` computes the TTLs of a new entry. `value` holds the value and its validators.
//! `cached` is what a caller gets.

mod cached;
mod deadlines;
mod value;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use cached::{Cached, Metadata, Source};
pub(crate) use deadlines::{Deadlines, EntryFlags, RecordTtls, new as deadlines};
pub(crate) use value::{Shared, Validators};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::Moment;
use crate::protocol::validity::EntryState;
use crate::protocol::{Epoch, Version};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64};
use crate::tags::TagState;

/// A value with its metadata.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) meta: Meta,
    pub(crate) value: Shared<T>,
}

/// A type that a cache can store.
pub(crate) trait Value: Send + Sync + 'static {}

impl<T: Send + Sync + 'static> Value for T {}

/// A type-erased entry.
pub(crate) type ErasedEntry = Arc<dyn AnyEntry>;

/// The operations that L1 and flights need for entries of any type.
pub(crate) trait AnyEntry: Any + Send + Sync {
    fn meta(&self) -> &Meta;
    /// The approximate size in bytes.
    fn size(&self) -> u32;
}

impl<T: Value> AnyEntry for Entry<T> {
    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn size(&self) -> u32 {
        let own = u32::try_from(size_of::<Self>()).unwrap_or(u32::MAX);
        self.meta.size().saturating_add(own)
    }
}

/// Downcasts an entry; `None` if it holds another type.
pub(crate) fn typed<T: Value>(erased: ErasedEntry) -> Option<Arc<Entry<T>>> {
    let any: Arc<dyn Any + Send + Sync> = erased;
    any.downcast().ok()
}

/// The bit that says that an entry's size is final.
const SETTLED: u32 = 1 << 31;

/// The bit that says that hits no longer extend the logical TTL.
///
/// It is the last bit of the deadline itself, so that one compare-and-swap both checks it and moves
/// the deadline. The lost nanosecond does not matter.
const FINAL: u64 = 1;

/// The metadata of a value.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) key: Box<str>,
    pub(crate) version: Version,
    pub(crate) tags: Box<[Arc<TagState>]>,
    /// The epoch, frontier and generation of its stamp.
    ///
    /// These and the verification fields are most of an entry's size, so it does not keep a whole
    /// `Stamp`.
    epoch: u64,
    frontier: u64,
    generation: u64,
    pub(crate) created: Moment,
    pub(crate) physical: Moment,
    /// The source's validators for a conditional request.
    pub(crate) validators: Option<Box<Validators>>,
    pub(crate) weight: u32,
    /// How many seconds after its creation it may be a fallback; see [`Meta::has_expired`].
    kept_secs: u32,
    /// Kept out of L1.
    pub(crate) skip_l1: bool,
    /// Local only: it is not in L2 and not verified against it.
    pub(crate) local_only: bool,
    /// It exists beside a record that this node cannot use, and has that record's version.
    pub(crate) beside: bool,
    /// L1 does not evict it.
    pub(crate) pinned: bool,
    /// Marked by `expire`.
    expired: AtomicBool,
    /// The encoded size of its value in bytes; the top bit says whether that is final.
    size: AtomicU32,
    /// The logical deadline; the last bit says that hits no longer extend it.
    logical: AtomicU64,
    /// The TTL that each hit restarts, in nanoseconds; 0 if the entry is not sliding.
    slide: u64,
    /// The *start* of the read or factory that last verified it.
    verified_at: AtomicU64,
    /// The session of that start. Written after `verified_at`, read before it.
    session: AtomicU64,
    /// The generation in which the last check returned `Fresh`; 0 for none.
    checked: AtomicU64,
    /// Until when the cache serves it as a fallback without running the factory again.
    retry_at: AtomicU64,
    /// When its eager refresh is due.
    due: AtomicU64,
    /// The average earliness of a probabilistic refresh; 0 for a fixed moment.
    early: u64,
    /// The number of sampled hits.
    heat: AtomicU32,
}

/// A node's knowledge at one moment.
///
/// Only [`Coherence::stamp`](crate::coherence::Coherence::stamp) makes one. A completed load never gets a
/// newer one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) epoch: Option<Epoch>,
    pub(crate) frontier: u64,
    /// The node's generation; 0 for an entry that another node loaded.
    pub(crate) generation: u64,
    pub(crate) session: u64,
    pub(crate) at: Moment,
    /// The time as of which the value is known to be right.
    ///
    /// For a load, this is its start. For a record of L2, it is no later than the last `SYNC`: a
    /// record does not show which removals hide it.
    pub(crate) known: Moment,
}

impl Meta {
    pub(crate) fn new(
        key: &str,
        version: Version,
        tags: Box<[Arc<TagState>]>,
        stamp: Stamp,
        deadlines: Deadlines,
        flags: EntryFlags,
        weight: u32,
    ) -> Self {
        Self {
            key: key.into(),
            version,
            tags,
            epoch: stamp.epoch.map_or(0, |epoch| epoch.0),
            frontier: stamp.frontier,
            generation: stamp.generation,
            created: deadlines.created,
            physical: deadlines.physical,
            validators: None,
            weight,
            kept_secs: flags.kept_secs,
            skip_l1: flags.skip_l1,
            local_only: flags.local_only,
            beside: false,
            pinned: flags.pinned,
            expired: AtomicBool::new(false),
            early: flags.early,
            size: AtomicU32::new(0),
            logical: AtomicU64::new(deadlines.logical.as_nanos() & !FINAL),
            slide: flags.slide,
            verified_at: AtomicU64::new(stamp.known.as_nanos()),
            session: AtomicU64::new(stamp.session),
            checked: AtomicU64::new(0),
            retry_at: AtomicU64::new(0),
            due: AtomicU64::new(flags.due),
            heat: AtomicU32::new(0),
        }
    }

    /// Puts the entry beside a record of L2 that this node cannot use.
    ///
    /// The entry is valid as long as L2 holds that version.
    pub(crate) fn put_beside(&mut self, version: Version) {
        self.version = version;
        self.beside = true;
    }

    /// The input of the protocol's validity rules.
    pub(crate) fn state(&self) -> EntryState {
        let session = self.session.load(Ordering::Acquire);
        EntryState {
            epoch: self.epoch(),
            stamp: self.frontier,
            origin: self.generation,
            session,
            verified_at: self.verified_at(),
            logical: self.logical().as_nanos(),
            physical: self.physical.as_nanos(),
            expired: self.is_expired(),
        }
    }

    /// The epoch of its stamp; `None` if the node had not synced a ledger yet.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        (self.epoch != 0).then_some(Epoch(self.epoch))
    }

    /// The frontier of its stamp.
    pub(crate) fn frontier(&self) -> u64 {
        self.frontier
    }

    /// Records the value's encoded size. Only the first call counts, and only before the size is
    /// final.
    pub(crate) fn grow(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX) & !SETTLED;
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.size.compare_exchange(0, bytes, set, get);
    }

    /// Makes the size final.
    pub(crate) fn settle_size(&self) {
        self.size.fetch_or(SETTLED, Ordering::Relaxed);
    }

    /// The approximate size in bytes, without the entry struct itself.
    pub(crate) fn size(&self) -> u32 {
        let fixed = u32::try_from(self.key.len() + 8 * self.tags.len()).unwrap_or(u32::MAX);
        (self.size.load(Ordering::Relaxed) & !SETTLED).saturating_add(fixed)
    }

    #[inline]
    pub(crate) fn logical(&self) -> Moment {
        Moment::from_nanos(self.logical.load(Ordering::Relaxed))
    }

    /// Moves the logical deadline to `until` if that is earlier; hits no longer extend it.
    pub(crate) fn shorten(&self, until: Moment) {
        let end = |logical: u64| logical.min(until.as_nanos()).saturating_sub(1) | FINAL;
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.logical.fetch_update(set, get, |logical| Some(end(logical)));
    }

    /// Like [`Meta::shorten`], to one coherence TTL after the read or factory that verified it
    /// began.
    pub(crate) fn shorten_to_coherence_ttl(&self, coherence_ttl: Duration) {
        self.shorten(Moment::from_nanos(self.verified_at()) + coherence_ttl);
    }

    /// Extends a sliding TTL after a hit, in steps of a sixteenth, so that hits seldom write.
    #[inline]
    pub(crate) fn slide(&self, now: Moment) {
        if self.slide != 0 {
            self.slide_from(now);
        }
    }

    fn slide_from(&self, now: Moment) {
        let logical = self.logical.load(Ordering::Relaxed);
        let until =
            now.as_nanos().saturating_add(self.slide).min(self.physical.as_nanos()) & !FINAL;
        if logical & FINAL != 0 || until <= logical.saturating_add(self.slide / 16) {
            return;
        }
        if misordered!(SlideBlindly) {
            self.logical.fetch_max(until, Ordering::Relaxed);
            return;
        }
        // If the swap fails, another hit has extended it too, or `shorten` has made it final.
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.logical.compare_exchange(logical, until, set, get);
    }

    /// Whether the entry may be dropped: at its physical end, or once it is stale and no longer
    /// kept as a fallback.
    ///
    /// A sliding entry, or a copy with an `l1_duration`, has a physical end long after its last
    /// use.
    pub(crate) fn has_expired(&self, now: Moment) -> bool {
        let kept = Duration::from_secs(u64::from(self.kept_secs));
        let is_kept = now < self.logical() || now < self.created + kept || self.is_throttled(now);
        now >= self.physical || !is_kept
    }

    /// Counts a sampled hit.
    pub(crate) fn warm(&self) {
        self.heat.fetch_add(1, Ordering::Relaxed);
    }

    /// The approximate number of hits, in units of 64.
    pub(crate) fn heat(&self) -> u32 {
        self.heat.load(Ordering::Relaxed)
    }

    /// Whether an eager refresh is due. Only one caller gets true, until [`Meta::rearm`].
    #[inline]
    pub(crate) fn take_due(&self, now: Moment) -> bool {
        let (now, due) = (now.as_nanos(), self.due.load(Ordering::Relaxed));
        now >= due && self.take_due_of(now, due)
    }

    #[cold]
    fn take_due_of(&self, now: u64, due: u64) -> bool {
        let early = self.early;
        // Any number that differs from hit to hit will do.
        let draw = || xxh3_64_with_seed(&now.to_be_bytes(), self.version.0);
        let is_due =
            early == 0 || deadlines::is_due_early(now, early, self.logical().as_nanos(), draw());
        is_due
            && self
                .due
                .compare_exchange(due, u64::MAX, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Makes the refresh due again at `at`, because the last one brought no new entry.
    pub(crate) fn rearm(&self, at: Moment) {
        self.due.store(at.as_nanos(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn verified_at(&self) -> u64 {
        self.verified_at.load(Ordering::Acquire)
    }

    /// Marks the entry as verified by a read that began at `stamp` and found this version in L2.
    pub(crate) fn verify(&self, stamp: Stamp) {
        self.verified_at.fetch_max(stamp.known.as_nanos(), Ordering::Release);
        self.session.fetch_max(stamp.session, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_checked(&self, generation: u64) -> bool {
        self.checked.load(Ordering::Relaxed) == generation
    }

    pub(crate) fn check(&self, generation: u64) {
        self.checked.store(generation, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }

    pub(crate) fn expire(&self) {
        self.expired.store(true, Ordering::Release);
    }

    pub(crate) fn is_throttled(&self, now: Moment) -> bool {
        now.as_nanos() < self.retry_at.load(Ordering::Relaxed)
    }

    pub(crate) fn throttle(&self, until: Moment) {
        self.retry_at.fetch_max(until.as_nanos(), Ordering::Relaxed);
    }
}
