//! Frees memory: a background task drops L1 entries that can never be served again.
//!
//! A pass checks every entry, one chunk at a time. The pause after each chunk keeps hits and other
//! tasks from waiting. A hit pays nothing, and an entry needs no extra field. A read drops the dead
//! entry that it finds at once ([`drop_dead`]). The task drops the others within [`PERIOD`] and the
//! duration of a pass, at most 45 s.
//!
//! A pass drops an entry under its key's lock, if it is still the one that was checked. Its value
//! is dropped afterwards, on the task, under no lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::entry::ErasedEntry;
use crate::node::Node;
use crate::protocol::KeyHash;
use crate::tasks::Sweeper;

/// The time between two passes.
const PERIOD: Duration = Duration::from_secs(40);

/// The entries checked without a pause, about a tenth of a millisecond. A pass takes larger chunks
/// if it would need more than [`CHUNKS`].
const CHUNK: usize = 1024;

/// The maximum number of chunks in a pass: with their pauses they take 5 s.
const CHUNKS: usize = 1000;

/// The pause after a chunk.
const PAUSE: Duration = Duration::from_millis(5);

/// Marks the task as running until it is dropped, even by a runtime that shuts down.
struct Running(Sweeper);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// Starts the sweep task of a cache, unless it runs already or the caller is outside a runtime. A
/// cache without L2 can be built outside a runtime, and may outlive the one it was built in.
#[inline]
pub(crate) fn ensure(node: &Arc<Node>) {
    if !node.sweeper.0.load(Ordering::Relaxed) {
        start(node);
    }
}

#[cold]
fn start(node: &Arc<Node>) {
    if Handle::try_current().is_err() || node.sweeper.0.swap(true, Ordering::AcqRel) {
        return;
    }
    let running = Running(node.sweeper.clone());
    // A weak reference, so that the task does not keep the cache alive.
    let (cache, closing) = (Arc::downgrade(node), node.closing.clone());
    // `spawn` fails only for a closed cache, which needs no sweep, or without a runtime.
    let _ = node.spawn(run(cache, closing, running));
}

async fn run(cache: Weak<Node>, closing: CancellationToken, _running: Running) {
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
        let Some(node) = cache.upgrade() else { return };
        pass(&node).await;
    }
}

/// Checks every entry once.
async fn pass(node: &Node) {
    let len = usize::try_from(node.l1.about_len()).unwrap_or(usize::MAX);
    let chunk = CHUNK.max(len / CHUNKS);
    let mut entries = node.l1.scan();
    loop {
        let checked = sweep(node, entries.by_ref().take(chunk));
        if checked < chunk || node.closing.is_cancelled() {
            break;
        }
        sleep(PAUSE).await;
    }
    while node.l1.run_pending() && !node.closing.is_cancelled() {
        sleep(PAUSE).await;
    }
}

/// Drops the dead entries among these; returns how many it checked.
fn sweep(node: &Node, entries: impl Iterator<Item = (KeyHash, ErasedEntry)>) -> usize {
    let (now, mut checked) = (node.now(), 0);
    for (hash, erased) in entries {
        checked += 1;
        if node.coherence.is_dead(erased.meta(), now) {
            node.flights.locked(hash, || node.l1.invalidate_this(hash, &erased));
            // A value that panics on drop must not end the task.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(erased)));
        }
    }
    checked
}

/// Drops an entry that a read could not serve, if no later read can serve it either.
pub(crate) fn drop_dead(node: &Node, hash: KeyHash) {
    let Some(erased) = node.l1.find(hash) else { return };
    if node.coherence.is_dead(erased.meta(), node.now()) {
        node.flights.locked(hash, || node.l1.invalidate_this(hash, &erased));
    }
}
