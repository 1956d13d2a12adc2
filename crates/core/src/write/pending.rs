//! Guards for pending writes: while a write is pending, this node ignores its key's record in L2
//! (W1).

use std::sync::Arc;

use crate::node::Node;
use crate::options::EntryOptions;
use crate::protocol::ledger::Strength;
use crate::recovery::WriteSlot;

/// A write-behind write, whose caller has its receipt already.
pub(super) struct PendingWrite {
    pub(super) node: Arc<Node>,
    pub(super) key: String,
    strength: Strength,
}

impl PendingWrite {
    pub(super) fn new(
        node: &Arc<Node>,
        key: &str,
        strength: Strength,
        options: &EntryOptions,
    ) -> (Self, WriteSlot) {
        let queue_slot = node.recovery.begin(key, strength, options.skip_backplane);
        (Self { node: Arc::clone(node), key: key.to_owned(), strength }, queue_slot)
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        self.node.recovery.end(&self.key, self.strength);
    }
}

/// An invalidation whose caller waits, from its first poll until it is answered or queued.
///
/// A `set` needs none: its fence keeps the old value from being fresh. The old value is stale only
/// while the new one is pending, which is no reason to load another.
pub(crate) struct Attended<'a> {
    node: &'a Node,
    key: &'a str,
    strength: Strength,
}

impl<'a> Attended<'a> {
    pub(super) fn begin(
        node: &'a Node,
        key: &'a str,
        strength: Strength,
        options: &EntryOptions,
    ) -> (Self, Option<WriteSlot>) {
        let queue_slot = node.recovery.attend_in_queue(key, strength, options.skip_backplane);
        (Self::begun(node, key, strength), queue_slot)
    }

    /// The guard for an invalidation that is already registered.
    pub(super) fn begun(node: &'a Node, key: &'a str, strength: Strength) -> Self {
        Self { node, key, strength }
    }
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.node.recovery.leave(self.key, self.strength);
    }
}
