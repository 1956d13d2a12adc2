//! Waits until this node knows a number of the ledger.

use super::Coherence;
use crate::protocol::Epoch;

impl Coherence {
    /// Waits until the replica holds everything up to this number. It asks the ledger once: after
    /// that, even an invalid number costs no more than the regular polls.
    pub(crate) async fn reach(&self, epoch: Epoch, seq: u64) {
        let mut asked = false;
        loop {
            let moved = self.moved.notified();
            let mut moved = std::pin::pin!(moved);
            moved.as_mut().enable();
            let known = self.known();
            if known.epoch == Some(epoch) && known.frontier >= seq && !known.suspect {
                return;
            }
            // An entry stamped in an earlier epoch is hidden, with or without the removal.
            if known.epoch != Some(epoch) && !known.suspect && self.ledger.lock().has_left(epoch) {
                return;
            }
            if !std::mem::replace(&mut asked, true) {
                self.sync_wanted.notify_one();
            }
            moved.await;
        }
    }
}
