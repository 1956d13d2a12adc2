//! The names of servers and buses, and their state.

use std::fmt;
use std::sync::Arc;

use crate::error::L2Error;

/// A server of L2 by its name in the store; `None` if the store has one server, or
/// does not know its servers yet.
pub(crate) type Server = Option<Arc<str>>;

/// A server and its replication id, or why it did not report one.
pub(crate) type ReplicationId = (Server, Result<Option<u64>, L2Error>);

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

/// The name of a message bus: a store and a backplane with equal names reach the same subscribers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BusId(String);

impl BusId {
    /// Names a bus by its address.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self(address.into())
    }
}

impl fmt::Display for BusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
