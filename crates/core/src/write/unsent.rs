use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::key::{Shares, hide_here};
use crate::cache::{Inner, Relayed};
use crate::protocol::ledger::Strength;
use crate::read::Call;
use crate::recovery::Queued;

/// Removals of a batch that hold here and have not been sent. Those that are left when their batch is
/// dropped are queued: what its caller began holds, whether the caller waits or not (W2).
pub(crate) struct Unsent<'a, C> {
    inner: &'a Arc<Inner<C>>,
    keys: Mutex<BTreeSet<Box<str>>>,
}

impl<'a, C> Unsent<'a, C> {
    /// The local part of a removal of each key.
    pub(crate) fn hide(inner: &'a Arc<Inner<C>>, calls: &[Call]) -> Self {
        for Call { hash, options, .. } in calls {
            let mut known = None;
            inner.flights.hear(*hash, inner.entropy.version(), || {
                known = inner.l1.version(*hash);
                inner.l1.invalidate(*hash);
            });
            inner.flights.removed(*hash);
            if Shares::of(inner, options) == Shares::Nothing {
                hide_here(inner, *hash, Strength::Hard, known);
            }
        }
        let shared = |call: &&Call| Shares::of(inner, &call.options) != Shares::Nothing;
        let keys = calls.iter().filter(shared).map(|call| call.key.clone());
        Self { inner, keys: Mutex::new(keys.collect()) }
    }

    /// This one is being sent.
    pub(crate) fn send(&self, key: &str) {
        self.keys.lock().remove(key);
    }
}

impl<C> Drop for Unsent<'_, C> {
    fn drop(&mut self) {
        let now = self.inner.now();
        for key in std::mem::take(self.keys.get_mut()) {
            self.inner.relay(|| Relayed::Key(key.clone(), Strength::Hard));
            let version = self.inner.entropy.version();
            let queued = Queued { strength: Strength::Hard, version, not_before: now };
            self.inner.queue(&key, queued);
        }
    }
}
