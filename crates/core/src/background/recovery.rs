//! Sends what waits for L2 once a `SYNC` has been answered. No poll waits for it.

use std::sync::Arc;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::poll::sync;
use super::reassert::{ask, reassert};
use crate::backplane::message::KeyOp;
use crate::events::Event;
use crate::l2::L2Error;
use crate::l2::access::Access;
use crate::l2::change::Change;
use crate::l2::deadline::settles_after;
use crate::node::Node;
use crate::protocol::commits::Commit;
use crate::protocol::ledger::Strength;
use crate::protocol::{KeyHash, Nonce};
use crate::recovery::Queued;
use crate::sync::Mutex;
use crate::telemetry::spans;
use crate::write::outgoing::{self, Outgoing};
use crate::write::removal;

/// How many keys, and how many removals, are sent at the same time.
const CONCURRENCY: usize = 64;

/// The recovery worker: retries after each poll that was answered, until the cache closes.
pub(crate) async fn run(node: Arc<Node>) {
    let Some(l2) = &node.l2 else { return };
    loop {
        tokio::select! {
            biased;
            () = node.closing.cancelled() => return,
            () = node.coherence.answered.notified() => {}
        }
        retry(&node, l2).instrument(spans::poll(&node.name)).await;
    }
}

async fn retry(node: &Node, l2: &Access) {
    let (asked, until) = (node.coherence.ttl.synced_at(), half_a_poll(node));
    node.settle_owed(l2).await;
    loop {
        let replication_ids = while_retrying(node, l2, ask(node, l2)).await;
        let Some(replication_ids) = replication_ids else { break };
        let Some(more) = reassert(node, l2, asked, replication_ids).await else { break };
        if !more || Instant::now() >= until {
            retry_pending(node, l2).await;
            break;
        }
    }
    if node.coherence.known().pending == 0 {
        node.recovery.forget_tag_names();
    }
    super::shadow::verify_samples(node, l2).await;
}

/// Retries at once, and after each poll that is answered meanwhile. A server that takes its whole
/// timeout does not hold up what another would take. What is sent before the replication ids are
/// known is remembered as a recent write, so it is compared as well.
async fn while_retrying<R>(node: &Node, l2: &Access, asking: impl Future<Output = R>) -> R {
    let done = CancellationToken::new();
    let asking = async {
        let answer = asking.await;
        done.cancel();
        answer
    };
    let retrying = async {
        loop {
            retry_pending(node, l2).await;
            tokio::select! {
                biased;
                () = done.cancelled() => return,
                () = node.coherence.answered.notified() => {}
            }
        }
    };
    join(asking, retrying).await.0
}

fn half_a_poll(node: &Node) -> Instant {
    Instant::now() + node.settings.poll / 2
}

/// Sends what waits for L2, many items at a time. It starts nothing after half a poll, so that
/// newer items get their share. It never gives up a send half-way.
async fn retry_pending(node: &Node, l2: &Access) {
    let until = half_a_poll(node);
    let removals = rotate_randomly(node, node.coherence.waiting(node.coherence.ttl.synced_at()));
    let keys = rotate_randomly(node, node.recovery.due(node.now()));
    let workers = |waiting: usize| 0..waiting.min(CONCURRENCY);
    let (numbering, recovering) = (workers(removals.len()), workers(keys.len()));
    let (removals, keys) = (Mutex::new(removals), Mutex::new(keys));
    let numbering: Vec<_> = numbering.map(|_| number(node, l2, &removals, until)).collect();
    let recovering: Vec<_> = recovering.map(|_| recover(node, l2, &keys, until)).collect();
    join(join_all(numbering), join_all(recovering)).await;
}

/// Starts at a random item, so that no item blocks the rest for ever.
fn rotate_randomly<T>(node: &Node, mut waiting: Vec<T>) -> Vec<T> {
    let first = node.entropy.below(waiting.len() as u64);
    let first = usize::try_from(first).unwrap_or(0).min(waiting.len());
    waiting.rotate_left(first);
    waiting
}

