use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::key::{Propagation, hide_here};
use super::pending::Attended;
use crate::node::{Fence, Node, Relayed};
use crate::protocol::ledger::Strength;
use crate::read::Call;
use crate::recovery::Queued;

/// Removals, or expiries, of a batch that are applied locally and not sent yet. Dropping the batch queues the
/// rest: a removal takes effect even if its caller stops waiting (W2).
pub(crate) struct BatchRemoval<'a> {
    node: &'a Arc<Node>,
    strength: Strength,
    /// Keys that are not sent yet. Until a key is sent, this node ignores its record in L2 (W1).
    keys: Mutex<BTreeSet<Box<str>>>,
}

impl<'a> BatchRemoval<'a> {
    /// Applies the local part of a removal of each key.
    pub(crate) fn hide(node: &'a Arc<Node>, strength: Strength, calls: &[Call]) -> Self {
        // Created first: its `Drop` queues the keys, even if dropping a cached value panics.
        let batch = Self { node, strength, keys: Mutex::default() };
        for Call { key, hash, options, .. } in calls {
            let propagation = Propagation::of(node, options);
            if propagation != Propagation::Nothing && batch.keys.lock().insert(key.clone()) {
                node.recovery.attend(key, strength);
            }
            let mut known = None;
            node.flights.receive(*hash, node.entropy.version(), || {
                known = node.l1.version(*hash);
                node.l1.weaken(*hash, strength);
            });
            if strength == Strength::Hard {
                node.flights.removed(*hash);
            }
            if propagation == Propagation::Nothing {
                hide_here(node, *hash, strength, known);
            }
        }
        batch
    }

    /// Marks a key as being sent. The guard keeps this node from using its record in L2 until the
    /// call is answered. `None` for a repeated key, which is sent again without a second guard.
    #[must_use]
    pub(crate) fn send<'k>(&self, key: &'k str) -> Option<Attended<'k>>
    where
        'a: 'k,
    {
        let is_first = self.keys.lock().remove(key);
        is_first.then(|| Attended::begun(self.node, key, self.strength))
    }
}

impl Drop for BatchRemoval<'_> {
    fn drop(&mut self) {
        let (now, strength) = (self.node.now(), self.strength);
        for key in std::mem::take(self.keys.get_mut()) {
            self.node.relay(|| Relayed::Key(key.clone(), strength));
            let version = self.node.entropy.version();
            let queued = Queued { strength, version, not_before: now };
            self.node.queue(&key, queued);
            self.node.recovery.leave(&key, strength);
        }
    }
}

/// Fences for the sets of a batch that are not sent at once.
///
/// L1 drops the value that a set replaces, and a read does not serve the old record of L2 as fresh.
/// If only L1 has values, it keeps the old one as stale until its set begins. Each fence ends when
/// its set begins.
pub(crate) struct BatchSet<'a> {
    first: usize,
    fences: Mutex<Vec<Option<Fence<'a>>>>,
}

impl<'a> BatchSet<'a> {
    /// Fences all calls but the `first` ones, which begin at once.
    pub(crate) fn begin(node: &'a Node, calls: &[Call], first: usize) -> Self {
        let fence = |call: &Call| {
            let strength = match Propagation::of(node, &call.options) {
                Propagation::Records => Strength::Hard,
                Propagation::Notices => Strength::Soft,
                Propagation::Nothing => return None,
            };
            let weaken = || node.l1.weaken(call.hash, strength);
            Some(Fence::begin(node, call.hash, Some(node.entropy.version()), weaken))
        };
        let fences = calls.iter().skip(first).map(fence).collect();
        Self { first, fences: Mutex::new(fences) }
    }

    /// Ends the fence of the set at this index, which begins now.
    pub(crate) fn end(&self, at: usize) {
        let Some(at) = at.checked_sub(self.first) else { return };
        let fence = self.fences.lock().get_mut(at).and_then(Option::take);
        if let Some(fence) = fence {
            fence.end(|_| ());
        }
    }
}
