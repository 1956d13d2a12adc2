//! The tasks that a cache with an L2 has from its start to its end, and what becomes of them and of the loads if
//! their runtime ends, or if nobody drives it any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::backplane::receive;
use crate::coherence::{poll, retry};
use crate::error::Error;
use crate::read::lose;
use crate::runtime::Place;

/// The longest that a runtime which only its owner drives may take to run a task.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many writes that nobody waits for are on their way at the same time. A server that gets more answers the
/// last of them later than they wait.
const AT_ONCE: usize = 256;

/// What becomes of these tasks.
#[derive(Debug)]
pub(super) struct Background {
    /// Cancelled when the tasks restart on another runtime.
    left: Mutex<CancellationToken>,
    /// Whether the tasks have restarted on another runtime.
    moved: AtomicBool,
    /// What a write in the background needs to be sent.
    pace: Mutex<Arc<Semaphore>>,
}

impl Default for Background {
    fn default() -> Self {
        let (left, moved) = (Mutex::default(), AtomicBool::default());
        Self { left, moved, pace: Mutex::new(pace()) }
    }
}

fn pace() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

impl<C: Sync> Inner<C> {
    /// Waits until a write that nobody waits for may be sent; until it ends, it takes the place of another.
    pub(crate) async fn paced(&self) -> Option<OwnedSemaphorePermit> {
        let pace = Arc::clone(&self.background.pace.lock());
        pace.acquire_owned().await.ok()
    }
}

/// Starts them: where the cache is built, and once more if that runtime is left before the cache ends.
pub(super) fn start<C: Send + Sync + 'static>(inner: &Arc<Inner<C>>) -> Result<(), Error> {
    let place = inner.runtime()?;
    let left = inner.background.left.lock().clone();
    let guard = Started { inner: Arc::downgrade(inner), place: place.clone() };
    let poll = poll::run(Arc::clone(inner));
    let poll = async move {
        let _guard = guard;
        poll.await;
    };
    inner.tasks.spawn_on(until(left.clone(), poll), &place);
    inner.tasks.spawn_on(until(left.clone(), retry::run(Arc::clone(inner))), &place);
    inner.tasks.spawn_on(until(left.clone(), poll::probe(Arc::clone(inner))), &place);
    inner.tasks.spawn_on(until(left, receive::run(Arc::clone(inner))), &place);
    Ok(())
}

async fn until(left: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = left.cancelled_owned() => {}
        () = task => {}
    }
}

/// What is dropped with the tasks.
struct Started<C: Send + Sync + 'static> {
    inner: Weak<Inner<C>>,
    place: Place,
}

impl<C: Send + Sync + 'static> Drop for Started<C> {
    fn drop(&mut self) {
        let Some(inner) = self.inner.upgrade() else { return };
        if !inner.closing.is_cancelled() && !std::thread::panicking() && self.place.has_ended() {
            move_on(&inner, &self.place);
        }
    }
}

/// Restarts the tasks on another runtime, unless the cache is closed, and compares with the ledger what may have been
/// missed. Callers that wait for a load of the old runtime load again themselves.
fn move_on<C: Send + Sync + 'static>(inner: &Arc<Inner<C>>, from: &Place) {
    from.leave();
    if inner.background.moved.swap(true, Ordering::AcqRel) {
        return;
    }
    // They were built there, too, and nobody calls them.
    for region in inner.regions.caches() {
        if let Some(place) = region.home.elsewhere() {
            move_on(region, &place);
        }
    }
    std::mem::take(&mut *inner.background.left.lock()).cancel();
    // Writes on a runtime that is not driven keep their permits for ever.
    *inner.background.pace.lock() = pace();
    let left = inner.flights.all().into_iter().filter(|flight| flight.is_left());
    left.for_each(|flight| lose(inner, &flight));
    inner.node.abandon_turn();
    // What was on its way there is queued, before the tasks begin that send it.
    inner.tasks.leave();
    if inner.closing.is_cancelled() {
        return;
    }
    tracing::warn!(
        cache = %inner.name,
        "the tokio runtime of the cache has ended, or nobody drives it; what it did goes on on a thread of its own. \
         Build the cache on a runtime that lives as long as it, or close it before"
    );
    if inner.l2.is_none() {
        return;
    }
    receive::left(inner);
    if let Err(error) = start(inner) {
        tracing::error!(%error, "nothing polls the ledger any more");
    }
}

/// Looks whether the runtime of the cache still runs tasks, for a caller that is elsewhere: within two polls, it
/// is left if it does not.
pub(crate) async fn attend<C: Send + Sync + 'static>(inner: &Arc<Inner<C>>) {
    let Some(place) = inner.home.elsewhere() else { return };
    let limit = inner.settings.poll.min(PATIENCE) * 2;
    let ran = timeout(limit, place.handle().spawn(async {})).await;
    if !matches!(ran, Ok(Ok(()))) {
        move_on(inner, &place);
    }
}

/// The same for a caller that waits for a load, again and again.
pub(crate) async fn attend_on<C: Send + Sync + 'static>(inner: &Arc<Inner<C>>) {
    while inner.home.elsewhere().is_some() {
        sleep(inner.settings.poll.min(PATIENCE)).await;
        attend(inner).await;
    }
    std::future::pending().await
}
