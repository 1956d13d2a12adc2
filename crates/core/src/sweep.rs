//! Gives memory back: a background task drops the entries of L1 that can never be answered again.
//!
//! A pass looks at every entry, a chunk at a time with a pause after each, so that neither hits nor other tasks
//! wait for it. A hit pays nothing, and an entry has no field for it. What a read meets dead is dropped at once
//! ([`drop_dead`]); what nobody reads goes within [`PERIOD`] and the time of a pass, 45 s at most.
//!
//! An entry is dropped under its key's lock, if it is still the one that was looked at. Its value is dropped
//! after that, on the task, under no lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cache::Inner;
use crate::entry::ErasedEntry;
use crate::protocol::KeyHash;

/// The time between two passes.
const PERIOD: Duration = Duration::from_secs(40);

/// How many entries are looked at without a pause, about a tenth of a millisecond; more if there are more
/// than [`CHUNKS`] of these.
const CHUNK: usize = 1024;

/// In how many chunks a pass is done at most: with their pauses they take 5 s.
const CHUNKS: usize = 1000;

/// The pause after a chunk.
const PAUSE: Duration = Duration::from_millis(5);

/// Whether the task of a cache runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sweeper(Arc<AtomicBool>);

/// The task runs as long as this lives, be it that its runtime is shut down.
struct Running(Sweeper);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// Starts the task of a cache, unless it runs or there is no runtime here: a cache without L2 can be built
/// outside of one, and may outlive the one that it was built in.
#[inline]
pub(crate) fn ensure<C: Send + Sync + 'static>(inner: &Arc<Inner<C>>) {
    if !inner.sweeper.0.load(Ordering::Relaxed) {
        start(inner);
    }
}

#[cold]
fn start<C: Send + Sync + 'static>(inner: &Arc<Inner<C>>) {
    if Handle::try_current().is_err() || inner.sweeper.0.swap(true, Ordering::AcqRel) {
        return;
    }
    let running = Running(inner.sweeper.clone());
    // Not the cache itself: it ends with its last handle.
    let (cache, closing) = (Arc::downgrade(inner), inner.closing.clone());
    // A cache that is closed needs none.
    let _ = inner.spawn(run(cache, closing, running));
}

async fn run<C: Send + Sync + 'static>(
    cache: Weak<Inner<C>>,
    closing: CancellationToken,
    _running: Running,
) {
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
        let Some(inner) = cache.upgrade() else { return };
        pass(&inner).await;
    }
}

/// Looks at every entry once.
async fn pass<C: Sync>(inner: &Inner<C>) {
    let len = usize::try_from(inner.l1.about_len()).unwrap_or(usize::MAX);
    let chunk = CHUNK.max(len / CHUNKS);
    let mut entries = inner.l1.scan();
    loop {
        let looked_at = sweep(inner, entries.by_ref().take(chunk));
        if looked_at < chunk || inner.closing.is_cancelled() {
            break;
        }
        sleep(PAUSE).await;
    }
    while inner.l1.settle() && !inner.closing.is_cancelled() {
        sleep(PAUSE).await;
    }
}

/// Drops the dead ones of these; how many were looked at.
fn sweep<C>(inner: &Inner<C>, entries: impl Iterator<Item = (KeyHash, ErasedEntry)>) -> usize {
    let (now, mut looked_at) = (inner.now(), 0);
    for (hash, erased) in entries {
        looked_at += 1;
        if inner.node.is_dead(erased.meta(), now) {
            inner.flights.locked(hash, || inner.l1.invalidate_this(hash, &erased));
            // A value that panics as it is dropped must not end the task.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(erased)));
        }
    }
    looked_at
}

/// A read has found an entry that it cannot answer with: drops it if nobody ever can.
pub(crate) fn drop_dead<C>(inner: &Inner<C>, hash: KeyHash) {
    let Some(erased) = inner.l1.find(hash) else { return };
    if inner.node.is_dead(erased.meta(), inner.now()) {
        inner.flights.locked(hash, || inner.l1.invalidate_this(hash, &erased));
    }
}
