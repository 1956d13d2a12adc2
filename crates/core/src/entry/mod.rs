//! An entry: one value with what is known about it, in one `Arc`.
//!
//! The value and most of the metadata never change. What can change is in atomics: when and in which
//! session the entry was last verified, the memo of the last check, the `expire` mark, and until
//! when a failed refresh is not tried again.

mod cached;
mod deadlines;
mod value;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use cached::{Cached, Source};
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

/// What a cache can hold.
pub(crate) trait Value: Send + Sync + 'static {}

impl<T: Send + Sync + 'static> Value for T {}

/// An entry whose type is not known here.
pub(crate) type ErasedEntry = Arc<dyn AnyEntry>;

/// What L1 and flights need of an entry of any type.
pub(crate) trait AnyEntry: Any + Send + Sync {
    fn meta(&self) -> &Meta;
    /// About how many bytes it takes.
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

/// The entry as its own type; `None` if it holds another.
pub(crate) fn typed<T: Value>(erased: ErasedEntry) -> Option<Arc<Entry<T>>> {
    let any: Arc<dyn Any + Send + Sync> = erased;
    any.downcast().ok()
}

/// The size of an entry does not change any more.
const SETTLED: u32 = 1 << 31;

/// The end of a logical life is not moved forward any more. It is the last bit of the end itself, so that
/// one exchange moves the end and finds out whether it may; a nanosecond is nothing to a life.
const FINAL: u64 = 1;

/// What is known about a value.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) key: Box<str>,
    pub(crate) version: Version,
    pub(crate) tags: Box<[Arc<TagState>]>,
    /// The epoch, frontier and generation of its stamp. (Together with what is verified they are
    /// most of an entry's size, so the stamp is not kept as it is.)
    epoch: u64,
    frontier: u64,
    generation: u64,
    pub(crate) created: Moment,
    pub(crate) physical: Moment,
    /// What the source said it can be revalidated with.
    pub(crate) validators: Option<Box<Validators>>,
    pub(crate) weight: u32,
    /// How many seconds after its creation it may still be a fallback; see [`Meta::has_expired`].
    kept_secs: u32,
    /// Kept out of L1.
    pub(crate) skip_l1: bool,
    /// This node's own: it is not in L2 and not checked against it.
    pub(crate) own: bool,
    /// It stands beside a record that this node cannot use, under that record's version.
    pub(crate) beside: bool,
    /// L1 does not evict it.
    pub(crate) pinned: bool,
    /// Marked by `expire`.
    expired: AtomicBool,
    /// How many bytes its value takes as encoded, and in the top bit whether that is settled.
    size: AtomicU32,
    /// The end of its logical life, and in the last bit whether hits no longer prolong it.
    logical: AtomicU64,
    /// What a hit prolongs that to, in nanoseconds; 0 for nothing.
    slide: u64,
    /// The *start* of the read or factory that last verified it.
    verified_at: AtomicU64,
    /// The session of that start. Written after `verified_at`, read before it.
    session: AtomicU64,
    /// The generation under which the last check said Fresh; 0 for none.
    checked: AtomicU64,
    /// Until when a fallback is answered without asking the factory again.
    retry_at: AtomicU64,
    /// From when on it is due to be loaded anew.
    due: AtomicU64,
    /// By how much that is early on average; 0 for a fixed moment.
    early: u64,
    /// Hits, sampled.
    heat: AtomicU32,
}

/// What a node knew at one moment. Only [`Node::stamp`](crate::coherence::Node::stamp) makes one,
/// and nothing turns a completed load into a newer one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) epoch: Option<Epoch>,
    pub(crate) frontier: u64,
    /// The node's generation; 0 for an entry that was loaded elsewhere.
    pub(crate) generation: u64,
    pub(crate) session: u64,
    pub(crate) at: Moment,
    /// Until when what it says is known to be right. Of a load, when that began; of what L2 holds, no later than the
    /// last comparison with the ledger: L2 does not say which removals hide what it holds.
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
            own: flags.own,
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

    /// It is to stand beside a record of L2 that this node cannot use: it is right as long as L2 holds
    /// that version, and goes with it.
    pub(crate) fn put_beside(&mut self, version: Version) {
        self.version = version;
        self.beside = true;
    }

    /// The same knowledge in the words of the protocol.
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

    /// The epoch of its stamp; `None` if the node had not met a ledger yet.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        (self.epoch != 0).then_some(Epoch(self.epoch))
    }

    /// The frontier of its stamp.
    pub(crate) fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The value has this many bytes outside of itself. Said once, and in vain if it comes too late.
    pub(crate) fn grow(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX) & !SETTLED;
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.size.compare_exchange(0, bytes, set, get);
    }

    /// From now on its size does not change.
    pub(crate) fn settle_size(&self) {
        self.size.fetch_or(SETTLED, Ordering::Relaxed);
    }

    /// About how many bytes the entry takes, its own size apart.
    pub(crate) fn size(&self) -> u32 {
        let fixed = u32::try_from(self.key.len() + 8 * self.tags.len()).unwrap_or(u32::MAX);
        (self.size.load(Ordering::Relaxed) & !SETTLED).saturating_add(fixed)
    }

    #[inline]
    pub(crate) fn logical(&self) -> Moment {
        Moment::from_nanos(self.logical.load(Ordering::Relaxed))
    }

    /// Ends the logical life at `until`, if that is earlier, and for good: hits no longer prolong it.
    pub(crate) fn shorten(&self, until: Moment) {
        let end = |logical: u64| logical.min(until.as_nanos()).saturating_sub(1) | FINAL;
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.logical.fetch_update(set, get, |logical| Some(end(logical)));
    }

    /// The same, a coherence coherence_ttl after the start of the read or factory that it comes from.
    pub(crate) fn shorten_to_coherence_ttl(&self, coherence_ttl: Duration) {
        self.shorten(Moment::from_nanos(self.verified_at()) + coherence_ttl);
    }

    /// A hit at `now`: a sliding life goes on, in steps of a sixteenth, so that hits seldom write.
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
        // Whoever was quicker has prolonged it as well, or has ended it for good.
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.logical.compare_exchange(logical, until, set, get);
    }

    /// Whether its time is over: at its physical end, or once it is stale and nobody asked to have it kept
    /// as a fallback for so long. (A sliding entry, or a copy with an `l1_duration`, has a physical end long
    /// after its last use.)
    pub(crate) fn has_expired(&self, now: Moment) -> bool {
        let kept = Duration::from_secs(u64::from(self.kept_secs));
        let is_kept = now < self.logical() || now < self.created + kept || self.is_throttled(now);
        now >= self.physical || !is_kept
    }

    /// One of the hits that are sampled.
    pub(crate) fn warm(&self) {
        self.heat.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was hit, about, in units of 64.
    pub(crate) fn heat(&self) -> u32 {
        self.heat.load(Ordering::Relaxed)
    }

    /// Whether it is due to be loaded anew. Only one caller is told so, until [`Meta::rearm`].
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

    /// The refresh did not come to anything: due again at `at`.
    pub(crate) fn rearm(&self, at: Moment) {
        self.due.store(at.as_nanos(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn verified_at(&self) -> u64 {
        self.verified_at.load(Ordering::Acquire)
    }

    /// L2 still held this version when a read that began at `stamp` looked.
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
