use std::sync::Arc;
use std::time::Duration;

use super::RegionHealth;
use crate::l2::access::Access;
use crate::node::Node;

/// A snapshot of the state of a cache: L2, the backplane, the ledger and the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// The id of this node, as `crinkle watch` prints it. Every start creates a new one.
    pub node: Arc<str>,
    /// Whether the cache has an L2.
    pub has_l2: bool,
    /// Whether L2 answers and the cache uses it. False without an L2, before its first answer, and
    /// while it refuses this client. Also false while a circuit breaker is open, for L2 or for one
    /// of its servers ([`l2_servers`](Health::l2_servers) says which).
    pub l2_up: bool,
    /// The servers of an L2 with several servers, such as the primaries of a cluster, sorted by
    /// name. While the circuit breaker of a server is open, its keys do without L2; other keys are
    /// not affected.
    pub l2_servers: Vec<ServerHealth>,
    /// The replicas that the store reads from, if it does and knows of some.
    pub l2_replicas: Vec<ServerHealth>,
    /// Whether the cache has a backplane.
    pub has_backplane: bool,
    /// Whether a subscription to the backplane is active. False without one.
    pub subscribed: bool,
    /// Whether this node is coherent: within the coherence TTL, L2 answered a poll of the ledger
    /// and the node received its own heartbeat. While false, reads verify entries one by one.
    pub coherent: bool,
    /// The time since the last received heartbeat of this node was sent; `None` if there was none.
    pub last_heartbeat: Option<Duration>,
    /// The number of the newest removal up to which this node knows all removals.
    pub ledger_frontier: u64,
    /// The number of barriers on this node: one per recently removed tag, and at most 65,536
    /// registers for all earlier removals.
    pub ledger_size: usize,
    /// Whether the ledger is unverified until the next poll.
    pub ledger_suspect: bool,
    /// The number of removals by tag and clears that wait for a ledger number.
    pub pending_removals: usize,
    /// The number of keys whose invalidation waits for L2.
    pub recovery_backlog: usize,
    /// The number of other nodes that this node has received messages from.
    pub peers: usize,
    /// The number of keys with a load or write in flight.
    pub in_flight: usize,
    /// The approximate number of entries in L1.
    pub entries: u64,
    /// How long the node has been coherent, by the last poll; `None` if it is not.
    pub coherent_since: Option<Duration>,
    /// How long the node has not been coherent, by the last poll; `None` if it is.
    pub incoherent_since: Option<Duration>,
    /// The time since the last comparison with the ledger; before the first, the time since the
    /// cache was built. `None` without an L2.
    pub ledger_lag: Option<Duration>,
    /// The last failure of L2, if it ever failed.
    pub last_l2_error: Option<LastError>,
    /// The last failure of the backplane, if it ever failed.
    pub last_backplane_error: Option<LastError>,
    /// The state of each other region that this cache relays removals to.
    pub regions: Vec<RegionHealth>,
}

/// The state of one server of L2, as a cache sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerHealth {
    /// The name of the server in the store: host and port.
    pub name: Arc<str>,
    /// Whether the cache uses the server. False while its circuit breaker is open, and for a
    /// replica while the cache does not know it to be in sync.
    pub up: bool,
}

impl ServerHealth {
    /// Creates the state that a store reports for one of its servers.
    #[must_use]
    pub const fn new(name: Arc<str>, up: bool) -> Self {
        Self { name, up }
    }
}

/// The last failure of L2 or of the backplane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// A description without keys or values.
    pub what: Arc<str>,
    /// The time since the failure.
    pub ago: Duration,
}

impl Node {
    pub(crate) fn health(&self) -> Health {
        Health::of(self)
    }
}

impl Health {
    pub(super) fn of(node: &Node) -> Self {
        let (known, now) = (node.coherence.known(), node.now());
        let heartbeat = node.coherence.ttl.last_heartbeat_at();
        let (l2, backplane, (coherent, since)) = {
            let trouble = node.telemetry.trouble.lock();
            (trouble.l2.clone(), trouble.backplane.clone(), trouble.coherent)
        };
        let is_coherent = node.coherence.is_coherent(now);
        let since = match node.l2 {
            Some(_) if coherent == is_coherent => now.since(since),
            // The state changed since the last poll, which recorded it.
            Some(_) => Duration::ZERO,
            None => now.since(node.built),
        };
        let link = node.link.read();
        let answers = |l2: &Access| link.syncs > 0 && !link.l2_refused && !l2.any_is_open();
        let last = |(what, at)| LastError { what, ago: now.since(at) };
        Self {
            node: Arc::clone(&node.id),
            has_l2: node.l2.is_some(),
            l2_up: node.l2.as_ref().is_some_and(answers),
            l2_servers: node.l2.as_ref().map_or_else(Vec::new, servers),
            l2_replicas: node.l2.as_ref().map_or_else(Vec::new, Access::replicas),
            has_backplane: node.bus.is_some(),
            subscribed: link.subscribed,
            coherent: is_coherent,
            last_heartbeat: (heartbeat.as_nanos() != 0).then(|| now.since(heartbeat)),
            ledger_frontier: known.frontier,
            ledger_size: known.barriers,
            ledger_suspect: known.suspect,
            pending_removals: known.pending,
            recovery_backlog: node.recovery.len(),
            peers: node.notices.peers(),
            in_flight: node.flights.len(),
            entries: node.l1.about_len(),
            coherent_since: is_coherent.then_some(since),
            incoherent_since: (!is_coherent).then_some(since),
            ledger_lag: node
                .l2
                .as_ref()
                .map(|_| now.since(node.coherence.ttl.synced_at().max(node.built))),
            last_l2_error: l2.map(last),
            last_backplane_error: backplane.map(last),
            regions: node.regions.health(),
        }
    }
}

fn servers(l2: &Access) -> Vec<ServerHealth> {
    l2.servers().into_iter().map(|(name, up)| ServerHealth { name, up }).collect()
}
