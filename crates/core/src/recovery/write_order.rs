//! The write queue of each key. While a write is pending, L2 does not hold what the caller's
//! receipt says.
//!
//! Background writes are sent in the order of their calls, and so are the writes called after them.
//! Otherwise a key that was removed after a `set` could exist again.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::protocol::ledger::Strength;

/// The pending writes of one key.
#[derive(Debug, Default)]
pub(super) struct PendingWrites {
    /// How many leave nothing of the old value.
    hard: usize,
    /// How many leave a stale value.
    soft: usize,
    /// How many are background writes, whose callers have their receipts.
    unattended: usize,
    /// How many writes so far leave nothing of the old value.
    replaced: u64,
    /// How many of those are announced to other nodes.
    announced: u64,
    /// How many slots have been given out.
    next_slot: u64,
    queue: Option<WriteOrder>,
}

/// Sends the writes of one key one after the other.
#[derive(Clone, Debug)]
struct WriteOrder {
    /// Held by the write that is being sent; the others wait for it.
    sending: Arc<Mutex<()>>,
    /// The last slot whose caller waits.
    awaited: watch::Sender<u64>,
}

impl Default for WriteOrder {
    fn default() -> Self {
        Self { sending: Arc::default(), awaited: watch::Sender::new(0) }
    }
}

/// The place of a write in the write queue of its key.
#[derive(Debug)]
pub(crate) struct WriteSlot {
    /// How many writes that can replace it were called so far, itself included.
    replaced: u64,
    quiet: bool,
    at: u64,
    queue: WriteOrder,
    /// Whether no caller waits for it.
    pub(crate) background: bool,
}

impl WriteSlot {
    /// Waits for the writes before it. The holder of the guard is the one that is sent.
    pub(crate) async fn come(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.queue.sending).lock_owned().await
    }

    /// Waits until the caller of a later write waits for this one.
    pub(crate) async fn is_awaited(&self) {
        let mut awaited = self.queue.awaited.subscribe();
        // No error is possible: `self` holds the sender.
        let _ = awaited.wait_for(|last| *last > self.at).await;
    }
}

impl PendingWrites {
    /// Registers a write whose caller waits.
    pub(super) fn attend(&mut self, strength: Strength) {
        *self.count(strength) += 1;
    }

    /// Ends a write whose caller waits. True if it was the last.
    pub(super) fn leave(&mut self, strength: Strength) -> bool {
        *self.count(strength) -= 1;
        self.hard + self.soft == 0
    }

    /// Registers a background write.
    pub(super) fn begin(&mut self, strength: Strength, quiet: bool) -> WriteSlot {
        self.attend(strength);
        self.unattended += 1;
        self.queue_slot(strength, quiet, true)
    }

    /// Ends a background write. True if it was the last.
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

    /// Whether there is a queue: background writes are pending.
    pub(super) fn is_unattended(&self) -> bool {
        self.unattended > 0
    }

    /// Gives out a slot. `quiet`: the write is not announced to other nodes.
    pub(super) fn queue_slot(
        &mut self,
        strength: Strength,
        quiet: bool,
        background: bool,
    ) -> WriteSlot {
        let hard = strength == Strength::Hard;
        self.replaced += u64::from(hard);
        self.announced += u64::from(hard && !quiet);
        self.next_slot += 1;
        let (at, queue) = (self.next_slot, self.queue.get_or_insert_default().clone());
        if !background {
            queue.awaited.send_replace(at);
        }
        WriteSlot { replaced: self.replaced(quiet), quiet, at, queue, background }
    }

    /// How many writes replace such a write. If other nodes receive it, only writes that they
    /// receive as well can replace it.
    fn replaced(&self, quiet: bool) -> u64 {
        if quiet { self.replaced } else { self.announced }
    }

    pub(super) fn strength(&self) -> Strength {
        if self.hard > 0 { Strength::Hard } else { Strength::Soft }
    }

    pub(super) fn is_past(&self, queue_slot: &WriteSlot) -> bool {
        self.replaced(queue_slot.quiet) > queue_slot.replaced
    }
}
