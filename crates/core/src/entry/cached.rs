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

/// A value from the cache: a shared, immutable handle, which clones without copying the value.
///
/// It dereferences to the value, and compares, prints and serializes as the value. Later changes of
/// the entry do not affect it. Facts about the answer are in [`meta`](Cached::meta), so that methods
/// of the value stay reachable; only [`is_stale`](Cached::is_stale) and [`source`](Cached::source)
/// are here as well.
///
/// ```
/// use crinkle_core::{Cache, Cached, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").build()?;
/// let name = cache.get_or_set("name", |_| async { crinkle_core::ok("Ada".to_owned()) }).await?;
/// assert_eq!(name.len(), 3);
/// assert_eq!(name.meta().source(), Source::Factory);
/// assert!(!name.meta().is_stale());
/// let owned: String = Cached::into_inner(name);
/// # assert_eq!(owned, "Ada");
/// # Ok(())
/// # }
/// ```
///
/// The value lies in its entry, so no `Arc<T>` comes out of it without a copy. Where other code
/// takes an `Arc<T>`, cache that:
///
/// ```
/// use crinkle_core::{Cache, l2::NoCodec};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// // A codec of serde needs its feature `rc` for this.
/// let cache = Cache::builder("shop").codec(NoCodec).build()?;
/// let name = cache.get_or_set("name", |_| async { crinkle_core::ok(Arc::new("Ada")) }).await?;
/// let shared: Arc<&str> = Arc::clone(&name);
/// # assert_eq!(*shared, "Ada");
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

    /// The version to refresh, if an eager refresh is due; only the first caller gets it.
    pub(crate) fn take_due(&self) -> Option<Version> {
        let meta = &self.entry.meta;
        meta.take_due(self.read_at).then_some(meta.version)
    }

    /// Whether the value is expired, or may have changed since it was loaded: short for
    /// [`meta().is_stale()`](Metadata::is_stale).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The source of this answer: short for [`meta().source()`](Metadata::source).
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Returns what the cache knows of this answer: its source, age, key, tags.
    ///
    /// A value with a method `meta` of its own has it at `(*cached).meta()`.
    #[must_use]
    pub fn meta(&self) -> Metadata<'_> {
        let Self { read_at, source, stale, .. } = *self;
        Metadata { entry: &self.entry.meta, read_at, source, stale }
    }

    /// Returns the value: moved if this is the last handle to it, else cloned. L1 has a handle too.
    #[must_use]
    pub fn into_inner(this: Self) -> T
    where
        T: Clone,
    {
        match Arc::try_unwrap(this.entry) {
            Ok(entry) => entry.value.into_inner(),
            Err(shared) => T::clone(&shared.value),
        }
    }
}

/// What the cache knows of an answer; see [`Cached::meta`].
#[derive(Clone, Copy)]
pub struct Metadata<'a> {
    entry: &'a Meta,
    read_at: Moment,
    source: Source,
    stale: bool,
}

impl<'a> Metadata<'a> {
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
        self.read_at.since(self.entry.created)
    }

    /// The rest of the TTL when the value was read, as for `Cache-Control: max-age`. Zero for a
    /// stale value, and for one that no cache stores. A removal may end the value earlier.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        if self.stale { Duration::ZERO } else { self.entry.logical().since(self.read_at) }
    }

    /// The key of the entry.
    #[must_use]
    pub fn key(&self) -> &'a str {
        &self.entry.key
    }

    /// The tags of the entry, in their original order.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.entry.tags.iter().map(|tag| tag.name())
    }

    /// The entity tag that the factory set; see
    /// [`FactoryContext::set_etag`](crate::FactoryContext::set_etag).
    #[must_use]
    pub fn etag(&self) -> Option<&'a str> {
        self.entry.validators.as_ref()?.etag.as_deref()
    }

    /// The time of last modification that the factory set, in the source's format.
    #[must_use]
    pub fn last_modified(&self) -> Option<&'a str> {
        self.entry.validators.as_ref()?.last_modified.as_deref()
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

impl<T> AsRef<T> for Cached<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: PartialEq> PartialEq for Cached<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Cached<T> {}

impl<T: PartialEq> PartialEq<T> for Cached<T> {
    fn eq(&self, other: &T) -> bool {
        **self == *other
    }
}

#[cfg(any(feature = "messagepack", feature = "json", feature = "postcard"))]
impl<T: serde::Serialize> serde::Serialize for Cached<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, serializer)
    }
}

impl<T: fmt::Display> fmt::Display for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
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

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("key", &self.key())
            .field("source", &self.source)
            .field("stale", &self.stale)
            .finish_non_exhaustive()
    }
}
