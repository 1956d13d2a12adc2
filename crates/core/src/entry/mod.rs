//! An entry: one value with what is known about it, in one `Arc`.
//!
//! The value and most of the metadata never change. What can change is in atomics: when and in which
//! session the entry was last verified, the memo of the last check, the `expire` mark, and until
//! when a failed refresh is not tried again.

mod cached;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub use cached::{Cached, Source};

use crate::clock::Moment;
use crate::protocol::validity::Facts;
use crate::protocol::{Epoch, Version};
use crate::tags::TagState;

/// A value with its metadata.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) meta: Meta,
    pub(crate) value: T,
}

/// What a cache can hold.
pub(crate) trait Value: Send + Sync + 'static {}

impl<T: Send + Sync + 'static> Value for T {}

/// An entry whose type is not known here.
pub(crate) type Held = Arc<dyn AnyEntry>;

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
pub(crate) fn typed<T: Value>(held: Held) -> Option<Arc<Entry<T>>> {
    let any: Arc<dyn Any + Send + Sync> = held;
    any.downcast().ok()
}

/// What is known about a value.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) key: Box<str>,
    pub(crate) version: Version,
    pub(crate) tags: Box<[Arc<TagState>]>,
    pub(crate) stamp: Stamp,
    pub(crate) created: Moment,
    pub(crate) physical: Moment,
    pub(crate) weight: u32,
    /// About how many bytes it takes: itself, its key, and its value as encoded.
    size: AtomicU32,
    /// The end of its logical life; may be moved forward, never back.
    logical: AtomicU64,
    /// The *start* of the read or factory that last verified it.
    verified_at: AtomicU64,
    /// The session of that start. Written after `verified_at`, read before it.
    session: AtomicU64,
    /// The generation under which the last check said Fresh; 0 for none.
    checked: AtomicU64,
    /// Marked by `expire`.
    expired: AtomicBool,
    /// Until when a fallback is answered without asking the factory again.
    retry_at: AtomicU64,
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
}

/// The lives of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lives {
    pub(crate) created: Moment,
    pub(crate) logical: Moment,
    pub(crate) physical: Moment,
}

impl Meta {
    pub(crate) fn new(
        key: &str,
        version: Version,
        tags: Box<[Arc<TagState>]>,
        stamp: Stamp,
        lives: Lives,
        weight: u32,
    ) -> Self {
        Self {
            key: key.into(),
            version,
            tags,
            stamp,
            created: lives.created,
            physical: lives.physical,
            weight,
            size: AtomicU32::new(0),
            logical: AtomicU64::new(lives.logical.as_nanos()),
            verified_at: AtomicU64::new(stamp.at.as_nanos()),
            session: AtomicU64::new(stamp.session),
            checked: AtomicU64::new(0),
            expired: AtomicBool::new(false),
            retry_at: AtomicU64::new(0),
        }
    }

    /// The same knowledge in the words of the protocol.
    pub(crate) fn facts(&self) -> Facts {
        let session = self.session.load(Ordering::Acquire);
        Facts {
            epoch: self.stamp.epoch,
            stamp: self.stamp.frontier,
            origin: self.stamp.generation,
            session,
            verified_at: self.verified_at(),
            logical: self.logical().as_nanos(),
            physical: self.physical.as_nanos(),
            expired: self.is_expired(),
        }
    }

    /// The value has this many bytes outside of itself.
    pub(crate) fn grow(&self, bytes: usize) {
        self.size.fetch_add(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// About how many bytes the entry takes, its own size apart.
    pub(crate) fn size(&self) -> u32 {
        let fixed = u32::try_from(self.key.len() + 8 * self.tags.len()).unwrap_or(u32::MAX);
        self.size.load(Ordering::Relaxed).saturating_add(fixed)
    }

    pub(crate) fn logical(&self) -> Moment {
        Moment::from_nanos(self.logical.load(Ordering::Relaxed))
    }

    /// Ends the logical life at `until`, if that is earlier.
    pub(crate) fn shorten(&self, until: Moment) {
        self.logical.fetch_min(until.as_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn verified_at(&self) -> u64 {
        self.verified_at.load(Ordering::Acquire)
    }

    /// L2 still held this version when a read that began at `stamp` looked.
    pub(crate) fn verify(&self, stamp: Stamp) {
        self.verified_at.fetch_max(stamp.at.as_nanos(), Ordering::Release);
        self.session.fetch_max(stamp.session, Ordering::Release);
    }

    pub(crate) fn is_checked(&self, generation: u64) -> bool {
        self.checked.load(Ordering::Relaxed) == generation
    }

    pub(crate) fn check(&self, generation: u64) {
        self.checked.store(generation, Ordering::Relaxed);
    }

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
