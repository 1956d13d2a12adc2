//! The end of a cache, and what it could not send.

use std::fmt;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::timeout;

use super::{Cache, Inner, attend};
use crate::coherence::poll::drain;
use crate::error::{Error, ErrorKind};
use crate::protocol::ledger::Target;

/// How long running loads may take, and writes in the background.
const LOADS: Duration = Duration::from_secs(5);

/// How long it may take to drop what was not sent in that time: no longer than a runtime takes to run its tasks.
const DROPS: Duration = Duration::from_secs(1);

/// How many keys and tags an error names.
const NAMED: usize = 10;

/// The invalidations that [`Cache::close`] could not send: they are lost. The source of its error, for
/// [`Error::downcast_ref`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsent {
    /// How many keys.
    pub keys: usize,
    /// How many removals by tag and clears.
    pub removals: usize,
    /// The first ten of both, like `key "a"`, `tag "b"` or `everything`; none with `redact_keys`. A tag that no
    /// entry of this node carries and no failed call has named is shown by its hash, as `crinkle tags` does.
    pub first: Vec<String>,
    /// What could not be sent to other regions.
    pub regions: Vec<String>,
}

impl std::error::Error for Unsent {}

impl fmt::Display for Unsent {
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
    /// Sends what waits for L2, stops the background tasks and waits for running loads, whose callers are
    /// still answered, and for writes in the background. Those that are not done after 5 seconds are queued, and
    /// sent once more as invalidations.
    ///
    /// From then on every read is [`ErrorKind::Closed`], [`peek`](Cache::peek) answers `None`, and L1 is
    /// empty: nobody tells a closed cache what changes, so whatever it holds could be stale. (So
    /// [`export_hot_keys`](Cache::export_hot_keys) comes before it.) Removals are still sent, and so is a `set`
    /// that goes to L2; what cannot be sent, or would stay on this node, is `Closed`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotPropagated`] if invalidations are left that L2 has not heard of, which are
    /// lost now: its source is an [`Unsent`], which says how many and which. Or if loads were still running
    /// after 5 seconds.
    ///
    /// # Cancel safety
    ///
    /// The cache is closed in any case once this has been polled.
    pub async fn close(&self) -> Result<(), Error> {
        let inner = self.inner();
        // Also if nobody waits for what is sent before.
        let closing = Closing(inner);
        inner.check_runtime(None)?;
        // What nobody drives any more would hold up everything below.
        attend(inner).await;
        // Other regions beside home at each step: they make nothing longer, and have what is relayed meanwhile.
        join(drain(inner), inner.regions.drain()).await;
        drop(closing);
        let ended = join(inner.ended(), inner.regions.end()).await.0;
        join(inner.drain_rest(), inner.regions.drain_rest()).await;
        if let Some(lost) = inner.lost(inner.regions.lost()) {
            return Err(lost);
        }
        if ended {
            return Ok(());
        }
        let what = format!("loads were still running after {LOADS:?}");
        Err(Error::new(ErrorKind::NotPropagated, inner.place(None), what))
    }
}

/// Closes when it is dropped.
struct Closing<'a, C>(&'a Inner<C>);

impl<C> Drop for Closing<'_, C> {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl<C> Inner<C> {
    /// How many invalidations wait for L2.
    pub(crate) fn waiting(&self) -> usize {
        self.recovery.len() + self.node.known().pending
    }

    /// Waits for what runs. Writes in the background that take too long are queued; false if loads go on.
    pub(super) async fn ended(&self) -> bool
    where
        C: Sync,
    {
        if timeout(LOADS, self.tasks.wait(&self.home)).await.is_ok() {
            return true;
        }
        let _ = timeout(DROPS, self.tasks.give_up()).await;
        self.tasks.have_ended(&self.home)
    }

    /// What has been queued since the first attempt.
    pub(super) async fn drain_rest(&self)
    where
        C: Sync,
    {
        if self.waiting() > 0 {
            drain(self).await;
        }
    }

    /// The error of a cache that could not send something, here or to these regions.
    pub(super) fn lost(&self, regions: Vec<String>) -> Option<Error> {
        if self.waiting() == 0 && regions.is_empty() {
            return None;
        }
        let (place, unsent) = (self.place(None), self.unsent(regions));
        Some(Error::with_source(ErrorKind::NotPropagated, place, "", unsent))
    }

    fn unsent(&self, regions: Vec<String>) -> Unsent {
        let (removals, targets) = self.node.unnumbered(NAMED);
        let keys = self.recovery.len();
        let mut first = Vec::new();
        if !self.settings.redact_keys {
            first.extend(self.recovery.first(NAMED).iter().map(|key| format!("key {key:?}")));
            first.extend(targets.iter().map(|target| self.named(target)));
            first.truncate(NAMED);
        }
        Unsent { keys, removals, first, regions }
    }

    fn named(&self, target: &Target) -> String {
        match target {
            Target::Everything => "everything".to_owned(),
            Target::Register(register) => format!("old removals {register:04x}"),
            Target::Tag(tag) => {
                match self.node.tag_name(*tag).or_else(|| self.recovery.tag_name(*tag)) {
                    Some(name) => format!("tag {name:?}"),
                    None => format!("tag with hash {:032x}", tag.0),
                }
            }
        }
    }
}
