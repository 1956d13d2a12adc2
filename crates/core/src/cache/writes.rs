use std::borrow::Cow;
use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;

use futures_util::future::{FutureExt, join};

use super::batch::Keys;
use super::requests::{
    entry_options, remove_options, set_options, setters, tags_option, write_options,
};
use super::tags::IntoTags;
use super::{Cache, RemoveAndTags};
use crate::background::ensure_runtime_runs;
use crate::error::Error;
use crate::l2::Codec;
use crate::options::Choices;
use crate::protocol::ledger::Strength;
use crate::receipt::Receipt;
use crate::telemetry::spans;
use crate::write::{self, Reservation, removal};

type WriteFuture<'a> = Pin<Box<dyn Future<Output = Result<Receipt, Error>> + Send + 'a>>;

/// The request of [`Cache::set`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Set<'a, T, C: Send + Sync + 'static> {
    cache: &'a Cache<C>,
    key: Cow<'a, str>,
    value: T,
    tags: Vec<String>,
    options: Choices,
    reservation: Option<Reservation>,
}

impl<'a, T, C> Set<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    pub(super) fn new(cache: &'a Cache<C>, key: Cow<'a, str>, value: T) -> Self {
        Self { cache, key, value, tags: Vec::new(), options: Choices::default(), reservation: None }
    }

    tags_option!();

    /// Stores the value only if nothing changed the key, its tags or the cache since the
    /// reservation. Otherwise nothing is stored: the receipt says `Superseded` and is not
    /// [propagated](Receipt::is_propagated). With `require_propagation` it is an error, as is a
    /// reservation of another cache or key (`ErrorKind::InvalidOptions`).
    pub fn reserved(mut self, reservation: Reservation) -> Self {
        self.reservation = Some(reservation);
        self
    }

    set_options!();
}

impl<'a, T, C> IntoFuture for Set<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Receipt, Error>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { cache, key, value, tags, options, reservation } = self;
        Box::pin(async move {
            let (node, key) = (cache.node(), &*key);
            node.check_key(key)?;
            node.check_runtime(Some(key))?;
            if !node.enabled {
                return Ok(Receipt::local());
            }
            let (options, coded) = (options.over(node.options_for(key)), cache.coded());
            let set = match reservation {
                Some(it) => {
                    write::set_reserved(&coded, it, key, value, options, tags).left_future()
                }
                None => write::set(&coded, key, value, options, tags).right_future(),
            };
            let set = spans::call(spans::set(&node.telemetry, key), set);
            join(set, ensure_runtime_runs(node)).await.0
        })
    }
}

impl<T, C: Send + Sync + 'static> fmt::Debug for Set<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The request of [`Cache::remove`] and [`Cache::expire`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Remove<'a, C> {
    cache: &'a Cache<C>,
    key: Cow<'a, str>,
    strength: Strength,
    options: Choices,
}

impl<'a, C: Send + Sync + 'static> Remove<'a, C> {
    pub(super) fn new(cache: &'a Cache<C>, key: Cow<'a, str>, strength: Strength) -> Self {
        Self { cache, key, strength, options: Choices::default() }
    }

    /// Also removes, or expires, every entry that carries one of the tags, as
    /// [`remove_by_tags`](Cache::remove_by_tags) and [`expire_by_tags`](Cache::expire_by_tags) do,
    /// at the same time. Redis receives both together. So this is one round trip, and a server that
    /// does not answer costs one timeout instead of two.
    ///
    /// The receipt covers both: see [`keys_part`](Receipt::keys_part) and
    /// [`tags_part`](Receipt::tags_part). Its [`token`](Receipt::token) is that of the tags,
    /// because a removal of a key has none.
    ///
    /// # Errors
    ///
    /// As [`remove`](Cache::remove) and [`remove_by_tags`](Cache::remove_by_tags); the error of the
    /// key if both fail. An invalid key or tag fails before anything is removed.
    ///
    /// # Cancel safety
    ///
    /// From the first poll both removals hold on this node, and the cache retries them until L2 has
    /// them.
    ///
    /// ```
    /// # use crinkle_core::Cache;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// cache.set("product:42", 1_999_u32).await?;
    /// cache.set("list:7", 12_u32).tags(["lists"]).await?;
    /// cache.remove("product:42").and_tags(["lists", "search"]).await?;
    /// assert!(cache.get::<u32>("product:42").await?.is_none());
    /// assert!(cache.get::<u32>("list:7").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn and_tags(self, tags: impl IntoIterator<Item: IntoTags>) -> RemoveAndTags<'a, C> {
        let Self { cache, key, strength, options } = self;
        RemoveAndTags::new(cache, Keys::of([&*key]), strength, options, tags)
    }

    remove_options!();
}

impl<'a, C: Send + Sync + 'static> IntoFuture for Remove<'a, C> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { cache, key, strength, options } = self;
        Box::pin(async move {
            let (node, key) = (cache.node(), &*key);
            node.check_key(key)?;
            node.check_runtime(Some(key))?;
            let options = options.over(node.options_for(key));
            options.validate(&node.place(Some(key)))?;
            let span = match strength {
                Strength::Hard => spans::remove(&node.telemetry, key),
                Strength::Soft => spans::expire(&node.telemetry, key),
            };
            let write = spans::call(span, write::invalidate(node, key, strength, &options));
            join(write, ensure_runtime_runs(node)).await.0
        })
    }
}

impl<C> fmt::Debug for Remove<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remove").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The request of a removal by tags or of a clear, which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct RemoveByTag<'a, C> {
    cache: &'a Cache<C>,
    strength: Strength,
    /// `None` for a clear.
    tags: Option<Vec<String>>,
    options: Choices,
}

impl<'a, C: Send + Sync + 'static> RemoveByTag<'a, C> {
    pub(super) fn tags(cache: &'a Cache<C>, strength: Strength, tags: Vec<String>) -> Self {
        Self { cache, strength, tags: Some(tags), options: Choices::default() }
    }

    pub(super) fn everything(cache: &'a Cache<C>, strength: Strength) -> Self {
        Self { cache, strength, tags: None, options: Choices::default() }
    }

    write_options!();
    entry_options!();
    setters! {
        /// Whether to write to L2 in the background.
        background_l2(bool);
    }
}

impl<'a, C: Send + Sync + 'static> IntoFuture for RemoveByTag<'a, C> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = WriteFuture<'a>;

    fn into_future(self) -> WriteFuture<'a> {
        let Self { cache, strength, tags, options } = self;
        Box::pin(async move {
            let node = cache.node();
            node.check_runtime(None)?;
            let options = options.over(node.defaults.clone());
            options.validate(&node.place(None))?;
            let (span, removal) = match &tags {
                Some(tags) => (
                    spans::remove_by_tag(&node.telemetry, tags.len()),
                    removal::by_tags(node, strength, tags, &options).left_future(),
                ),
                None => (
                    spans::clear(&node.telemetry, 1),
                    removal::clear(node, strength, &options).right_future(),
                ),
            };
            join(spans::call(span, removal), ensure_runtime_runs(node)).await.0
        })
    }
}

impl<C> fmt::Debug for RemoveByTag<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoveByTag").field("tags", &self.tags).finish_non_exhaustive()
    }
}
