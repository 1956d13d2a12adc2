//! Relays removals to other regions.
//!
//! A removal is relayed as an operation, and each region's ledger numbers it.

use std::sync::Arc;

use super::{key, removal};
use crate::node::{Node, Relayed};
use crate::options::EntryOptions;
use crate::protocol::ledger::Target;
use crate::recovery::Queued;
use crate::telemetry::TARGET;

impl Node {
    /// Relays an invalidation to the other regions in the background. If a region does not answer,
    /// the invalidation waits in the queue of that region. So does one that comes while this cache
    /// is closing.
    pub(crate) fn relay(&self, what: impl Fn() -> Relayed) {
        for region in &self.regions.0 {
            let (node, what) = (Arc::clone(&region.node), what());
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
        Relayed::Key(key, strength) => key::invalidate(node, key, *strength, &options).await,
        Relayed::Tags(tags, strength) => removal::by_tags(node, *strength, tags, &options).await,
        Relayed::Everything(strength) => removal::clear(node, *strength, &options).await,
    };
    if let Err(error) = done {
        tracing::warn!(target: TARGET, %error, "a removal did not reach another region");
    }
}
