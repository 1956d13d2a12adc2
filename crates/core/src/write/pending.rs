//! Writes on their way: while one is, what L2 holds of its key does not count on this node (W1).

use std::sync::Arc;

use crate::cache::Inner;
use crate::options::EntryOptions;
use crate::protocol::ledger::Strength;
use crate::recovery::QueueSlot;

/// A write that goes on though its caller has been answered.
pub(super) struct PendingWrite<C> {
    pub(super) inner: Arc<Inner<C>>,
    pub(super) key: String,
    strength: Strength,
}

impl<C> PendingWrite<C> {
    pub(super) fn new(
        inner: &Arc<Inner<C>>,
        key: &str,
        strength: Strength,
        options: &EntryOptions,
    ) -> (Self, QueueSlot) {
        let queue_slot = inner.recovery.begin(key, strength, options.skip_backplane);
        (Self { inner: Arc::clone(inner), key: key.to_owned(), strength }, queue_slot)
    }
}

impl<C> Drop for PendingWrite<C> {
    fn drop(&mut self) {
        self.inner.recovery.end(&self.key, self.strength);
    }
}

/// An invalidation whose caller waits, from its first poll until it is answered or queued.
///
/// A `set` has none: its fence keeps what it replaces from being fresh, and that is stale for no longer
/// than the new value is on its way, which is no reason to load another.
pub(crate) struct Attended<'a, C> {
    inner: &'a Inner<C>,
    key: &'a str,
    strength: Strength,
}

impl<'a, C> Attended<'a, C> {
    pub(super) fn begin(
        inner: &'a Inner<C>,
        key: &'a str,
        strength: Strength,
        options: &EntryOptions,
    ) -> (Self, Option<QueueSlot>) {
        let queue_slot = inner.recovery.attend_in_queue(key, strength, options.skip_backplane);
        (Self::begun(inner, key, strength), queue_slot)
    }

    /// It has begun before.
    pub(super) fn begun(inner: &'a Inner<C>, key: &'a str, strength: Strength) -> Self {
        Self { inner, key, strength }
    }
}

impl<C> Drop for Attended<'_, C> {
    fn drop(&mut self) {
        self.inner.recovery.leave(self.key, self.strength);
    }
}
