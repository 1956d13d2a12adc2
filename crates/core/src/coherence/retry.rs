//! Sends what waits for L2 once a `SYNC` has been answered. No poll waits for it.

use std::sync::Arc;

use futures_util::future::{join, join_all};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Sending;
use crate::backplane::message::KeyOp;
use crate::backplane::outgoing::Outgoing;
use crate::cache::Inner;
use crate::events::Event;
use crate::l2::L2Error;
use crate::l2::access::Access;
use crate::protocol::ledger::Strength;
use crate::protocol::{KeyHash, Nonce};
use crate::recovery::Queued;
use crate::recovery::reassert::{ask, reassert};
use crate::sync::Mutex;
use crate::telemetry::spans;
use crate::write::removal;

/// How many keys, and how many removals, are sent at the same time.
const CONCURRENCY: usize = 64;

/// The recovery worker: retries after each poll that was answered, until the cache closes.
pub(crate) async fn run(inner: Arc<Inner>) {
    let Some(l2) = &inner.l2 else { return };
    loop {
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = inner.node.answered.notified() => {}
        }
        retry(&inner, l2).instrument(spans::poll(&inner.name)).await;
    }
}

async fn retry(inner: &Inner, l2: &Access) {
    let (asked, until) = (inner.node.coherence.synced_at(), half_a_poll(inner));
    inner.settle_owed(l2).await;
    loop {
        let replication_ids = while_retrying(inner, l2, ask(inner, l2)).await;
        let Some(replication_ids) = replication_ids else { break };
        let Some(more) = reassert(inner, l2, asked, replication_ids).await else { break };
        if !more || Instant::now() >= until {
            retry_pending(inner, l2).await;
            break;
        }
    }
    if inner.node.known().pending == 0 {
        inner.recovery.forget_tag_names();
    }
    super::shadow::verify_samples(inner, l2).await;
}

/// Retries at once, and after each poll that is answered meanwhile. A server that takes its whole
/// timeout does not hold up what another would take. What is sent before the replication ids are
/// known is remembered as a recent write, so it is compared as well.
async fn while_retrying<R>(inner: &Inner, l2: &Access, asking: impl Future<Output = R>) -> R {
    let done = CancellationToken::new();
    let asking = async {
        let answer = asking.await;
        done.cancel();
        answer
    };
    let retrying = async {
        loop {
            retry_pending(inner, l2).await;
            tokio::select! {
                biased;
                () = done.cancelled() => return,
                () = inner.node.answered.notified() => {}
            }
        }
    };
    join(asking, retrying).await.0
}

fn half_a_poll(inner: &Inner) -> Instant {
    Instant::now() + inner.settings.poll / 2
}

/// Sends what waits for L2, many items at a time. It starts nothing after half a poll, so that
/// newer items get their share. It never gives up a send half-way.
pub(super) async fn retry_pending(inner: &Inner, l2: &Access) {
    let until = half_a_poll(inner);
    let removals = rotate_randomly(inner, inner.node.waiting(inner.node.coherence.synced_at()));
    let keys = rotate_randomly(inner, inner.recovery.due(inner.now()));
    let workers = |waiting: usize| 0..waiting.min(CONCURRENCY);
    let (numbering, recovering) = (workers(removals.len()), workers(keys.len()));
    let (removals, keys) = (Mutex::new(removals), Mutex::new(keys));
    let numbering: Vec<_> = numbering.map(|_| number(inner, l2, &removals, until)).collect();
    let recovering: Vec<_> = recovering.map(|_| recover(inner, l2, &keys, until)).collect();
    join(join_all(numbering), join_all(recovering)).await;
}

/// Starts at a random item, so that no item blocks the rest for ever.
fn rotate_randomly<T>(inner: &Inner, mut waiting: Vec<T>) -> Vec<T> {
    let first = inner.entropy.below(waiting.len() as u64);
    let first = usize::try_from(first).unwrap_or(0).min(waiting.len());
    waiting.rotate_left(first);
    waiting
}

fn next<T>(waiting: &Mutex<Vec<T>>, until: Instant) -> Option<T> {
    if Instant::now() < until { waiting.lock().pop() } else { None }
}

async fn number(inner: &Inner, l2: &Access, waiting: &Mutex<Vec<Nonce>>, until: Instant) {
    while let Some(last) = next(waiting, until) {
        let (nonce, limit, mut patience) =
            (inner.entropy.nonce(), inner.l2_limit(), inner.l2_limit());
        let Some(removal) = inner.node.resend(last, nonce) else { continue };
        let _sending = Sending::begin(inner, vec![nonce], limit);
        match removal::number(inner, l2, removal, limit, &mut patience).await {
            Ok(_) => inner.telemetry.faults.sent_removals.add(),
            Err(error) => tracing::debug!(%error, "a removal still waits for its number"),
        }
    }
}

async fn recover(
    inner: &Inner,
    l2: &Access,
    waiting: &Mutex<Vec<(Box<str>, Queued)>>,
    until: Instant,
) {
    while let Some((key, queued)) = next(waiting, until) {
        let span = spans::recover(&inner.telemetry, &key);
        match invalidate(inner, l2, &key, queued).instrument(span).await {
            Ok(()) => {
                inner.recovery.settle(&key, queued.version, inner.now());
                inner.telemetry.faults.sent_keys.add();
                inner.emit(&key, |key| Event::Recovered { key });
            }
            Err(error) => tracing::debug!(%error, "an invalidation still waits for L2"),
        }
    }
}

async fn invalidate(inner: &Inner, l2: &Access, key: &str, queued: Queued) -> Result<(), L2Error> {
    let (hash, limit) = (KeyHash::of(key), inner.l2_limit());
    if l2.is_open(key) {
        // Nothing is sent, so no message may take a sequence number.
        return Err(L2Error::circuit_open());
    }
    inner.notices.open_late_window(inner.now(), limit);
    // Not the version of the failed write: a copy that carries it must go as well.
    let version = inner.entropy.version();
    let op = match queued.strength {
        Strength::Hard => KeyOp::Removed,
        Strength::Soft => KeyOp::Expired,
    };
    let mut outgoing = Outgoing::new(inner, op, version, hash, limit);
    if !l2.holds_records() {
        inner.flights.receive(hash, version, || inner.l1.weaken(hash, queued.strength));
        return match &mut outgoing {
            Some(outgoing) => {
                outgoing.publish().await.then_some(()).ok_or_else(L2Error::unannounced)
            }
            None => Ok(()),
        };
    }
    let announce = outgoing.as_mut().and_then(Outgoing::announce);
    if let Some(outgoing) = &mut outgoing {
        outgoing.before(false).await?;
    }
    let written = match queued.strength {
        Strength::Hard => l2.on(key, limit, |store, key| store.remove(key, announce)).await,
        Strength::Soft => {
            l2.on(key, limit, |store, key| store.expire(key, version, announce)).await
        }
    };
    if let Some(outgoing) = &mut outgoing {
        outgoing.answered(&written).await;
    }
    written?;
    inner.recovery.recent_writes.note(key, version, queued.strength, inner.now());
    inner.flights.receive(hash, version, || inner.l1.weaken(hash, queued.strength));
    if let Some(outgoing) = &mut outgoing {
        outgoing.confirm().await;
    }
    Ok(())
}
