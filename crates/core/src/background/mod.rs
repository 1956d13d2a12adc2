//! The background tasks of a cache with an L2: each is a loop over a node.
//!
//! | file | holds |
//! |---|---|
//! | here | starts the tasks, and restarts them on another runtime |
//! | `poll` | every second: sends the heartbeat, and compares with the ledger (`SYNC`) |
//! | `receive` | applies what other nodes announce; resyncs if a message was lost |
//! | `recovery` | the recovery worker: sends what waits for L2, once the ledger has answered |
//! | `reassert` | compares recent writes with L2 after a failover |
//! | `owed` | leaves a mark in the ledger while this node cannot announce its writes |
//! | `shadow` | compares a few hits with L2, to count violations |
//! | `sweep` | drops L1 entries that can never be served again |
//!
//! They restart on another runtime if their runtime ends, or if nothing drives it any more. The
//! loads of that runtime fail, so that their callers load again.

mod owed;
pub(crate) mod poll;
mod reassert;
pub(crate) mod receive;
pub(crate) mod recovery;
mod shadow;
pub(crate) mod sweep;

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::node::Node;
use crate::runtime::Place;

/// The longest time that a current-thread runtime may take to run a task before it counts as not
/// driven.
const MAX_TASK_DELAY: Duration = Duration::from_secs(1);

/// Starts the background tasks: on the runtime where the cache is built, and once more if the cache
/// leaves that runtime.
pub(crate) fn start(node: &Arc<Node>) -> Result<(), Error> {
    let place = node.runtime()?;
    let left = node.background.left();
    let guard = RestartGuard { node: Arc::downgrade(node), place: place.clone() };
    let poll = poll::run(Arc::clone(node));
    let poll = async move {
        let _guard = guard;
        poll.await;
    };
    node.tasks.spawn_on(until(left.clone(), poll), &place);
    node.tasks.spawn_on(until(left.clone(), recovery::run(Arc::clone(node))), &place);
    node.tasks.spawn_on(until(left.clone(), poll::probe_servers(Arc::clone(node))), &place);
    node.tasks.spawn_on(until(left, receive::run(Arc::clone(node))), &place);
    Ok(())
}

async fn until(left: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = left.cancelled_owned() => {}
        () = task => {}
    }
}

/// Restarts the tasks elsewhere if it is dropped because their runtime ended.
struct RestartGuard {
    node: Weak<Node>,
    place: Place,
}

impl Drop for RestartGuard {
    fn drop(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        if !node.closing.is_cancelled() && !std::thread::panicking() && self.place.has_ended() {
            restart_elsewhere(&node, &self.place);
        }
    }
}

/// Restarts the tasks on another runtime, unless the cache is closed, and compares with the ledger
/// to find missed removals. Callers that wait for a load of the old runtime load again themselves.
fn restart_elsewhere(node: &Arc<Node>, from: &Place) {
    from.leave();
    if !node.background.moves() {
        return;
    }
    // The caches of the regions were built on that runtime too, and no call detects it for them.
    for region in node.regions.nodes() {
        if let Some(place) = region.home.elsewhere() {
            restart_elsewhere(region, &place);
        }
    }
    node.background.leave();
    let orphans = node.flights.all().into_iter().filter(|flight| flight.is_left());
    orphans.for_each(|flight| node.fail_lost_flight(&flight));
    node.coherence.abandon_turn();
    // Queues unfinished writes of that runtime, before the tasks that send the queue start.
    node.tasks.leave();
    if node.closing.is_cancelled() {
        return;
    }
    tracing::warn!(
        cache = %node.name,
        "the tokio runtime of the cache has ended, or nothing drives it; the cache continues on its own thread. \
         Build the cache on a runtime that outlives it, or close the cache before its runtime ends"
    );
    if node.l2.is_none() {
        return;
    }
    receive::left(node);
    if let Err(error) = start(node) {
        tracing::error!(%error, "the background tasks could not restart, so nothing polls the ledger any more");
    }
}

/// Checks, for a caller outside the runtime of the cache, that the runtime still runs tasks. If it
/// does not, the cache leaves it within two polls.
pub(crate) async fn ensure_runtime_runs(node: &Arc<Node>) {
    let Some(place) = node.home.elsewhere() else { return };
    let limit = node.settings.poll.min(MAX_TASK_DELAY) * 2;
    let ran = timeout(limit, place.handle().spawn(async {})).await;
    if !matches!(ran, Ok(Ok(()))) {
        restart_elsewhere(node, &place);
    }
}

/// Repeats [`ensure_runtime_runs`] for a caller that waits for a load; never returns.
pub(crate) async fn watch_runtime(node: &Arc<Node>) {
    while node.home.elsewhere().is_some() {
        sleep(node.settings.poll.min(MAX_TASK_DELAY)).await;
        ensure_runtime_runs(node).await;
    }
    std::future::pending().await
}