fn next<T>(waiting: &Mutex<Vec<T>>, until: Instant) -> Option<T> {
    if Instant::now() < until { waiting.lock().pop() } else { None }
}

async fn number(node: &Node, l2: &Access, waiting: &Mutex<Vec<Nonce>>, until: Instant) {
    while let Some(last) = next(waiting, until) {
        let (nonce, limit, mut patience) = (node.entropy.nonce(), node.l2_limit(), node.l2_limit());
        let Some(removal) = node.coherence.resend(last, nonce) else { continue };
        let _sending = removal::sending(node, vec![nonce], limit);
        match removal::number(node, l2, removal, limit, &mut patience).await {
            Ok(_) => node.telemetry.faults.sent_removals.add(),
            Err(error) => tracing::debug!(%error, "a removal still waits for its number"),
        }
    }
}

async fn recover(
    node: &Node,
    l2: &Access,
    waiting: &Mutex<Vec<(Box<str>, Queued)>>,
    until: Instant,
) {
    while let Some((key, queued)) = next(waiting, until) {
        let span = spans::recover(&node.telemetry, &key);
        match invalidate(node, l2, &key, queued).instrument(span).await {
            Ok(()) => {
                node.recovery.acknowledge(&key, queued.version, node.now());
                node.telemetry.faults.sent_keys.add();
                node.emit(&key, |key| Event::Recovered { key });
            }
            Err(error) => tracing::debug!(%error, "an invalidation still waits for L2"),
        }
    }
}

async fn invalidate(node: &Node, l2: &Access, key: &str, queued: Queued) -> Result<(), L2Error> {
    let (hash, limit) = (KeyHash::of(key), node.l2_limit());
    if l2.is_open(key) {
        // Nothing is sent, so no message may take a sequence number.
        return Err(L2Error::circuit_open());
    }
    node.notices.open_late_window(node.now() + settles_after(limit));
    // Not the version of the failed write: a copy that carries it must go as well.
    let version = node.entropy.version();
    let op = match queued.strength {
        Strength::Hard => KeyOp::Removed,
        Strength::Soft => KeyOp::Expired,
    };
    let mut outgoing = Outgoing::new(node, op, version, hash, limit);
    if !l2.holds_records() {
        node.flights.receive(hash, version, || node.l1.weaken(hash, queued.strength));
        return match &mut outgoing {
            Some(outgoing) => {
                outgoing.publish().await.then_some(()).ok_or_else(L2Error::unannounced)
            }
            None => Ok(()),
        };
    }
    let change = match queued.strength {
        Strength::Hard => Change::Remove,
        Strength::Soft => Change::Expire(version),
    };
    let sent = node.now();
    let written = outgoing::send(&mut outgoing, l2, key, change, limit, false).await;
    if let Some(outgoing) = &mut outgoing {
        outgoing.answered(&written).await;
    }
    written?;
    let commit = Commit { version, strength: queued.strength };
    node.recovery.recent_writes.note(key, commit, sent, node.now());
    node.flights.receive(hash, version, || node.l1.weaken(hash, queued.strength));
    if let Some(outgoing) = &mut outgoing {
        outgoing.confirm().await;
    }
    Ok(())
}

/// Retries everything that waits, before the cache closes, for three timeouts of L2 and half a poll
/// at most. One timeout is for the holder of the `SYNC` mutex, which may hang or never be polled
/// again. One is for this call's own `SYNC`. Sends begin for half a poll, and each has one timeout.
pub(crate) async fn drain(node: &Node) {
    let (Some(l2), limit) = (&node.l2, node.l2_limit()) else { return };
    let asked = sync(node, l2, node.now());
    if let Ok(Ok(())) = timeout(limit.saturating_mul(2), asked).await {
        let _ =
            timeout(limit.saturating_add(node.settings.poll / 2), retry_pending(node, l2)).await;
    }
}
