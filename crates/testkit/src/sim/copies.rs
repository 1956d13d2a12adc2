//! Copies of the servers, for nodes that reach another server than the primary.

use std::sync::Arc;

use crinkle_core::l2::MemoryL2;

/// Copies of all servers.
pub(super) type Copies = Vec<MemoryL2>;

/// A node's connection to the old primary.
#[derive(Clone, Debug)]
pub(super) struct Demoted {
    /// The data of that server when it was demoted.
    pub(super) had: Arc<Copies>,
    pub(super) replication_id: u64,
    /// From this time on the server has the data of the new primary.
    pub(super) follows_ms: u64,
    pub(super) until_ms: u64,
    /// Whether the node reconnects as soon as the server refuses a write.
    pub(super) leaves: bool,
}

/// The data of the replicas.
#[derive(Debug, Default)]
pub(super) struct Replica {
    pub(super) has: Option<Arc<Copies>>,
    /// Until this time the data is within the lag.
    pub(super) until_ms: u64,
}

impl Replica {
    /// Returns the data, unless the replicas are too far behind.
    pub(super) fn in_step(&self, now_ms: u64) -> Option<Arc<Copies>> {
        self.has.clone().filter(|_| now_ms <= self.until_ms)
    }
}
