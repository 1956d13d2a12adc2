//! Writes on their way to L2. While one is, what L2 holds of its key is not what this node was announced.
//!
//! Those that go on though their callers have been answered are sent in the order of their calls, and so is
//! what is called after them: what was removed after it was set must not be there again.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::protocol::ledger::Strength;

/// The writes of one key that are on their way.
#[derive(Debug, Default)]
pub(super) struct PendingWrites {
    /// How many leave nothing of what was there before, and how many something stale.
    hard: usize,
    soft: usize,
    /// How many of them go on though their callers have been answered.
    unattended: usize,
    /// How many writes there were that leave nothing of what was there before, and how many of them are announced
    /// to other nodes.
    replaced: u64,
    announced: u64,
    /// How many next_slot there were.
    next_slot: u64,
    queue: Option<WriteQueue>,
}

/// The writes of one key that are sent one after the other.
#[derive(Clone, Debug)]
struct WriteQueue {
    /// ErasedEntry by the write that is being sent; the others wait for it.
    sending: Arc<Mutex<()>>,
    /// The last queue_slot whose caller waits.
    awaited: watch::Sender<u64>,
}

impl Default for WriteQueue {
    fn default() -> Self {
        Self { sending: Arc::default(), awaited: watch::Sender::new(0) }
    }
}

/// The place of a write among those of its key.
#[derive(Debug)]
pub(crate) struct QueueSlot {
    /// How many of those that can replace it there were before, itself included.
    replaced: u64,
    quiet: bool,
    at: u64,
    queue: WriteQueue,
    /// Whether nobody waits for it.
    pub(crate) background: bool,
}

impl QueueSlot {
    /// Waits for those before it; whoever has this is the one that is sent.
    pub(crate) async fn come(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.queue.sending).lock_owned().await
    }

    /// Until the caller of a later one waits for it.
    pub(crate) async fn is_awaited(&self) {
        let mut awaited = self.queue.awaited.subscribe();
        // There is no error: the sender is here.
        let _ = awaited.wait_for(|last| *last > self.at).await;
    }
}

impl PendingWrites {
    /// One whose caller waits begins.
    pub(super) fn attend(&mut self, strength: Strength) {
        *self.count(strength) += 1;
    }

    /// It has ended. True if it was the last.
    pub(super) fn leave(&mut self, strength: Strength) -> bool {
        *self.count(strength) -= 1;
        self.hard + self.soft == 0
    }

    /// One whose caller does not wait begins.
    pub(super) fn begin(&mut self, strength: Strength, quiet: bool) -> QueueSlot {
        self.attend(strength);
        self.unattended += 1;
        self.queue_slot(strength, quiet, true)
    }

    /// It has ended. True if it was the last.
    pub(super) fn end(&mut self, strength: Strength) -> bool {
        self.unattended -= 1;
        self.leave(strength)
    }

    fn count(&mut self, strength: Strength) -> &mut usize {
        match strength {
            Strength::Hard => &mut self.hard,
            Strength::Soft => &mut self.soft,
        }
    }

    /// Whether there is a queue: others go on without their callers.
    pub(super) fn is_unattended(&self) -> bool {
        self.unattended > 0
    }

    /// `quiet`: it is announced to nobody.
    pub(super) fn queue_slot(
        &mut self,
        strength: Strength,
        quiet: bool,
        background: bool,
    ) -> QueueSlot {
        let hard = strength == Strength::Hard;
        self.replaced += u64::from(hard);
        self.announced += u64::from(hard && !quiet);
        self.next_slot += 1;
        let (at, queue) = (self.next_slot, self.queue.get_or_insert_default().clone());
        if !background {
            queue.awaited.send_replace(at);
        }
        QueueSlot { replaced: self.replaced(quiet), quiet, at, queue, background }
    }

    /// How many writes there were that replace such a one: what other nodes are to receive of, only what they
    /// receive of as well.
    fn replaced(&self, quiet: bool) -> u64 {
        if quiet { self.replaced } else { self.announced }
    }

    pub(super) fn strength(&self) -> Strength {
        if self.hard > 0 { Strength::Hard } else { Strength::Soft }
    }

    pub(super) fn is_past(&self, queue_slot: &QueueSlot) -> bool {
        self.replaced(queue_slot.quiet) > queue_slot.replaced
    }
}
