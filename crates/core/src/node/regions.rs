//! The regions that a cache relays its removals to.

use std::sync::Arc;

use tokio_util::sync::DropGuard;

use super::Node;
use crate::protocol::ledger::Strength;
use crate::telemetry::RegionHealth;

/// The regions that a cache relays to.
#[derive(Debug, Default)]
pub(crate) struct Regions(pub(crate) Vec<Region>);

/// One region that a cache relays to: a node without entries, with the ledger of the region.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) name: Arc<str>,
    pub(crate) node: Arc<Node>,
    /// Dropped with the cache, which ends the background tasks of the region.
    pub(crate) _closing: DropGuard,
}

/// An invalidation to relay.
#[derive(Clone, Debug)]
pub(crate) enum Relayed {
    Key(Box<str>, Strength),
    Tags(Vec<String>, Strength),
    Everything(Strength),
}

impl Regions {
    pub(crate) fn health(&self) -> Vec<RegionHealth> {
        let health = |region: &Region| RegionHealth {
            name: Arc::clone(&region.name),
            health: region.node.health(),
        };
        self.0.iter().map(health).collect()
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.0.iter().map(|region| &region.node)
    }
}
