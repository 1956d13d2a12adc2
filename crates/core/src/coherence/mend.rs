//! What waits for L2 goes out once a `SYNC` has been answered. No poll waits for it.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use crate::backplane::message::KeyOp;
use crate::cache::Inner;
use crate::events::Event;
use crate::l2::access::Access;
use crate::l2::{L2Error, L2ErrorKind};
use crate::protocol::KeyHash;
use crate::protocol::ledger::Strength;
use crate::recovery::Queued;
use crate::recovery::reassert::reassert;
use crate::telemetry::spans;
use crate::write::removal;

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
    reassert(inner, l2, inner.node.lease.synced_at()).await;
    repair(inner, l2).await;
    super::shadow::look(inner, l2).await;
}

/// What waits for L2 goes out, each on its own. After half a poll no more is begun: what is new by then
/// has its turn. Begins anywhere, so that nothing stands in the way of the rest for ever.
pub(super) async fn repair<C: Sync>(inner: &Inner<C>, l2: &Access) {
    let limit = inner.l2_limit();
    let until = Instant::now() + inner.settings.poll / 2;
    for pending in inner.node.pending() {
        if Instant::now() >= until {
            return;
        }
        if let Err(error) = removal::number(inner, l2, pending.removal, limit).await {
            tracing::debug!(%error, "a removal still waits for its number");
            if error.is_outage() {
                return;
            }
        }
    }
    let mut due = inner.recovery.due(inner.now());
    let first = inner.entropy.below(due.len() as u64);
    let first = usize::try_from(first).unwrap_or(0).min(due.len());
    due.rotate_left(first);
    for (key, queued) in due {
        if Instant::now() >= until {
            return;
        }
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
