use std::sync::Arc;
use std::time::Duration;

use super::{Inner, RegionHealth};
use crate::l2::access::Access;

/// How a cache stands with L2, the backplane and its peers, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The id of this node, as `crinkle watch` prints it: new with every start.
    pub node: Arc<str>,
    /// Whether the cache has an L2.
    pub has_l2: bool,
    /// Whether L2 answers and is used. False before its first answer, while it refuses this client, while it or
    /// one of its servers is left alone after failures ([`l2_servers`](Health::l2_servers) says which), and
    /// without one.
    pub l2_up: bool,
    /// The servers of an L2 that has several, such as the primaries of a cluster, in the order of their
    /// names. Keys on a server that is left alone do without L2; the others go on as ever.
    pub l2_servers: Vec<ServerHealth>,
    /// The replicas that are read from, where the store reads from replicas and knows of some.
    pub l2_replicas: Vec<ServerHealth>,
    /// Whether the cache has a backplane.
    pub has_backplane: bool,
    /// Whether a subscription to the backplane is in force. False without one.
    pub subscribed: bool,
    /// Whether entries are known to be in step: within the coherence TTL L2 has answered a poll of
    /// the ledger and the own heartbeat was heard. While false, entries are verified one by one.
    pub coherent: bool,
    /// How long ago the last heartbeat that came back was sent; `None` for never.
    pub last_heartbeat: Option<Duration>,
    /// The newest removal below which this node knows all.
    pub ledger_frontier: u64,
    /// How many barriers this node keeps: one per tag removed recent_writes, and at most 65,536 registers
    /// for all that were removed before.
    pub ledger_size: usize,
    /// Whether the ledger is in resync until the next poll.
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
    /// How long it has been coherent, by the last poll; `None` if it is not.
    pub coherent_since: Option<Duration>,
    /// How long it has not been coherent, by the last poll; `None` if it is.
    pub incoherent_since: Option<Duration>,
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

/// How a cache stands with one server of its L2.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerHealth {
    /// Its name, as the store has it: host and port.
    pub name: Arc<str>,
    /// Whether it is being used. False while it is left alone after failures, and of a replica while it is not
    /// known to be in step.
    pub up: bool,
}

impl ServerHealth {
    /// What a store says of one of its servers.
    #[must_use]
    pub const fn new(name: Arc<str>, up: bool) -> Self {
        Self { name, up }
    }
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
        let heartbeat = inner.node.coherence.last_heartbeat_at();
        let (l2, backplane, (coherent, since)) = {
            let trouble = inner.telemetry.trouble.lock();
            (trouble.l2.clone(), trouble.backplane.clone(), trouble.coherent)
        };
        let is_coherent = inner.node.is_coherent(now);
        let since = match inner.l2 {
            Some(_) if coherent == is_coherent => now.since(since),
            // The next poll notices.
            Some(_) => Duration::ZERO,
            None => now.since(inner.built),
        };
        let link = inner.link.read();
        let answers = |l2: &Access| link.syncs > 0 && !link.l2_refused && !l2.any_is_open();
        let last = |(what, at)| LastError { what, ago: now.since(at) };
        Self {
            node: Arc::clone(&inner.id),
            has_l2: inner.l2.is_some(),
            l2_up: inner.l2.as_ref().is_some_and(answers),
            l2_servers: inner.l2.as_ref().map_or_else(Vec::new, servers),
            l2_replicas: inner.l2.as_ref().map_or_else(Vec::new, Access::replicas),
            has_backplane: inner.bus.is_some(),
            subscribed: link.subscribed,
            coherent: is_coherent,
            last_heartbeat: (heartbeat.as_nanos() != 0).then(|| now.since(heartbeat)),
            ledger_frontier: known.frontier,
            ledger_size: known.barriers,
            ledger_suspect: known.suspect,
            pending_removals: known.pending,
            recovery_backlog: inner.recovery.len(),
            peers: inner.notices.peers(),
            in_flight: inner.flights.len(),
            entries: inner.l1.about_len(),
            coherent_since: is_coherent.then_some(since),
            incoherent_since: (!is_coherent).then_some(since),
            ledger_lag: inner
                .l2
                .as_ref()
                .map(|_| now.since(inner.node.coherence.synced_at().max(inner.built))),
            last_l2_error: l2.map(last),
            last_backplane_error: backplane.map(last),
            regions: inner.regions.health(),
        }
    }
}

fn servers(l2: &Access) -> Vec<ServerHealth> {
    l2.servers().into_iter().map(|(name, up)| ServerHealth { name, up }).collect()
}
