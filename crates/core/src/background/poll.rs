//! Every P: sends the heartbeat, and a `SYNC` at the same time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use crate::backplane::publish::Bus;
use crate::clock::Moment;
use crate::coherence::{Coherence, HeartbeatMonitor, Liveness};
use crate::events::LedgerTrouble;
use crate::l2::access::Access;
use crate::l2::{L2Error, L2ErrorKind};
use crate::node::Node;
use crate::protocol::resync::ResyncReason;
use crate::telemetry::{Fault, TARGET, spans};

/// How many items one `SYNC` reply may hold.
const PAGE: usize = 4096;

/// The minimum time between two polls.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// How many questions in a row one poll may send, before it waits for the next poll.
const ROUNDS: usize = 256;

/// Polls until the cache closes.
pub(crate) async fn run(node: Arc<Node>) {
    let Some(l2) = &node.l2 else { return };
    let (mut published, mut heartbeats) =
        (Published::default(), HeartbeatMonitor::new(node.settings.poll));
    let mut closing = pin!(node.closing.cancelled());
    loop {
        let started = Instant::now();
        tick(&node, l2, &mut published, &mut heartbeats).instrument(spans::poll(&node.name)).await;
        node.watch_coherence();
        node.telemetry.report_lasting_faults(node.waiting());
        let next = started + node.settings.poll;
        let next = heartbeats.due(started).map_or(next, |due| due.min(next));
        tokio::select! {
            biased;
            () = &mut closing => return,
            () = wanted(&node, started) => {}
            () = sleep_until(next.max(started + LEAST_PAUSE)) => {}
        }
    }
}

/// Probes the servers of L2 whose circuit breaker is open, every P, until the cache closes. The
/// poll asks the server that holds the ledger.
pub(crate) async fn probe_servers(node: Arc<Node>) {
    let Some(l2) = &node.l2 else { return };
    let probing = async {
        loop {
            l2.probe_wanted().await;
            let started = Instant::now();
            if l2.probe(node.l2_limit()).await {
                node.resync(ResyncReason::L2Back);
            }
            sleep_until((started + node.settings.poll).max(Instant::now() + LEAST_PAUSE)).await;
        }
    };
    tokio::select! {
        biased;
        () = node.closing.cancelled() => {}
        () = probing => {}
    }
}

/// Waits for a request for a `SYNC`. However often messages of a peer request one, it is not sent
/// more often than this.
async fn wanted(node: &Node, started: Instant) {
    node.coherence.sync_wanted.notified().await;
    sleep_until(started + LEAST_PAUSE).await;
}

async fn tick(
    node: &Node,
    l2: &Access,
    published: &mut Published,
    heartbeats: &mut HeartbeatMonitor,
) {
    let (asked, now) = (node.now(), Instant::now());
    let bus = node.bus.as_ref().inspect(|_| heartbeats.sent(asked, now));
    let publishing = async {
        match bus {
            Some(bus) => publish_heartbeat(node, bus, asked, published).await,
            None => false,
        }
    };
    let syncing = async {
        match sync(node, l2, asked).await {
            Ok(()) => {
                node.believe();
                check_heartbeats(node, heartbeats, now);
                node.coherence.answered.notify_one();
            }
            Err(error) => {
                let refused = error.kind() == L2ErrorKind::Denied;
                node.link
                    .modify(|link| (link.failures, link.l2_refused) = (link.failures + 1, refused));
                tracing::debug!(cache = &*node.name, %error, "the ledger did not answer");
            }
        }
    };
    if let Some(resync) = node.notices.resync(node.now()) {
        node.resync(resync);
    }
    // At the same time: a bus that hangs must not delay the detection of a lost subscription.
    let (published, ()) = join(publishing, syncing).await;
    if published {
        heartbeats.published(asked);
    }
}

/// The sequence number that was last announced to other nodes, and when.
#[derive(Default)]
struct Published {
    next: u64,
    at: Moment,
}

