use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::{Deadlines, Entry, EntryFlags, Meta, Shared, Stamp};
use crate::clock::Moment;
use crate::protocol::Version;

/// The source of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// This node's memory.
    L1,
    /// The shared level, L2.
    L2,
    /// The factory.
    Factory,
    /// A stale value, because the factory failed or takes too long.
    FailSafe,
    /// The default value of [`get_or`](crate::Cache::get_or), or `fail_safe_default`.
    Default,
}

/// A value from the cache: shared, immutable, cheap to clone.
///
/// It dereferences to the value. Later changes of the entry do not affect it.
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

    /// Wraps a value that no cache stores.
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

    /// The version to refresh, if an eager refresh is due; only the first caller gets it.
    pub(crate) fn take_due(&self) -> Option<Version> {
        let meta = self.meta();
        meta.take_due(self.read_at).then_some(meta.version)
    }

    /// Whether the value is expired, or may have changed since it was loaded.
    ///
    /// Three kinds of callers get such a value:
    ///
    /// - callers that allow it (fail-safe, `allow_stale`);
    /// - callers whose load an invalidation overtook;
    /// - callers of a node that may have missed messages while L2 does not answer. They get it for
    ///   the coherence TTL at most, and not with `strict`, `require_l2` or `skip_l2_read`.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The source of this answer.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// The age of the value when it was read: the time since its factory returned.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.read_at.since(self.entry.meta.created)
    }

    /// The key of the entry.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.entry.meta.key
    }

    /// The tags of the entry, in their original order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.entry.meta.tags.iter().map(|tag| tag.name())
    }

    /// Returns the value: moved if this is the last handle to it, else cloned.
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
