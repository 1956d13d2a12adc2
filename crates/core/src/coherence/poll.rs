//! Every P: the heartbeat, and beside it the `SYNC`.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::ears::{Ears, Heard};
use super::mend::repair;
use crate::backplane::publish::Bus;
use crate::cache::Inner;
use crate::clock::Moment;
use crate::events::LedgerTrouble;
use crate::l2::L2Error;
use crate::l2::access::Access;
use crate::protocol::session::Doubt;
use crate::telemetry::spans;

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
    let bus = inner.bus.as_ref().inspect(|_| ears.sent(asked, now));
    let speaking = async {
        match bus {
            Some(bus) => speak(inner, bus, asked, told).await,
            None => false,
        }
    };
    let asking = async {
        match sync(inner, l2, asked).await {
            Ok(()) => {
                listen_check(inner, ears, now);
                inner.node.answered.notify_one();
            }
            Err(error) => {
                inner.counters.l2_errors.add();
                inner.link.modify(|link| link.failures += 1);
                tracing::debug!(%error, "the ledger did not answer");
            }
        }
    };
    if let Some(doubt) = inner.hearsay.doubt(inner.now()) {
        inner.doubt(doubt);
    }
    // Beside each other: a bus that hangs must not keep this node from noticing that it is deaf.
    let (published, ()) = join(speaking, asking).await;
    if published {
        ears.published(asked);
    }
}

/// What the others were told last of how far our sequence has come.
#[derive(Default)]
struct Told {
    next: u64,
    at: Moment,
}

/// The heartbeat to ourselves, and to the others how far our sequence has come: when it has moved, and
/// every ten polls, for those who have lost the last message and that news of it. For a poll at most, so
/// that the next one is not late. True if the bus has taken the heartbeat.
async fn speak<C: Sync>(inner: &Inner<C>, bus: &Bus, asked: Moment, told: &mut Told) -> bool {
    let limit = inner.l2_limit().min(inner.settings.poll);
    let next = bus.next();
    let again = asked.since(told.at) >= inner.settings.poll * 10;
    let due = told.next != next || (again && !sabotaged!(SequenceToldOnce));
    let tell = async {
        if due && bus.tell_sequence(limit).await.is_ok() {
            *told = Told { next, at: asked };
        }
    };
    let (beat, ()) = join(bus.beat(asked.as_nanos(), limit), tell).await;
    if let Err(error) = &beat {
        tracing::debug!(%error, "the heartbeat could not be sent");
    }
    beat.is_ok()
}

/// Compares the replica with the ledger until there is nothing left to ask.
async fn sync<C: Sync>(inner: &Inner<C>, l2: &Access, asked: Moment) -> Result<(), L2Error> {
    let _turn = inner.node.asking.lock().await;
    let answered = ask_all(inner, l2, asked).await;
    match &answered {
        Ok(()) => {
            inner.counters.syncs.add();
            inner.node.lease.synced(asked);
            inner.link.modify(|link| link.syncs += 1);
        }
        Err(_) => inner.node.abandon(),
    }
    answered
}

async fn ask_all<C: Sync>(inner: &Inner<C>, l2: &Access, asked: Moment) -> Result<(), L2Error> {
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

/// One more attempt at everything that waits, before the cache closes. True if nothing is left.
pub(crate) async fn drain<C: Sync>(inner: &Inner<C>) -> bool {
    if let Some(l2) = &inner.l2
        && sync(inner, l2, inner.now()).await.is_ok()
    {
        repair(inner, l2).await;
    }
    inner.recovery.len() == 0 && inner.node.known().pending == 0
}
