use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::key::{Propagation, hide_here};
use super::pending::Attended;
use crate::cache::{Inner, Relayed};
use crate::flight::Fence;
use crate::protocol::ledger::Strength;
use crate::read::Call;
use crate::recovery::Queued;

/// Removals of a batch that hold here and have not been sent. Those that are left when their batch is
/// dropped are queued: what its caller began holds, whether the caller waits or not (W2).
pub(crate) struct BatchRemoval<'a, C> {
    inner: &'a Arc<Inner<C>>,
    /// Until it is sent, what L2 holds of each of them does not count (W1).
    keys: Mutex<BTreeSet<Box<str>>>,
}

impl<'a, C> BatchRemoval<'a, C> {
    /// The local part of a removal of each key.
    pub(crate) fn hide(inner: &'a Arc<Inner<C>>, calls: &[Call]) -> Self {
        // First of all: what is in it is queued, though a value should panic as it is dropped.
        let unsent = Self { inner, keys: Mutex::default() };
        for Call { key, hash, options, .. } in calls {
            let shares = Propagation::of(inner, options);
            if shares != Propagation::Nothing && unsent.keys.lock().insert(key.clone()) {
                inner.recovery.attend(key, Strength::Hard);
            }
            let mut known = None;
            inner.flights.receive(*hash, inner.entropy.version(), || {
                known = inner.l1.version(*hash);
                inner.l1.invalidate(*hash);
            });
            inner.flights.removed(*hash);
            if shares == Propagation::Nothing {
                hide_here(inner, *hash, Strength::Hard, known);
            }
        }
        unsent
    }

    /// This one is being sent, and what is answered is kept until it has been. (A key that is there twice is
    /// sent twice.)
    #[must_use]
    pub(crate) fn send<'k>(&self, key: &'k str) -> Option<Attended<'k, C>>
    where
        'a: 'k,
    {
        let is_first = self.keys.lock().remove(key);
        is_first.then(|| Attended::begun(self.inner, key, Strength::Hard))
    }
}

impl<C> Drop for BatchRemoval<'_, C> {
    fn drop(&mut self) {
        let now = self.inner.now();
        for key in std::mem::take(self.keys.get_mut()) {
            self.inner.relay(|| Relayed::Key(key.clone(), Strength::Hard));
            let version = self.inner.entropy.version();
            let queued = Queued { strength: Strength::Hard, version, not_before: now };
            self.inner.queue(&key, queued);
            self.inner.recovery.leave(&key, Strength::Hard);
        }
    }
}

/// Sets of a batch that are not sent at once: what they replace is in L1 no more, and is not fresh from L2
/// either. Where L1 alone has it, it is stale, and lost only with its own set. Each ends when that begins.
pub(crate) struct BatchSet<'a, C> {
    first: usize,
    fences: Mutex<Vec<Option<Fence<'a, C>>>>,
}

impl<'a, C> BatchSet<'a, C> {
    /// Of these calls, the `first` are begun at once.
    pub(crate) fn begin(inner: &'a Inner<C>, calls: &[Call], first: usize) -> Self {
        let fence = |call: &Call| {
            let strength = match Propagation::of(inner, &call.options) {
                Propagation::Records => Strength::Hard,
                Propagation::Notices => Strength::Soft,
                Propagation::Nothing => return None,
            };
            let weaken = || inner.l1.weaken(call.hash, strength);
            Some(Fence::begin(inner, call.hash, Some(inner.entropy.version()), weaken))
        };
        let fences = calls.iter().skip(first).map(fence).collect();
        Self { first, fences: Mutex::new(fences) }
    }

    /// The set at this place begins.
    pub(crate) fn end(&self, at: usize) {
        let Some(at) = at.checked_sub(self.first) else { return };
        let fence = self.fences.lock().get_mut(at).and_then(Option::take);
        if let Some(fence) = fence {
            fence.end(|_| ());
        }
    }
}
