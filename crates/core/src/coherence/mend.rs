//! What waits for L2 goes out once a `SYNC` has been answered. No poll waits for it.

use std::sync::Arc;

use futures_util::future::{join, join_all};
use tokio::time::Instant;
use tracing::Instrument;

use crate::backplane::message::KeyOp;
use crate::cache::Inner;
use crate::events::Event;
use crate::l2::access::Access;
use crate::l2::{L2Error, L2ErrorKind};
use crate::protocol::KeyHash;
use crate::protocol::ledger::{Pending, Strength};
use crate::recovery::Queued;
use crate::recovery::reassert::reassert;
use crate::sync::Mutex;
use crate::telemetry::spans;
use crate::write::removal;

/// How many keys, and how many removals, are under way at once.
const ABREAST: usize = 64;

/// Repairs after each poll that was answered, until the cache closes.
pub(crate) async fn run<C: Send + Sync + 'static>(inner: Arc<Inner<C>>) {
    let Some(l2) = &inner.l2 else { return };
    loop {
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => return,
            () = inner.node.answered.notified() => {}
        }
        mend(&inner, l2).instrument(spans::poll(&inner.name)).await;
    }
}

async fn mend<C: Sync>(inner: &Inner<C>, l2: &Access) {
    let (asked, until) = (inner.node.lease.synced_at(), half_a_poll(inner));
    loop {
        let more = reassert(inner, l2, asked, until).await;
        repair(inner, l2).await;
        if !more || Instant::now() >= until {
            break;
        }
    }
    super::shadow::look(inner, l2).await;
}

fn half_a_poll<C>(inner: &Inner<C>) -> Instant {
    Instant::now() + inner.settings.poll / 2
}

/// What waits for L2 goes out, many at a time. After half a poll no more is begun: what is new by then
/// has its turn. What has begun is never given up half-way.
pub(super) async fn repair<C: Sync>(inner: &Inner<C>, l2: &Access) {
    let until = half_a_poll(inner);
    let removals = from_anywhere(inner, inner.node.pending());
    let keys = from_anywhere(inner, inner.recovery.due(inner.now()));
    let abreast = |waiting: usize| 0..waiting.min(ABREAST);
    let (numbering, recovering) = (abreast(removals.len()), abreast(keys.len()));
    let (removals, keys) = (Mutex::new(removals), Mutex::new(keys));
    let numbering: Vec<_> = numbering.map(|_| number(inner, l2, &removals, until)).collect();
    let recovering: Vec<_> = recovering.map(|_| recover(inner, l2, &keys, until)).collect();
    join(join_all(numbering), join_all(recovering)).await;
}

/// Begins anywhere, so that nothing stands in the way of the rest for ever.
fn from_anywhere<C, T>(inner: &Inner<C>, mut waiting: Vec<T>) -> Vec<T> {
    let first = inner.entropy.below(waiting.len() as u64);
    let first = usize::try_from(first).unwrap_or(0).min(waiting.len());
    waiting.rotate_left(first);
    waiting
}

fn next<T>(waiting: &Mutex<Vec<T>>, until: Instant) -> Option<T> {
    if Instant::now() < until { waiting.lock().pop() } else { None }
}

async fn number<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    waiting: &Mutex<Vec<Pending>>,
    until: Instant,
) {
    while let Some(pending) = next(waiting, until) {
        if let Err(error) = removal::number(inner, l2, pending.removal, inner.l2_limit()).await {
            tracing::debug!(%error, "a removal still waits for its number");
        }
    }
}

async fn recover<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    waiting: &Mutex<Vec<(Box<str>, Queued)>>,
    until: Instant,
) {
    while let Some((key, queued)) = next(waiting, until) {
        let span = spans::recover(&inner.telemetry, &key);
        match invalidate(inner, l2, &key, queued).instrument(span).await {
            Ok(()) => {
                inner.recovery.settle(&key, queued.version, inner.now());
                inner.tell(&key, |key| Event::Recovered { key });
            }
            Err(error) => tracing::debug!(%error, "an invalidation still waits for L2"),
        }
    }
}

async fn invalidate<C: Sync>(
    inner: &Inner<C>,
    l2: &Access,
    key: &str,
    queued: Queued,
) -> Result<(), L2Error> {
    let (hash, limit) = (KeyHash::of(key), inner.l2_limit());
    inner.hearsay.straggle(inner.now());
    // Not the version of the write that failed: a copy that carries it must go as well.
    let version = inner.entropy.version();
    let op = match queued.strength {
        Strength::Hard => KeyOp::Removed,
        Strength::Soft => KeyOp::Expired,
    };
    let announced = inner.bus.as_ref().and_then(|bus| bus.announce(op, version, hash));
    let announce = announced.map(|(_, announce)| announce);
    if let Some(bus) = inner.bus.as_ref().filter(|_| l2.holds_records()) {
        let _ = bus.publish_key(KeyOp::Before, version, hash, limit).await;
    }
    match queued.strength {
        _ if !l2.holds_records() => {}
        Strength::Hard => l2.on(key, limit, |store, key| store.remove(key, announce)).await?,
        Strength::Soft => {
            l2.on(key, limit, |store, key| store.expire(key, version, announce)).await?;
        }
    }
    if l2.holds_records() {
        inner.recovery.lately.note(key, version, queued.strength, inner.now());
    }
    inner.flights.hear(hash, version, || inner.l1.weaken(hash, queued.strength));
    if let Some(bus) = &inner.bus {
        let told = bus.publish_key(op, version, hash, limit).await;
        if !l2.holds_records() {
            told.map_err(|error| L2Error::new(L2ErrorKind::Disconnected, error.to_string()))?;
        }
    }
    Ok(())
}
