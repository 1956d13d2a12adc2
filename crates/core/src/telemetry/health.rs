//! The report of [`Cache::health`](crate::Cache::health).

use std::sync::Arc;
use std::time::Duration;

use crate::server::ServerHealth;

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

/// The last failure of L2 or of the backplane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// A description without keys or values.
    pub what: Arc<str>,
    /// The time since the failure.
    pub ago: Duration,
}

/// The state of another region, as a cache sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionHealth {
    /// The name of the region.
    pub name: Arc<str>,
    /// The state of its L2 and backplane for this node. `recovery_backlog` and `pending_removals`
    /// count what is not relayed yet.
    pub health: Health,
}
