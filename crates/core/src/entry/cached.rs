use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::{Deadlines, Entry, EntryFlags, Meta, Shared, Stamp};
use crate::clock::Moment;
use crate::protocol::Version;

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// This node's memory.
    L1,
    /// The shared level.
    L2,
    /// The factory ran.
    Factory,
    /// A stale value stood in for a factory that failed or takes long.
    FailSafe,
    /// The default given to [`get_or`](crate::Cache::get_or), or as `fail_safe_default`.
    Default,
}

/// A value out of the cache: shared, immutable, cheap to clone.
///
/// It dereferences to the value. It stays what it was whatever happens to the entry later.
///
/// ```
/// use crinkle_core::{Cache, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").build()?;
/// let name = cache.get_or_set("name", |_| async { crinkle_core::ok("Ada".to_owned()) }).await?;
/// assert_eq!(name.len(), 3);
/// assert_eq!(name.source(), Source::Factory);
/// assert!(!name.is_stale());
/// # Ok(())
/// # }
/// ```
pub struct Cached<T> {
    entry: Arc<Entry<T>>,
    read_at: Moment,
    source: Source,
    stale: bool,
}

impl<T> Cached<T> {
    pub(crate) fn new(entry: Arc<Entry<T>>, read_at: Moment, source: Source, stale: bool) -> Self {
        Self { entry, read_at, source, stale }
    }

    /// A value that is in no cache.
    pub(crate) fn detached(key: &str, value: T, now: Moment, source: Source) -> Self {
        let stamp =
            Stamp { epoch: None, frontier: 0, generation: 0, session: 0, at: now, known: now };
        let deadlines = Deadlines { created: now, logical: now, physical: now };
        let meta =
            Meta::new(key, Version(0), Box::default(), stamp, deadlines, EntryFlags::PLAIN, 1);
        Self::new(Arc::new(Entry { meta, value: Shared::Own(value) }), now, source, false)
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.entry.meta
    }

    /// The version to load anew, if that is due; says so once.
    pub(crate) fn take_due(&self) -> Option<Version> {
        let meta = self.meta();
        meta.take_due(self.read_at).then_some(meta.version)
    }

    /// Whether the value is known to be past its life, expired, or possibly changed since it was
    /// loaded. Only callers that asked for stale answers (fail-safe, `allow_stale`) get one,
    /// those whose load was overtaken by an invalidation, and those who ask while L2 does not answer and
    /// messages may have been missed: for the coherence TTL at most, and not with `strict` or
    /// `require_l2`.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Where this answer came from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// How old the value was when it was read: the time since its factory returned.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.read_at.since(self.entry.meta.created)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.entry.meta.key
    }

    /// Its tags, in the order given.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.entry.meta.tags.iter().map(|tag| tag.name())
    }

    /// The value itself: moved out if this is the last handle to it, else cloned.
    #[must_use]
    pub fn into_inner(self) -> T
    where
        T: Clone,
    {
        match Arc::try_unwrap(self.entry) {
            Ok(entry) => entry.value.into_inner(),
            Err(shared) => T::clone(&shared.value),
        }
    }
}

impl<T> Deref for Cached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.entry.value
    }
}

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry), ..*self }
    }
}

impl<T: fmt::Debug> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("value", &**self)
            .field("source", &self.source)
            .field("stale", &self.stale)
            .finish()
    }
}
