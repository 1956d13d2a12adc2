//! Other regions of a cache, each with servers of its own: how they are built and closed.
//!
//! A node keeps a node without entries for every region. That node has the region's ledger,
//! heartbeat and recovery queue. So a region that does not answer delays no call and misses no
//! removal. `write::relay` sends the removals.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::background::recovery::drain;
use crate::backplane::Backplane;
use crate::error::{Error, ErrorKind, Subject};
use crate::l2::L2;
use crate::node::Regions;
use crate::options::{EntryOptions, Settings};

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
    pub(super) fn check(&self, place: &Subject) -> Result<(), Error> {
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

impl Regions {
    /// Makes the first attempt to send what is pending for the regions.
    pub(super) async fn drain(&self) {
        join_all(self.nodes().map(|node| drain(node))).await;
    }

    /// Stops the regions from starting new work; waits for what still runs.
    pub(super) async fn end(&self) {
        self.nodes().for_each(|node| node.shut());
        join_all(self.nodes().map(|node| node.ended())).await;
    }

    /// Makes the last attempt to send what is pending.
    pub(super) async fn drain_rest(&self) {
        join_all(self.nodes().map(|node| node.drain_rest())).await;
    }

    /// Returns one message for each region with pending invalidations.
    pub(super) fn not_sent(&self) -> Vec<String> {
        self.nodes().filter_map(|node| Some(node.not_sent(Vec::new())?.to_string())).collect()
    }
}
