//! Other regions, each with a server of its own: what is removed here is removed there.
//!
//! A removal is relayed as an operation and numbered anew by each region's ledger. For that a node keeps
//! a cache without entries in every region: it has that region's ledger, heartbeat and recovery queue,
//! so that a region that does not answer delays nobody and misses nothing.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Cache, Health, Inner};
use crate::backplane::Backplane;
use crate::coherence::poll::drain;
use crate::error::{Error, ErrorKind, Place};
use crate::l2::{L2, NoCodec};
use crate::options::{EntryOptions, Settings};
use crate::protocol::ledger::{Strength, Target};
use crate::recovery::Queued;
use crate::telemetry::TARGET;
use crate::write::{self, removal};

/// A region as the builder was given it.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) l2: Arc<dyn L2>,
    pub(super) backplane: Arc<dyn Backplane>,
}

impl Parts {
    /// Whether it can be told from home. A region taken for another would remove what it sets.
    pub(super) fn check(&self, place: &Place) -> Result<(), Error> {
        if self.l2.bus().is_some() {
            return Ok(());
        }
        let what = format!(
            "the L2 of region {:?} names no bus, so nobody can emit whether it is the cache's own; use one \
             that announces what it writes, as Redis does",
            self.name
        );
        Err(Error::new(ErrorKind::InvalidOptions, place.clone(), what))
    }

    /// Whether this is where the cache itself is, so that all nodes can be given the same list.
    pub(super) fn is_home(&self, home: &Arc<dyn L2>) -> bool {
        self.l2.bus() == home.bus()
    }
}

/// The settings and options that a region is driven with. Of home's, those that say how long barriers
/// are kept; what its calls leave out, or how short they wait for a server nearby, is no matter of others.
pub(super) fn driven_by(settings: &Settings, home: &EntryOptions) -> (Settings, EntryOptions) {
    let far = EntryOptions::default().factory_deadline(home.factory_deadline);
    let limit = far.l2_hard_timeout.max(home.l2_hard_timeout);
    let least = settings.poll.saturating_add(limit).saturating_mul(2);
    let settings = settings.clone().capacity(1).coherence_ttl(settings.coherence_ttl.max(least));
    (settings, far.l2_hard_timeout(limit))
}

/// The regions that a cache relays to.
#[derive(Debug, Default)]
pub(crate) struct Regions(pub(super) Vec<Region>);

/// One of them.
#[derive(Debug)]
pub(super) struct Region {
    pub(super) name: Arc<str>,
    pub(super) cache: Cache<NoCodec>,
}

/// How a cache stands with another region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionHealth {
    /// Its name.
    pub name: Arc<str>,
    /// How this node stands with its L2 and backplane. What was not relayed yet is in `recovery_backlog`
    /// and `pending_removals`.
    pub health: Health,
}

/// What is relayed.
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

    pub(super) fn caches(&self) -> impl Iterator<Item = &Arc<Inner<NoCodec>>> {
        self.0.iter().map(|region| region.cache.inner())
    }

    /// The first attempt at what waits for them.
    pub(super) async fn drain(&self) {
        join_all(self.caches().map(|inner| drain(inner))).await;
    }

    /// They begin nothing any more; waits for what they do.
    pub(super) async fn end(&self) {
        self.caches().for_each(|inner| inner.shut());
        join_all(self.caches().map(|inner| inner.ended())).await;
    }

    /// The last attempt.
    pub(super) async fn drain_rest(&self) {
        join_all(self.caches().map(|inner| inner.drain_rest())).await;
    }

    /// What those have not been told that have not been told everything.
    pub(super) fn lost(&self) -> Vec<String> {
        self.caches().filter_map(|inner| Some(inner.lost(Vec::new())?.to_string())).collect()
    }
}

impl<C> Inner<C> {
    /// Has the other regions do what was done here, in the background. What one does not answer to waits
    /// in its own queue, and so does what comes while this cache is being closed.
    pub(crate) fn relay(&self, what: impl Fn() -> Relayed) {
        for region in &self.regions.0 {
            let (inner, what) = (Arc::clone(region.cache.inner()), what());
            let Ok(runtime) = self.runtime() else {
                if inner.closing.is_cancelled() {
                    let region = &*region.name;
                    tracing::warn!(
                        target: TARGET, cache = &*self.name, region,
                        "the cache is closing; a removal waits for another region"
                    );
                }
                queue(&inner, what);
                continue;
            };
            // Not in the region's own tasks: they end when it is closed, and this comes before.
            let relaying = Relaying { inner, what: Some(what) };
            self.tasks.spawn_behind(Box::pin(relaying.run()), &runtime);
        }
    }
}

/// On its way to another region. If it is dropped before, it is queued there.
struct Relaying {
    inner: Arc<Inner<NoCodec>>,
    what: Option<Relayed>,
}

impl Relaying {
    async fn run(mut self) {
        if let Some(what) = &self.what {
            relay(&self.inner, what).await;
        }
        self.what = None;
    }
}

impl Drop for Relaying {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            queue(&self.inner, what);
        }
    }
}

/// For the region's next poll, or for its end.
fn queue(inner: &Inner<NoCodec>, what: Relayed) {
    match what {
        Relayed::Key(key, strength) => {
            let (version, not_before) = (inner.entropy.version(), inner.now());
            inner.queue(&key, Queued { strength, version, not_before });
        }
        Relayed::Tags(tags, strength) => {
            drop(removal::begin(inner, strength, &removal::targets(&tags)));
        }
        Relayed::Everything(strength) => {
            drop(removal::begin(inner, strength, &[Target::Everything]));
        }
    }
}

async fn relay(inner: &Arc<Inner<NoCodec>>, what: &Relayed) {
    let options = EntryOptions::clone(&inner.defaults);
    let done = match what {
        Relayed::Key(key, Strength::Hard) => write::remove(inner, key, &options).await,
        Relayed::Key(key, Strength::Soft) => write::expire(inner, key, &options).await,
        Relayed::Tags(tags, strength) => removal::by_tags(inner, *strength, tags, &options).await,
        Relayed::Everything(strength) => removal::clear(inner, *strength, &options).await,
    };
    if let Err(error) = done {
        tracing::warn!(target: TARGET, %error, "a removal did not reach another region");
    }
}
