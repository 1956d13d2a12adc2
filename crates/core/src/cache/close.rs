//! Closes a cache, and reports the invalidations that it could not send.

use std::fmt;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::timeout;

use super::Cache;
use crate::background::ensure_runtime_runs;
use crate::background::recovery::drain;
use crate::error::{Error, ErrorKind};
use crate::node::Node;
use crate::protocol::ledger::Target;

/// The time limit for running loads and background writes.
const LOADS: Duration = Duration::from_secs(5);

/// The time limit for dropping the background writes that exceeded [`LOADS`]: the longest that a
/// runtime may take to run its tasks.
const DROPS: Duration = Duration::from_secs(1);

/// The number of keys and tags that an error names.
const NAMED: usize = 10;

/// Reports the invalidations that [`Cache::close`] could not send, and that are lost. It is the
/// cause of the error of `close`: use [`Error::downcast_ref`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingWrites {
    /// The number of lost invalidations of keys.
    pub keys: usize,
    /// The number of lost removals by tag and clears.
    pub removals: usize,
    /// The first ten of both, such as `key "a"`, `tag "b"` or `everything`; empty with
    /// `redact_keys`. A tag appears as its hash, as in `crinkle tags`, if no entry of this node
    /// carries it and no failed call named it.
    pub first: Vec<String>,
    /// One message for each other region with lost invalidations.
    pub regions: Vec<String>,
}

impl std::error::Error for PendingWrites {}

impl fmt::Display for PendingWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, removals, first, regions } = self;
        if keys + removals > 0 {
            write!(f, "{keys} invalidations of keys and {removals} removals by tag are lost")?;
            write!(f, " (repeat them on another node)")?;
        }
        if !first.is_empty() {
            let more = if keys + removals > first.len() { ", .." } else { "" };
            write!(f, ": {}{more}", first.join(", "))?;
        }
        for (at, region) in regions.iter().enumerate() {
            let comma = if at > 0 || keys + removals > 0 { "; " } else { "" };
            write!(f, "{comma}{region}")?;
        }
        Ok(())
    }
}

impl<C: Send + Sync + 'static> Cache<C> {
    /// Closes the cache: sends what is pending for L2, and stops the background tasks. It waits for
    /// running loads, whose callers still get their values, and for background writes. Writes that
    /// are not done after 5 seconds are queued, and sent once more as invalidations.
    ///
    /// After that, every read returns [`ErrorKind::Closed`], [`peek`](Cache::peek) returns `None`,
    /// and L1 is empty. A closed cache receives no notifications, so its entries could be stale.
    /// Call [`export_hot_keys`](Cache::export_hot_keys) before `close`. Removals are still sent,
    /// and so is a `set` that goes to L2. A write that cannot be sent, or that would stay on this
    /// node, returns `Closed`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotPropagated`] if L2 did not confirm some invalidations, which are lost now.
    /// The cause is a [`PendingWrites`], which says how many and which. The same kind if loads were
    /// still running after 5 seconds.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the call closes the cache in any case.
    pub async fn close(&self) -> Result<(), Error> {
        let node = self.node();
        // Closes the cache even if this future is dropped during the first attempt.
        let closing = Closing(node);
        node.check_runtime(None)?;
        // Work on a runtime that nothing drives would block every step below.
        ensure_runtime_runs(node).await;
        // At each step, other regions run concurrently with home: they add no time, and they get
        // what home relays meanwhile.
        join(drain(node), node.regions.drain()).await;
        drop(closing);
        let ended = join(node.ended(), node.regions.end()).await.0;
        join(node.drain_rest(), node.regions.drain_rest()).await;
        if let Some(lost) = node.not_sent(node.regions.not_sent()) {
            return Err(lost);
        }
        if ended {
            return Ok(());
        }
        let what = format!("loads were still running after {LOADS:?}");
        Err(Error::new(ErrorKind::NotPropagated, node.place(None), what))
    }
}

/// Closes the cache when dropped.
struct Closing<'a>(&'a Node);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl Node {
    /// Returns the number of invalidations that wait for L2.
    pub(crate) fn waiting(&self) -> usize {
        self.recovery.len() + self.coherence.known().pending
    }

    /// Waits for running loads and background writes. Writes that take too long are queued; returns
    /// false if loads still run.
    pub(super) async fn ended(&self) -> bool {
        if timeout(LOADS, self.tasks.wait(&self.home)).await.is_ok() {
            return true;
        }
        let _ = timeout(DROPS, self.tasks.give_up()).await;
        self.tasks.have_ended(&self.home)
    }

    /// Sends what was queued since the first attempt.
    pub(super) async fn drain_rest(&self) {
        if self.waiting() > 0 {
            drain(self).await;
        }
    }

    /// Returns the error of a cache that could not send something, here or to these regions.
    pub(super) fn not_sent(&self, regions: Vec<String>) -> Option<Error> {
        if self.waiting() == 0 && regions.is_empty() {
            return None;
        }
        let (place, pending) = (self.place(None), self.pending_writes(regions));
        Some(Error::with_source(ErrorKind::NotPropagated, place, "", pending))
    }

    fn pending_writes(&self, regions: Vec<String>) -> PendingWrites {
        let (removals, targets) = self.coherence.unnumbered(NAMED);
        let keys = self.recovery.len();
        let mut first = Vec::new();
        if !self.settings.redact_keys {
            first.extend(self.recovery.first(NAMED).iter().map(|key| format!("key {key:?}")));
            first.extend(targets.iter().map(|target| self.named(target)));
            first.truncate(NAMED);
        }
        PendingWrites { keys, removals, first, regions }
    }

    fn named(&self, target: &Target) -> String {
        match target {
            Target::Everything => "everything".to_owned(),
            Target::Register(register) => format!("old removals {register:04x}"),
            Target::Tag(tag) => {
                match self.coherence.tag_name(*tag).or_else(|| self.recovery.tag_name(*tag)) {
                    Some(name) => format!("tag {name:?}"),
                    None => format!("tag with hash {:032x}", tag.0),
                }
            }
        }
    }
}
