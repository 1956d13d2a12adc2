use std::sync::Arc;
use std::time::Duration;

use super::{Inner, RegionHealth};

/// How a cache stands with L2, the backplane and its peers, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether L2 is being used; `None` without one. False while it is left alone after failures.
    pub l2_up: Option<bool>,
    /// Whether a subscription is in force; `None` without a backplane.
    pub subscribed: Option<bool>,
    /// Whether entries are known to be in step: within the coherence lease L2 has answered a poll of
    /// the ledger and the own heartbeat was heard. While false, entries are verified one by one.
    pub coherent: bool,
    /// How long ago the last heartbeat that came back was sent; `None` for never.
    pub last_heard: Option<Duration>,
    /// The newest removal below which this node knows all.
    pub ledger_frontier: u64,
    /// How many barriers this node keeps: one per tag removed lately, and at most 65,536 registers
    /// for all that were removed before.
    pub ledger_size: usize,
    /// Whether the ledger is in doubt until the next poll.
    pub ledger_suspect: bool,
    /// Removals by tag or clear that wait for a number.
    pub pending_removals: usize,
    /// Keys whose invalidation waits for L2.
    pub recovery_backlog: usize,
    /// Other nodes heard of.
    pub peers: usize,
    /// Keys being loaded or written right now.
    pub in_flight: usize,
    /// About how many entries L1 holds.
    pub entries: u64,
    /// How long what [`coherent`](Health::coherent) said at the last poll has been so.
    pub coherent_since: Duration,
    /// How old the last comparison with the ledger is; counted from the origin of the clock before
    /// the first. `None` without an L2.
    pub ledger_lag: Option<Duration>,
    /// The last failure of L2, if it ever failed.
    pub last_l2_error: Option<LastError>,
    /// The last failure of the backplane, if it ever failed.
    pub last_backplane_error: Option<LastError>,
    /// The other regions that removals are relayed to.
    pub regions: Vec<RegionHealth>,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// What happened. Names no key and no value.
    pub what: Arc<str>,
    /// How long ago.
    pub ago: Duration,
}

impl<C> Inner<C> {
    pub(crate) fn health(&self) -> Health {
        Health::of(self)
    }
}

impl Health {
    pub(super) fn of<C>(inner: &Inner<C>) -> Self {
        let (known, now) = (inner.node.known(), inner.now());
        let heard = inner.node.lease.heard_at();
        let (l2, backplane, since) = {
            let trouble = inner.telemetry.trouble.lock();
            (trouble.l2.clone(), trouble.backplane.clone(), trouble.coherent.1)
        };
        let last = |(what, at)| LastError { what, ago: now.since(at) };
        Self {
            l2_up: inner.l2.as_ref().map(|l2| !l2.is_open()),
            subscribed: inner.bus.as_ref().map(|_| inner.link.read().subscribed),
            coherent: inner.node.is_coherent(now),
            last_heard: (heard.as_nanos() != 0).then(|| now.since(heard)),
            ledger_frontier: known.frontier,
            ledger_size: known.barriers,
            ledger_suspect: known.suspect,
            pending_removals: known.pending,
            recovery_backlog: inner.recovery.len(),
            peers: inner.hearsay.peers(),
            in_flight: inner.flights.len(),
            entries: inner.l1.about_len(),
            coherent_since: now.since(since),
            ledger_lag: inner
                .l2
                .as_ref()
                .map(|_| now.since(inner.node.lease.synced_at().max(inner.built))),
            last_l2_error: l2.map(last),
            last_backplane_error: backplane.map(last),
            regions: inner.regions.health(),
        }
    }
}