/// Sends the heartbeat to this node, and announces its sequence number to the others. It announces
/// the number when it has changed, and every ten polls, for nodes that lost both the last message
/// and its number. It takes a poll at most, so that the next one is not late. True if the bus has
/// accepted the heartbeat.
async fn publish_heartbeat(
    node: &Node,
    bus: &Bus,
    asked: Moment,
    published: &mut Published,
) -> bool {
    let limit = node.l2_limit().min(node.settings.poll);
    let next = bus.next();
    let repeat = asked.since(published.at) >= node.settings.poll * 10;
    let due = published.next != next || (repeat && !sabotaged!(SequencePublishedOnce));
    let emit = async {
        bus.void_again(limit).await;
        if due && bus.publish_sequence(limit).await.is_ok() {
            *published = Published { next, at: asked };
        }
    };
    let (beat, ()) = join(bus.beat(asked.as_nanos(), limit), emit).await;
    let refused = beat.as_ref().is_err_and(crate::backplane::BackplaneError::is_refused);
    let link = node.link.read();
    if !link.spoken || link.publish_refused != refused {
        node.link.modify(|link| (link.spoken, link.publish_refused) = (true, refused));
    }
    match &beat {
        Err(error) if refused => {
            node.telemetry.fault(Fault::PublishRefused, &error.to_string());
        }
        Err(error) => {
            tracing::debug!(cache = &*node.name, %error, "the heartbeat could not be sent");
        }
        Ok(()) => node.telemetry.fault_over(Fault::PublishRefused),
    }
    beat.is_ok()
}

/// Compares the replica with the ledger until nothing is left to ask.
pub(super) async fn sync(node: &Node, l2: &Access, asked: Moment) -> Result<(), L2Error> {
    let _guard = node.coherence.turn().await;
    compare(node, l2, asked).await
}

/// The same, for a caller that holds the `SYNC` mutex.
pub(crate) async fn compare(node: &Node, l2: &Access, asked: Moment) -> Result<(), L2Error> {
    let mut round =
        Round { coherence: &node.coherence, at: node.coherence.rounds.ask(), answered: false };
    ask_all(node, l2, asked).await?;
    round.answered = true;
    // Dropped before the tasks that wait for it wake up.
    drop(round);
    node.counters.syncs.add();
    node.coherence.ttl.synced(asked);
    node.link.modify(|link| (link.syncs, link.l2_refused) = (link.syncs + 1, false));
    Ok(())
}

/// One comparison with the ledger. Without a reply, or if its caller is dropped, the next one
/// starts over.
struct Round<'a> {
    coherence: &'a Coherence,
    at: u64,
    answered: bool,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if self.answered {
            self.coherence.rounds.answer(self.at);
        } else {
            self.coherence.abandon();
        }
    }
}

async fn ask_all(node: &Node, l2: &Access, asked: Moment) -> Result<(), L2Error> {
    for _ in 0..ROUNDS {
        let ask = node.coherence.ask(node.entropy.epoch(), PAGE, node.retention_ms());
        let (reply, was_open) = l2.sync(&ask, node.l2_limit()).await?;
        if was_open {
            node.resync(ResyncReason::L2Back);
        }
        node.coherence.dated(&reply, asked);
        let synced = node.coherence.synced(&reply, || node.entropy.nonce());
        if synced.new_epoch && ask.epoch.is_some() {
            node.ledger_trouble(&node.counters.epochs, LedgerTrouble::Replaced);
            let cache = &*node.name;
            tracing::warn!(
                target: TARGET, cache, server = node.telemetry.l2_server.as_deref(),
                "L2 has a new ledger of removals, as after a restart, a flush or an eviction; what was \
                 loaded before is loaded again. `crinkle doctor` names the causes"
            );
        }
        if synced.forked {
            node.ledger_trouble(&node.counters.forks, LedgerTrouble::Forked);
            let cache = &*node.name;
            tracing::warn!(
                target: TARGET, cache, server = node.telemetry.l2_server.as_deref(),
                "a failover of L2 lost removals and issued their numbers again; this node clears what it holds"
            );
        }
        for _ in &synced.reissue {
            node.ledger_trouble(&node.counters.reissues, LedgerTrouble::Reissued);
        }
        if !synced.again {
            break;
        }
    }
    Ok(())
}

/// Checks the heartbeats after L2 has answered. If they do not come back, the subscription is lost,
/// and this node's entries must be verified.
fn check_heartbeats(node: &Node, heartbeats: &mut HeartbeatMonitor, now: Instant) {
    let liveness = heartbeats.listen(&node.coherence.ttl, now);
    let subscribed = node.link.read().subscribed;
    if sabotaged!(LostSubscriptionUnnoticed) {
        return;
    }
    match liveness {
        Liveness::Alive => {}
        Liveness::Gap => node.resync(ResyncReason::MessageLost),
        Liveness::Lost => {
            node.resync(ResyncReason::SubscriptionLost);
            if subscribed {
                node.notices.resubscribe.notify_one();
            }
        }
    }
}
