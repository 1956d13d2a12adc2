//! The handle and its requests. Every method here delegates; the work is in [`read`](crate::read)
//! and [`write`](crate::write).

mod background;
mod batch;
mod behind;
mod builder;
mod change;
mod close;
mod get_or_set;
mod guarantees;
mod health;
mod inner;
mod many;
mod ready;
mod regions;
mod remove_and_tags;
mod requests;
mod tasks;
mod wait_for;
mod warm;
mod writes;

use std::sync::Arc;

use tokio_util::sync::DropGuard;

pub(crate) use background::{attend, attend_on};
pub use batch::{GetMany, GetOrSetMany, RemoveMany, SetMany};
pub use builder::CacheBuilder;
pub use close::Unsent;
#[cfg(feature = "blocking")]
pub(crate) use get_or_set::refresh;
pub use get_or_set::{GetOrSet, GetOrSetFuture, NoTags};
pub use guarantees::{Guarantee, Guarantees};
pub use health::{Health, LastError, ServerHealth};
pub(crate) use inner::{Inner, Link};
pub use regions::RegionHealth;
pub(crate) use regions::{Regions, Relayed};
pub use remove_and_tags::RemoveAndTags;
pub use requests::{Get, GetFuture, GetOr};
pub(crate) use tasks::Tasks;
pub use wait_for::WaitFor;
pub use warm::{Warm, Warmed};
pub use writes::{Expire, Remove, RemoveByTag, Set};

use crate::entry::Cached;
use crate::error::BoxError;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::events::Events;
use crate::factory::FactoryContext;
use crate::l2::Codec;
use crate::protocol::KeyHash;
use crate::telemetry::Stats;

#[cfg(feature = "messagepack")]
pub(crate) type DefaultCodec = crate::l2::MessagePack;
#[cfg(not(feature = "messagepack"))]
pub(crate) type DefaultCodec = crate::l2::NoCodec;

/// A hybrid cache: L1 in this process, optionally an L2 shared by all nodes and a backplane that
/// keeps their L1s in step.
///
/// A cheap-clone handle, `Send + Sync + 'static`. One cache holds values of any type. The last clone
/// dropped stops the background tasks; [`close`](Cache::close) drains what waits for L2 first.
///
/// ```
/// use crinkle_core::{Cache, EntryOptions, FailSafe};
/// use std::time::Duration;
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Product { name: String }
/// # async fn load(id: u32) -> Result<Product, std::io::Error> { Ok(Product { name: format!("#{id}") }) }
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
    inner: Arc<Inner<C>>,
    /// Dropped with the last clone: the background tasks end.
    _closing: DropGuard,
}

impl Cache {
    /// Begins a cache. The name is used in errors, logs and metrics, and as the default key prefix:
    /// letters, digits and `_ . : -`.
    pub fn builder(name: &str) -> CacheBuilder {
        CacheBuilder::new(name)
    }

    /// A cache that stores nothing and runs every factory, for tests and switches.
    #[must_use]
    pub fn disabled() -> Self {
        CacheBuilder::new("disabled").build_disabled()
    }
}

impl<C: Send + Sync + 'static> Cache<C> {
    pub(crate) fn new(inner: Inner<C>) -> Self {
        let closing = inner.closing.clone().drop_guard();
        Self { handle: Arc::new(Handle { inner: Arc::new(inner), _closing: closing }) }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<C>> {
        &self.handle.inner
    }

    /// The name given to the builder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner().name
    }

    /// Answers from the cache, or loads, stores and answers. The main call.
    ///
    /// The factory is not called on a hit. At most one factory per key runs on this node, and with
    /// an L2 one per cluster; everybody who asks meanwhile shares its result. It runs on a task of
    /// the cache's own. `key` is anything that is a string by reference.
    ///
    /// Options and tags are chained on the request, which runs when awaited:
    /// `cache.get_or_set(key, factory).tags(["a"]).duration(..).await`.
    ///
    /// # Errors
    ///
    /// What the factory returned ([`ErrorKind::Factory`], shared by every waiter), its panic, or its
    /// timeout, unless fail-safe has a stale value; [`ErrorKind::InvalidKey`],
    /// [`ErrorKind::InvalidTag`], [`ErrorKind::InvalidOptions`]; [`ErrorKind::WaitTimeout`] if
    /// `wait_timeout` is over; [`ErrorKind::Closed`]; [`ErrorKind::NoRuntime`] outside of a tokio runtime, or
    /// if the one that loaded has ended; [`ErrorKind::Reentrant`] if a factory would wait for itself. Trouble
    /// with L2 is an error ([`ErrorKind::L2`]) only with `require_l2`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops waiting. The factory, once started, goes on, and its value is
    /// stored for the next caller; with
    /// [`cancel_when_abandoned`](crate::EntryOptions::cancel_when_abandoned) it is dropped when nobody waits
    /// for it any more.
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
    pub fn get_or_set<'a, T, F, Fut, E, K>(
        &'a self,
        key: &'a K,
        factory: F,
    ) -> GetOrSet<'a, T, C, F>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
        F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<BoxError> + 'static,
        K: AsRef<str> + ?Sized,
    {
        GetOrSet::new(self, key.as_ref(), factory)
    }

    /// Answers from L1 or L2; never runs anything.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TypeMismatch`] if the key holds another type, [`ErrorKind::InvalidKey`],
    /// [`ErrorKind::InvalidOptions`]. Trouble with L2 is `None` (or a stale value, if allowed), and
    /// [`ErrorKind::L2`] with `require_l2`.
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
    pub fn get<'a, T>(&'a self, key: &'a (impl AsRef<str> + ?Sized)) -> Get<'a, T, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        Get::new(self, key.as_ref())
    }

    /// Answers from L1 or L2, else with `default`, which is not stored.
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
    /// assert_eq!((*stock, stock.source()), (0, Source::Default));
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or<'a, T>(
        &'a self,
        key: &'a (impl AsRef<str> + ?Sized),
        default: T,
    ) -> GetOr<'a, T, C>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        GetOr::new(self.get(key), default)
    }

    /// A fresh value of L1, without waiting for anything. A value of another type is `None`.
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
    pub fn peek<T>(&self, key: &(impl AsRef<str> + ?Sized)) -> Option<Cached<T>>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        let key = key.as_ref();
        crate::read::hit(self.inner(), KeyHash::of(key), key)
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner().stats()
    }

    /// How the cache stands with L2, the backplane and its peers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner().health()
    }

    /// What the cache does from now on, as a stream; without the fresh answers of L1. A listener that
    /// falls behind loses the oldest events and is told so; the cache never waits for it.
    pub fn events(&self) -> Events {
        self.inner().telemetry.events_bus.events(false)
    }

    /// [`events`](Cache::events) with the fresh answers of L1, which then cost some hundred nanoseconds
    /// more.
    pub fn events_with_l1_hits(&self) -> Events {
        let events = self.inner().telemetry.events_bus.events(true);
        self.inner().telemetry.l1_hits.watch();
        events
    }

    /// Brings the counters and gauges of the `metrics` facade up to date. It happens once a second
    /// where the cache was built within a runtime; call it before a scrape to have them to the moment.
    #[cfg(feature = "metrics")]
    pub fn record_metrics(&self) {
        self.inner().record_metrics();
    }

    /// About how many entries L1 holds, stale ones included.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        self.inner().l1.len()
    }
}

impl<C> Clone for Cache<C> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<C> std::fmt::Debug for Cache<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("name", &self.handle.inner.name).finish_non_exhaustive()
    }
}
