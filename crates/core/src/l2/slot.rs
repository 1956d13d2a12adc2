use bytes::Bytes;

use super::record;
use super::{Found, Read, Record};
use crate::protocol::Version;
use crate::protocol::record::{self as rules, Head, LoadLockRequest, Put, Release};

/// The record under one key, with every record operation on it.
///
/// A store runs one operation per call, atomically per key, and stores the result. Times are on
/// the store's own clock, in milliseconds.
///
/// ```
/// use crinkle_core::l2::Slot;
/// use crinkle_core::protocol::Version;
/// use crinkle_core::protocol::record::{LoadLock, LoadLockRequest};
///
/// let mut slot = Slot::default();
/// let ask = LoadLockRequest { id: Version(7), ttl_ms: 10_000, replace: None, hidden: None };
/// let read = slot.read(Some(ask), 0);
/// assert_eq!((read.found, read.load_lock), (None, LoadLock::Granted));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    stored: Option<Stored>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    bytes: Bytes,
    expires_ms: u64,
}

impl Slot {
    /// Creates a slot from what the store holds: the bytes, and when they expire.
    #[must_use]
    pub fn new(bytes: Bytes, expires_ms: u64) -> Self {
        Self { stored: Some(Stored { bytes, expires_ms }) }
    }

    /// The bytes to store and when they expire; `None` to delete the key.
    #[must_use]
    pub fn into_stored(self) -> Option<(Bytes, u64)> {
        self.stored.map(|stored| (stored.bytes, stored.expires_ms))
    }

    /// Whether there is no record at `now_ms`.
    #[must_use]
    pub fn is_absent(&self, now_ms: u64) -> bool {
        self.stored.as_ref().is_none_or(|stored| stored.expires_ms <= now_ms)
    }

    /// Returns the record, and grants or reports the load lock if `ask` is set:
    /// [`L2::read`](super::L2::read).
    pub fn read(&mut self, ask: Option<LoadLockRequest>, now_ms: u64) -> Read {
        let head = self.head(now_ms);
        let stale = self.is_stale(now_ms);
        let found = match head {
            Some(Head::Value { .. }) => self.found(now_ms),
            // A plain reader also gets bytes that are not a record, so that it can count them.
            None if ask.is_none() => self.found(now_ms),
            _ => None,
        };
        let decision = rules::read(head, stale, ask, now_ms);
        match (decision.write, ask) {
            (Some(Head::LoadLock(id)), Some(ask)) => {
                self.stored = Some(Stored {
                    bytes: record::load_lock(id),
                    expires_ms: now_ms.saturating_add(ask.ttl_ms),
                });
            }
            (Some(head), _) => self.rewrite(head),
            (None, _) => {}
        }
        Read { found, load_lock: decision.load_lock }
    }

    /// Replaces the record if it has the expected version: [`L2::put`](super::L2::put).
    pub fn put(&mut self, expected: Version, record: Record, now_ms: u64) -> Put {
        let put = rules::put(self.head(now_ms), expected);
        if put == Put::Stored {
            self.set(record, now_ms);
        }
        put
    }

    /// Stores a record, whatever is there: [`L2::set`](super::L2::set).
    pub fn set(&mut self, record: Record, now_ms: u64) {
        let expires_ms = now_ms.saturating_add(record.ttl_ms);
        self.stored = Some(Stored { bytes: record.bytes, expires_ms });
    }

    /// Removes the record and any load lock: [`L2::remove`](super::L2::remove).
    pub fn remove(&mut self) {
        self.stored = None;
    }

    /// Marks the record as expired, so that it is at most a fallback:
    /// [`L2::expire`](super::L2::expire).
    pub fn expire(&mut self, version: Version, now_ms: u64) {
        match rules::expire(self.head(now_ms), version) {
            Some(head) => self.rewrite(head),
            None => self.stored = None,
        }
    }

    /// Releases a load lock, if this load still holds it: [`L2::release`](super::L2::release).
    pub fn release(&mut self, load_lock: Version, now_ms: u64) {
        match rules::release(self.head(now_ms), load_lock) {
            Release::Nothing => {}
            Release::Delete => self.stored = None,
            Release::Clear(head) => self.rewrite(head),
        }
    }

    /// Extends a load lock; false if another load holds it: [`L2::renew`](super::L2::renew).
    pub fn renew(&mut self, load_lock: Version, ttl_ms: u64, now_ms: u64) -> bool {
        let until = now_ms.saturating_add(ttl_ms);
        let Some(head) = rules::renew(self.head(now_ms), load_lock, until) else { return false };
        match (head, &mut self.stored) {
            (Head::LoadLock(_), Some(stored)) => stored.expires_ms = until,
            _ => self.rewrite(head),
        }
        true
    }

    fn head(&self, now_ms: u64) -> Option<Head> {
        if self.is_absent(now_ms) {
            return None;
        }
        record::head(&self.stored.as_ref()?.bytes)
    }

    fn found(&self, now_ms: u64) -> Option<Found> {
        let stored = self.stored.as_ref().filter(|stored| stored.expires_ms > now_ms)?;
        Some(Found { bytes: stored.bytes.clone(), ttl_ms: stored.expires_ms - now_ms })
    }

    fn is_stale(&self, now_ms: u64) -> bool {
        self.found(now_ms).is_some_and(|found| record::is_stale(&found.bytes, found.ttl_ms))
    }

    fn rewrite(&mut self, head: Head) {
        if let Some(stored) = &mut self.stored {
            stored.bytes = record::with_head(&stored.bytes, head);
        }
    }
}
