//! The state of the background tasks of a cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The number of concurrent background writes. With more, the last ones would time out before the
/// server answers them.
const CONCURRENCY: usize = 256;

/// The state of the background tasks.
#[derive(Debug)]
pub(crate) struct Background {
    /// Cancelled when the tasks restart on another runtime.
    left: Mutex<CancellationToken>,
    /// Whether the tasks have restarted on another runtime.
    moved: AtomicBool,
    /// The permits that a background write needs to be sent.
    pace: Mutex<Arc<Semaphore>>,
}

impl Default for Background {
    fn default() -> Self {
        let (left, moved) = (Mutex::default(), AtomicBool::default());
        Self { left, moved, pace: Mutex::new(pace()) }
    }
}

fn pace() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CONCURRENCY))
}

impl Background {
    /// Waits for the permit of a background write, which the write holds until it ends.
    pub(crate) async fn paced(&self) -> Option<OwnedSemaphorePermit> {
        let pace = Arc::clone(&self.pace.lock());
        pace.acquire_owned().await.ok()
    }

    /// Returns the token that ends the tasks of the present runtime.
    pub(crate) fn left(&self) -> CancellationToken {
        self.left.lock().clone()
    }

    /// Whether this call is the first one that moves the tasks to another runtime.
    pub(crate) fn moves(&self) -> bool {
        !self.moved.swap(true, Ordering::AcqRel)
    }

    /// Ends the tasks of the runtime that the cache leaves.
    pub(crate) fn leave(&self) {
        std::mem::take(&mut *self.left.lock()).cancel();
        // Writes on a runtime that is not driven never release their permits.
        *self.pace.lock() = pace();
    }
}

/// Whether the sweep task of a cache runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sweeper(pub(crate) Arc<AtomicBool>);
