//! The cache handle and its requests. Every method here delegates; [`read`](crate::read) and
//! [`write`](crate::write) do the work.
//!
//! | file | holds |
//! |---|---|
//! | here | `Cache`: the handle, and its methods that read or report |
//! | `builder` | builds a cache |
//! | `change`, `many` | the methods of `Cache` that write, and those for many keys |
//! | `get_or_set`, `requests` | the requests of reads: options, then one call of a pipeline |
//! | `key`, `tags` | what is a key, and what are tags |
//! | `first_poll` | the future of a read, which a hit completes at once |
//! | `writes`, `remove_and_tags` | the requests of writes |
//! | `batch`, `warm`, `wait_for` | the requests for many keys, for a warm start, for order |
//! | `ready`, `close` | waits for the first answers; ends the cache |
//! | `guarantees` | reports which guarantees hold |
//! | `regions` | builds and closes the nodes of other regions |

mod batch;
mod builder;
mod change;
mod close;
mod first_poll;
mod get_or_set;
mod guarantees;
mod key;
mod many;
mod ready;
mod regions;
mod remove_and_tags;
mod requests;
mod tags;
mod wait_for;
mod warm;
mod writes;

use std::sync::Arc;

use tokio_util::sync::DropGuard;

pub use batch::{GetMany, GetOrSetMany, RemoveMany, SetMany};
pub use builder::CacheBuilder;
pub use close::PendingWrites;
#[cfg(feature = "blocking")]
pub(crate) use first_poll::Request;
pub use first_poll::RequestFuture;
pub use get_or_set::{GetOrSet, NoTags};
pub use guarantees::{Guarantee, Guarantees};
pub use key::IntoKey;
pub use remove_and_tags::RemoveAndTags;
pub use requests::{Contains, Get, GetOr};
pub use tags::IntoTags;
pub use wait_for::{Reserve, WaitFor};
pub use warm::{Warm, Warmed};
pub use writes::{Remove, RemoveByTag, Set};

use crate::entry::Cached;
use crate::error::BoxError;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::events::Events;
use crate::factory::FactoryContext;
use crate::l2::Codec;
use crate::node::{Coded, Node};
use crate::protocol::KeyHash;
use crate::telemetry::{Health, Stats};

#[cfg(feature = "messagepack")]
pub(crate) type DefaultCodec = crate::l2::MessagePack;
#[cfg(not(feature = "messagepack"))]
pub(crate) type DefaultCodec = crate::l2::NoCodec;

/// A hybrid cache: L1 in this process, optionally an L2 that all nodes share, and a backplane that
/// keeps their L1s coherent.
///
/// The handle is cheap to clone and `Send + Sync + 'static`. One cache holds values of any type.
/// Dropping the last clone stops the background tasks; [`close`](Cache::close) first sends what is
/// pending for L2.
///
/// ```
/// use crinkle_core::{Cache, EntryOptions, FailSafe};
/// use std::time::Duration;
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Product { name: String }
/// # async fn load(id: u32) -> Result<Product, std::io::Error> {
/// #     Ok(Product { name: format!("#{id}") })
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop")
///     .default_options(EntryOptions::new(Duration::from_secs(60))
///         .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600))))
///     .build()?;
///
/// let product = cache
///     .get_or_set("product:42", |_| load(42))
///     .tags(["products", "category:7"])
///     .await?;
/// assert_eq!(product.name, "#42");
///
/// cache.remove_by_tag("category:7").await?;
/// assert!(cache.get::<Product>("product:42").await?.is_none());
/// # Ok(())
/// # }
/// ```
pub struct Cache<C = DefaultCodec> {
    handle: Arc<Handle<C>>,
}

struct Handle<C> {
    node: Arc<Node>,
    codec: Arc<C>,
    /// Dropped with the last clone, which ends the background tasks.
    _closing: DropGuard,
}

impl Cache {
    /// Starts to configure a cache. Errors, logs and metrics use the name, and it is the default
    /// key prefix: letters, digits and `_ . : -`.
    pub fn builder(name: &str) -> CacheBuilder {
        CacheBuilder::new(name)
    }

    /// Creates a cache that stores nothing and runs every factory, for tests and feature switches.
    #[must_use]
    pub fn disabled() -> Self {
        CacheBuilder::new("disabled").build_disabled()
    }
}

