use std::time::Duration;

use super::Inner;

/// How a cache stands with L2, the backplane and its peers, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether L2 is being used; `None` without one. False while it is left alone after failures.
    pub l2_up: Option<bool>,
    /// Whether a subscription is in force; `None` without a backplane.
    pub subscribed: Option<bool>,
    /// Whether entries are known to be in step: `SYNC` answered and the own heartbeat heard within
    /// the coherence lease. While false, entries are verified one by one.
    pub coherent: bool,
    /// How long ago the last heartbeat that came back was sent; `None` for never.
    pub last_heard: Option<Duration>,
    /// The newest removal below which this node knows all.
    pub ledger_frontier: u64,
    /// How many tags have a barrier.
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
}

impl Health {
    pub(super) fn of<C>(inner: &Inner<C>) -> Self {
        let (known, now) = (inner.node.known(), inner.now());
        let heard = inner.node.lease.heard_at();
        Self {
            l2_up: inner.l2.as_ref().map(|l2| !l2.is_open()),
            subscribed: inner.bus.as_ref().map(|_| inner.link.borrow().subscribed),
            coherent: now.as_nanos() <= inner.node.lease.until() && !known.suspect,
            last_heard: (heard.as_nanos() != 0).then(|| now.since(heard)),
            ledger_frontier: known.frontier,
            ledger_size: known.barriers,
            ledger_suspect: known.suspect,
            pending_removals: known.pending,
            recovery_backlog: inner.recovery.len(),
            peers: inner.hearsay.peers(),
            in_flight: inner.flights.len(),
        }
    }
}
