//! Serializes `SYNC`; concurrent calls would mix up their replies.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedMutexGuard};

use crate::sync::Mutex;

#[derive(Debug, Default)]
pub(super) struct SyncMutex {
    current: Mutex<Arc<tokio::sync::Mutex<()>>>,
    /// Wakes the waiting tasks, which then wait for the new mutex.
    abandoned: Notify,
}

impl SyncMutex {
    pub(super) async fn wait(&self) -> OwnedMutexGuard<()> {
        loop {
            // Registered before the mutex is read, so that no wake-up is missed.
            let abandoned = self.abandoned.notified();
            let mutex = Arc::clone(&self.current.lock());
            tokio::select! {
                biased;
                guard = mutex.lock_owned() => return guard,
                () = abandoned => {}
            }
        }
    }

    /// Replaces the mutex. The task that holds it may never be polled again, so no caller waits for
    /// it any longer.
    pub(super) fn abandon(&self) {
        *self.current.lock() = Arc::default();
        self.abandoned.notify_waiters();
    }
}
