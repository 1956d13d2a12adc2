//! Relays removals to other regions, each with servers of its own.
//!
//! A removal is relayed as an operation, and each region's ledger numbers it. For this, a node
//! keeps a cache without entries for every region. That cache has the region's ledger, heartbeat
//! and recovery queue. So a region that does not answer delays no call and misses no removal.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Cache, Health};
use crate::backplane::Backplane;
use crate::coherence::poll::drain;
use crate::error::{Error, ErrorKind, Place};
use crate::l2::{L2, NoCodec};
use crate::node::Node;
use crate::options::{EntryOptions, Settings};
use crate::protocol::ledger::{Strength, Target};
use crate::recovery::Queued;
use crate::telemetry::TARGET;
use crate::write::{self, removal};

/// A region as configured in the builder.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) l2: Arc<dyn L2>,
    pub(super) backplane: Arc<dyn Backplane>,
}

impl Parts {
    /// Checks that the region is distinguishable from home. If a region were mistaken for another
    /// one, it would remove the values that the cache sets.
    pub(super) fn check(&self, place: &Place) -> Result<(), Error> {
        if self.l2.bus().is_some() {
            return Ok(());
        }
        let what = format!(
            "the L2 of region {:?} names no bus, so the cache cannot distinguish it from its own L2; use an \
             L2 that announces its writes, such as Redis",
            self.name
        );
        Err(Error::new(ErrorKind::InvalidOptions, place.clone(), what))
    }

    /// Whether this is the region of the cache itself, so that all nodes can have the same list.
    pub(super) fn is_home(&self, home: &Arc<dyn L2>) -> bool {
        self.l2.bus() == home.bus()
    }
}

/// Returns the settings and options for the cache of a region. From home they take how long
/// barriers are kept. Other options of home do not apply, such as its skipped levels or its short
/// timeouts for a server nearby.
pub(super) fn region_options(settings: &Settings, home: &EntryOptions) -> (Settings, EntryOptions) {
    let far = EntryOptions::default().factory_deadline(home.factory_deadline);
    let limit = far.l2_hard_timeout.max(home.l2_hard_timeout);
    let least = settings.poll.saturating_add(limit).saturating_mul(2);
    let settings = settings.clone().capacity(1).coherence_ttl(settings.coherence_ttl.max(least));
    (settings, far.l2_hard_timeout(limit))
}

/// The regions that a cache relays to.
#[derive(Debug, Default)]
pub(crate) struct Regions(pub(super) Vec<Region>);

/// One region that a cache relays to.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) name: Arc<str>,
    pub(super) cache: Cache<NoCodec>,
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

/// An invalidation to relay.
#[derive(Clone, Debug)]
pub(crate) enum Relayed {
    Key(Box<str>, Strength),
    Tags(Vec<String>, Strength),
    Everything(Strength),
}

impl Regions {
    pub(super) fn health(&self) -> Vec<RegionHealth> {
        let health = |region: &Region| RegionHealth {
            name: Arc::clone(&region.name),
            health: region.cache.health(),
        };
        self.0.iter().map(health).collect()
    }

    pub(super) fn caches(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.0.iter().map(|region| region.cache.node())
    }

    /// Makes the first attempt to send what is pending for the regions.
    pub(super) async fn drain(&self) {
        join_all(self.caches().map(|node| drain(node))).await;
    }

    /// Stops the regions from starting new work; waits for what still runs.
    pub(super) async fn end(&self) {
        self.caches().for_each(|node| node.shut());
        join_all(self.caches().map(|node| node.ended())).await;
    }

    /// Makes the last attempt to send what is pending.
    pub(super) async fn drain_rest(&self) {
        join_all(self.caches().map(|node| node.drain_rest())).await;
    }

    /// Returns one message for each region with pending invalidations.
    pub(super) fn lost(&self) -> Vec<String> {
        self.caches().filter_map(|node| Some(node.lost(Vec::new())?.to_string())).collect()
    }
}

impl Node {
    /// Relays an invalidation to the other regions in the background. If a region does not answer,
    /// the invalidation waits in the queue of that region. So does one that comes while this cache
    /// is closing.
    pub(crate) fn relay(&self, what: impl Fn() -> Relayed) {
        for region in &self.regions.0 {
            let (node, what) = (Arc::clone(region.cache.node()), what());
            let Ok(runtime) = self.runtime() else {
                if node.closing.is_cancelled() {
                    let region = &*region.name;
                    tracing::warn!(
                        target: TARGET, cache = &*self.name, region,
                        "the cache is closing; a removal is queued for another region"
                    );
                }
                queue(&node, what);
                continue;
            };
            // Not a task of the region's cache: those end when it closes, and this task runs before
            // that.
            let relaying = Relaying { node, what: Some(what) };
            self.tasks.spawn_behind(Box::pin(relaying.run()), &runtime);
        }
    }
}

/// An invalidation in flight to another region. If dropped before it is sent, it is queued there.
struct Relaying {
    node: Arc<Node>,
    what: Option<Relayed>,
}

impl Relaying {
    async fn run(mut self) {
        if let Some(what) = &self.what {
            relay(&self.node, what).await;
        }
        self.what = None;
    }
}

impl Drop for Relaying {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            queue(&self.node, what);
        }
    }
}

/// Queues an invalidation for the region's next poll, or for its close.
fn queue(node: &Node, what: Relayed) {
    match what {
        Relayed::Key(key, strength) => {
            let (version, not_before) = (node.entropy.version(), node.now());
            node.queue(&key, Queued { strength, version, not_before });
        }
        Relayed::Tags(tags, strength) => {
            drop(removal::begin(node, strength, &removal::targets(&tags)));
        }
        Relayed::Everything(strength) => {
            drop(removal::begin(node, strength, &[Target::Everything]));
        }
    }
}

async fn relay(node: &Arc<Node>, what: &Relayed) {
    let options = EntryOptions::clone(&node.defaults);
    let done = match what {
        Relayed::Key(key, Strength::Hard) => write::remove(node, key, &options).await,
        Relayed::Key(key, Strength::Soft) => write::expire(node, key, &options).await,
        Relayed::Tags(tags, strength) => removal::by_tags(node, *strength, tags, &options).await,
        Relayed::Everything(strength) => removal::clear(node, *strength, &options).await,
    };
    if let Err(error) = done {
        tracing::warn!(target: TARGET, %error, "a removal did not reach another region");
    }
}
