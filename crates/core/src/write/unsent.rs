use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cache::Inner;
use crate::protocol::KeyHash;
use crate::protocol::ledger::Strength;
use crate::recovery::Queued;

/// Removals of a batch that hold here and have not been sent. Those that are left when their batch is
/// dropped are queued: what its caller began holds, whether the caller waits or not (W2).
pub(crate) struct Unsent<'a, C> {
    inner: &'a Arc<Inner<C>>,
    keys: Mutex<HashSet<Box<str>>>,
}

impl<'a, C> Unsent<'a, C> {
    /// The local part of a removal of each key.
    pub(crate) fn hide<'k>(inner: &'a Arc<Inner<C>>, keys: impl Iterator<Item = &'k str>) -> Self {
        let keys = keys.inspect(|key| {
            let hash = KeyHash::of(key);
            inner.flights.hear(hash, inner.entropy.version(), || inner.l1.invalidate(hash));
            inner.flights.removed(hash);
        });
        Self { inner, keys: Mutex::new(keys.map(Into::into).collect()) }
    }

    /// This one is being sent.
    pub(crate) fn send(&self, key: &str) {
        self.keys.lock().remove(key);
    }
}

impl<C> Drop for Unsent<'_, C> {
    fn drop(&mut self) {
        let now = self.inner.now();
        for key in self.keys.get_mut().drain().filter(|_| self.inner.records().is_some()) {
            let version = self.inner.entropy.version();
            let queued = Queued { strength: Strength::Hard, version, not_before: now };
            self.inner.queue(&key, queued);
        }
    }
}
