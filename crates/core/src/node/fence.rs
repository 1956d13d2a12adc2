//! Guards a write or a plain read that overlaps loads of its key.

use super::Node;
use crate::l2::deadline::settles_after;
use crate::protocol::flight::{FlightId, Received};
use crate::protocol::{KeyHash, Version};

/// Guards a write or a plain read that overlaps loads of its key; it ends when dropped.
pub(crate) struct Fence<'a> {
    node: &'a Node,
    hash: KeyHash,
    id: FlightId,
    is_write: bool,
    ended: bool,
}

impl<'a> Fence<'a> {
    /// Begins the fence and runs `invalidate` under the key's lock.
    pub(crate) fn begin(
        node: &'a Node,
        hash: KeyHash,
        version: Option<Version>,
        invalidate: impl FnOnce(),
    ) -> Self {
        let id = node.flights.begin(hash, version, invalidate);
        Self { node, hash, id, is_write: version.is_some(), ended: false }
    }

    /// Ends the fence and runs `settle` under the key's lock, with the versions received meanwhile.
    pub(crate) fn end<R>(mut self, settle: impl FnOnce(Received) -> R) -> R {
        self.ended = true;
        self.node.flights.end(self.hash, self.id, settle)
    }
}

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.node.flights.end(self.hash, self.id, |_| ());
            if self.is_write {
                // The write may still reach L2: its echo then counts as a new message.
                let limit = self.node.l2_limit();
                self.node.notices.open_late_window(self.node.now() + settles_after(limit));
            }
        }
    }
}