impl<C: Send + Sync + 'static> Cache<C> {
    pub(crate) fn new(node: Arc<Node>, closing: DropGuard, codec: C) -> Self {
        Self { handle: Arc::new(Handle { node, codec: Arc::new(codec), _closing: closing }) }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.handle.node
    }

    /// The node, with what encodes and decodes values of one type.
    pub(crate) fn coded<T: 'static>(&self) -> Coded<T>
    where
        C: Codec<T>,
    {
        let codec: Arc<C> = Arc::clone(&self.handle.codec);
        Coded::new(Arc::clone(self.node()), codec)
    }

    /// Returns the name given to the builder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node().name
    }

    /// Returns the cached value, or loads it with the factory, stores it and returns it. This is
    /// the main call.
    ///
    /// A hit does not call the factory. Loads are single-flight, which prevents a thundering herd:
    /// at most one factory per key runs on this node, and with an L2 one per cluster. Concurrent
    /// callers share its result. The factory runs on a task of the cache. The key is a string, borrowed
    /// or owned ([`IntoKey`]).
    ///
    /// Chain options and tags on the request, which runs when awaited:
    /// `cache.get_or_set(key, factory).tags(["a"]).duration(..).await`.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Factory`] with the error of the factory (shared by every waiter),
    ///   [`ErrorKind::FactoryPanicked`] or [`ErrorKind::FactoryTimeout`], unless fail-safe has a
    ///   stale value.
    /// - [`ErrorKind::InvalidKey`], [`ErrorKind::InvalidTag`], [`ErrorKind::InvalidOptions`].
    /// - [`ErrorKind::WaitTimeout`] if `wait_timeout` elapsed.
    /// - [`ErrorKind::Closed`].
    /// - [`ErrorKind::NoRuntime`] outside a tokio runtime, or if the runtime of the load has ended.
    /// - [`ErrorKind::Reentrant`] if a factory would wait for itself.
    /// - [`ErrorKind::L2`] for a failure of L2, only with `require_l2`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops waiting. A started factory continues, and its value is stored for
    /// the next caller. With [`cancel_when_abandoned`](crate::EntryOptions::cancel_when_abandoned)
    /// the cache drops the factory when no caller waits for it any more.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// let cache = crinkle_core::Cache::builder("shop").build()?;
    /// let answer = cache.get_or_set("answer", |_| async { crinkle_core::ok(42) }).await?;
    /// assert_eq!(*answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_set<'a, 'k: 'a, T, F, Fut, E>(
        &'a self,
        key: impl IntoKey<'k>,
        factory: F,
    ) -> GetOrSet<'a, T, C, F>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
        F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
    {
        GetOrSet::new(self, key.into_key(), factory)
    }

    /// Returns the value from L1 or L2; never runs a factory.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TypeMismatch`] if the key holds another type, [`ErrorKind::InvalidKey`],
    /// [`ErrorKind::InvalidOptions`]. If L2 fails, the result is `None` (or a stale value, if
    /// allowed), and [`ErrorKind::L2`] with `require_l2`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// let cache = crinkle_core::Cache::builder("shop").build()?;
    /// assert!(cache.get::<String>("name").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn get<'a, 'k: 'a, T>(&'a self, key: impl IntoKey<'k>) -> Get<'a, T, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        Get::new(self, key.into_key())
    }

    /// Returns the value from L1 or L2, else `default`, which is not stored.
    ///
    /// # Errors
    ///
    /// As [`get`](Cache::get).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    ///
    /// ```
    /// # use crinkle_core::{Cache, Source};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// let stock = cache.get_or("stock:42", 0_u32).await?;
    /// assert_eq!((*stock, stock.meta().source()), (0, Source::Default));
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or<'a, 'k: 'a, T>(&'a self, key: impl IntoKey<'k>, default: T) -> GetOr<'a, T, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        GetOr::new(self.get(key), default)
    }

    /// Whether L1 or L2 has a fresh value of the key, of any type. It checks L2 without reading the
    /// value into L1.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`], [`ErrorKind::InvalidOptions`]. If L2 does not answer, only L1
    /// counts, and the call is [`ErrorKind::L2`] with `require_l2`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = crinkle_core::Cache::builder("shop").build()?;
    /// assert!(!cache.contains("price:42").require_l2(true).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn contains<'a, 'k: 'a>(&'a self, key: impl IntoKey<'k>) -> Contains<'a, C> {
        Contains::new(self, key.into_key())
    }

    /// Returns a fresh value from L1 without waiting. A value of another type is `None`.
    ///
    /// ```
    /// # use crinkle_core::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// assert!(cache.peek::<u32>("price:42").is_none());
    /// cache.set("price:42", 1_999_u32).await?;
    /// assert_eq!(cache.peek::<u32>("price:42").as_deref(), Some(&1_999));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn peek<'k, T>(&self, key: impl IntoKey<'k>) -> Option<Cached<T>>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        let key = key.into_key();
        crate::read::hit(self.node(), KeyHash::of(&key), &key)
    }

    /// Returns a snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.node().stats()
    }

    /// Returns the state of L2, the backplane and the other nodes, as this cache sees it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.node().health()
    }

    /// Subscribes to cache events, excluding fresh hits in L1. A subscriber that falls behind loses
    /// the oldest events and receives a notice of the loss. The cache never waits for it.
    pub fn events(&self) -> Events {
        self.node().telemetry.events_bus.events(false)
    }

    /// Subscribes to [`events`](Cache::events) including fresh hits in L1, each of which then costs
    /// some hundred nanoseconds more.
    pub fn events_with_l1_hits(&self) -> Events {
        let events = self.node().telemetry.events_bus.events(true);
        self.node().telemetry.l1_hits.watch();
        events
    }

    /// Updates the counters and gauges of the `metrics` facade. A cache built within a runtime
    /// updates them once a second; call this before a scrape for current values.
    #[cfg(feature = "metrics")]
    pub fn record_metrics(&self) {
        self.node().record_metrics();
    }

    /// Returns the approximate number of entries in L1, stale ones included.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.node().l1.len()
    }
}

impl<C> Clone for Cache<C> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<C> std::fmt::Debug for Cache<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("name", &self.handle.node.name).finish_non_exhaustive()
    }
}
