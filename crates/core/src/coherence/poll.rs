//! Every P: the heartbeat, the `SYNC`, and whatever has to be repaired.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::ears::{Ears, Heard};
use crate::backplane::message::KeyOp;
use crate::backplane::publish::Bus;
use crate::cache::Inner;
use crate::clock::Moment;
use crate::events::{Event, LedgerTrouble};
use crate::l2::access::Access;
use crate::l2::{L2Error, L2ErrorKind};
use crate::protocol::KeyHash;
use crate::protocol::ledger::Strength;
use crate::protocol::session::Doubt;
use crate::recovery::Queued;
use crate::recovery::reassert::reassert;
use crate::telemetry::spans;
use crate::write::removal;

/// How many items one `SYNC` answer may hold.
const PAGE: usize = 4096;

/// The least time between two polls.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// How often in a row one tick may ask again, before it waits for the next.
const ROUNDS: usize = 256;

/// Polls until the cache closes.
pub(crate) async fn run<C: Send + Sync + 'static>(inner: Arc<Inner<C>>) {
    let Some(l2) = &inner.l2 else { return };
    let (mut told, mut ears) = (Told::default(), Ears::new(inner.settings.poll));
    let mut closing = pin!(inner.closing.cancelled());
    loop {
        let started = Instant::now();
        tick(&inner, l2, &mut told, &mut ears).instrument(spans::poll(&inner.name)).await;
        inner.watch_coherence();
        let next = started + inner.settings.poll;
        let next = ears.due(started).map_or(next, |due| due.min(next));
        tokio::select! {
            biased;
            () = &mut closing => return,
            () = wanted(&inner, started) => {}
            () = sleep_until(next.max(started + LEAST_PAUSE)) => {}
        }
    }
}

/// Somebody wants a `SYNC`. However often a peer's messages ask for one, it is not sent more often than this.
async fn wanted<C: Sync>(inner: &Inner<C>, started: Instant) {
    inner.node.sync_wanted.notified().await;
    sleep_until(started + LEAST_PAUSE).await;
}

async fn tick<C: Sync>(inner: &Inner<C>, l2: &Access, told: &mut Told, ears: &mut Ears) {
    let (asked, now) = (inner.now(), Instant::now());
    if let Some(bus) = &inner.bus {
        ears.sent(asked, now);
        if speak(inner, bus, asked, told).await {
            ears.published();
        }
    }
    if let Some(doubt) = inner.hearsay.doubt(inner.now()) {
        inner.doubt(doubt);
    }
    if let Err(error) = sync(inner, l2, asked).await {
        inner.node.abandon();
        inner.counters.l2_errors.add();
        inner.link.modify(|link| link.failures += 1);
        tracing::debug!(%error, "the ledger did not answer");
        return;
    }
    listen_check(inner, ears, now);
    reassert(inner, l2, asked).await;
    repair(inner, l2).await;
    super::shadow::look(inner, l2).await;
}

/// What the others were told last of how far our sequence has come.
#[derive(Default)]
struct Told {
    next: u64,
    at: Moment,
}

/// The heartbeat to ourselves, and to the others how far our sequence has come: when it has moved, and
/// every ten polls, for those who have lost the last message and that news of it.
/// True if the bus has taken the heartbeat.
async fn speak<C: Sync>(inner: &Inner<C>, bus: &Bus, asked: Moment, told: &mut Told) -> bool {
    let limit = inner.l2_limit();
    if let Err(error) = bus.beat(asked.as_nanos(), limit).await {
        tracing::debug!(%error, "the heartbeat could not be sent");
        return false;
    }
    let next = bus.next();
    let again = asked.since(told.at) >= inner.settings.poll * 10;
    let due = told.next != next || (again && !sabotaged!(SequenceToldOnce));
    if due && bus.tell_sequence(limit).await.is_ok() {
        *told = Told { next, at: asked };
    }
    true
}

/// Compares the replica with the ledger until there is nothing left to ask.
async fn sync<C: Sync>(inner: &Inner<C>, l2: &Access, asked: Moment) -> Result<(), L2Error> {
    for _ in 0..ROUNDS {
        let ask = inner.node.ask(inner.entropy.epoch(), PAGE, inner.retention_ms());
        let (reply, was_open) = l2.sync(&ask, inner.l2_limit()).await?;
        if was_open {
            inner.doubt(Doubt::L2Back);
        }
        inner.node.dated(&reply, asked);
        let synced = inner.node.synced(&reply, || inner.entropy.nonce());
        if synced.new_epoch && ask.epoch.is_some() {
            inner.ledger_trouble(&inner.counters.epochs, LedgerTrouble::Replaced);
            tracing::warn!("the barrier ledger is another than before; older entries are invalid");
        }
        if synced.forked {
            inner.ledger_trouble(&inner.counters.forks, LedgerTrouble::Forked);
            tracing::warn!("the server had issued numbers twice after a failover; clearing");
        }
        for _ in &synced.reissue {
            inner.ledger_trouble(&inner.counters.reissues, LedgerTrouble::Reissued);
        }
        if !synced.again {
            break;
        }
    }
    inner.counters.syncs.add();
    inner.node.lease.synced(asked);
    inner.link.modify(|link| link.syncs += 1);
    Ok(())
}

/// L2 answers: if the own heartbeat does not come back, this node's ears are gone, and what it holds
/// must be verified.
fn listen_check<C>(inner: &Inner<C>, ears: &mut Ears, now: Instant) {
    let heard = ears.listen(&inner.node.lease, now);
    let subscribed = inner.link.read().subscribed;
    if sabotaged!(DeafnessUnnoticed) {
        return;
    }
    match heard {
        Heard::Well => {}
        Heard::Gap => inner.doubt(Doubt::MessageLost),
        Heard::Nothing => {
            inner.doubt(Doubt::Deaf);
            if subscribed {
                inner.hearsay.resubscribe.notify_one();
            }
        }
    }
}

/// L2 answers: what waited for it goes out, each on its own, for half a poll at most, so that the next
/// poll is not late. Begins anywhere, so that nothing stands in the way of the rest for ever.
async fn repair<C: Sync>(inner: &Inner<C>, l2: &Access) {
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

/// One more attempt at everything that waits, before the cache closes. True if nothing is left.
pub(crate) async fn drain<C: Sync>(inner: &Inner<C>) -> bool {
    if let Some(l2) = &inner.l2
        && sync(inner, l2, inner.now()).await.is_ok()
    {
        repair(inner, l2).await;
    }
    inner.recovery.len() == 0 && inner.node.known().pending == 0
}
