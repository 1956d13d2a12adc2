//! Serializes `SYNC`; concurrent calls would mix up their replies.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedMutexGuard};

use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(super) struct SyncMutex {
    turn: Mutex<Arc<tokio::sync::Mutex<()>>>,
    /// Who waits for the turn waits for another one.
    abandoned: Notify,
}

impl SyncMutex {
    pub(super) async fn wait(&self) -> OwnedMutexGuard<()> {
        loop {
            // Before the look at whose turn it is.
            let abandoned = self.abandoned.notified();
            let turn = Arc::clone(&self.turn.lock());
            tokio::select! {
                biased;
                turn = turn.lock_owned() => return turn,
                () = abandoned => {}
            }
        }
    }

    /// Abandons the present turn: its task may never be driven again, so no caller waits for it any longer.
    pub(super) fn abandon(&self) {
        *self.turn.lock() = Arc::default();
        self.abandoned.notify_waiters();
    }
}
