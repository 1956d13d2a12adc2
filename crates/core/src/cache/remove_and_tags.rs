use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;

use futures_util::future::join;

use super::batch::{Keys, calls, remove_all};
use super::requests::remove_options;
use super::{Cache, Remove, RemoveMany};
use crate::background::ensure_runtime_runs;
use crate::error::Error;
use crate::options::Choices;
use crate::receipt::Receipt;
use crate::telemetry::spans;
use crate::write;

/// The request of [`Remove::and_tags`] and [`RemoveMany::and_tags`], which runs when awaited.
///
/// Its parts have the guarantees of `remove` and `remove_by_tags`. Both are sent at the same time:
/// one round trip, and a server that does not answer costs one timeout. `skip_l2_write` and
/// `skip_backplane` concern the keys; the removal of the tags is sent in any case.
#[must_use = "a request does nothing until awaited"]
pub struct RemoveAndTags<'a, C> {
    cache: &'a Cache<C>,
    keys: Keys,
    options: Choices,
    tags: Vec<String>,
}

impl<'a, C: Send + Sync + 'static> RemoveAndTags<'a, C> {
    fn new<S: Into<String>>(
        cache: &'a Cache<C>,
        keys: Keys,
        options: Choices,
        tags: impl IntoIterator<Item = S>,
    ) -> Self {
        Self { cache, keys, options, tags: tags.into_iter().map(Into::into).collect() }
    }

    remove_options!();
}

impl<'a, C: Send + Sync + 'static> Remove<'a, C> {
    /// Also removes every entry that carries one of the tags, as
    /// [`remove_by_tags`](Cache::remove_by_tags) does, at the same time. Redis receives both
    /// together. So this is one round trip, and a server that does not answer costs one timeout
    /// instead of two.
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
    pub fn and_tags<S: Into<String>>(
        self,
        tags: impl IntoIterator<Item = S>,
    ) -> RemoveAndTags<'a, C> {
        let (cache, key, options) = self.into_parts();
        RemoveAndTags::new(cache, Keys::of([&*key]), options, tags)
    }
}

impl<'a, C: Send + Sync + 'static> RemoveMany<'a, C> {
    /// Also removes every entry that carries one of the tags; see [`Remove::and_tags`].
    ///
    /// # Errors
    ///
    /// As [`Remove::and_tags`], for the first key that fails.
    ///
    /// # Cancel safety
    ///
    /// As [`Remove::and_tags`].
    pub fn and_tags<S: Into<String>>(
        self,
        tags: impl IntoIterator<Item = S>,
    ) -> RemoveAndTags<'a, C> {
        let (cache, keys, options) = self.into_parts();
        RemoveAndTags::new(cache, keys, options, tags)
    }
}

impl<'a, C: Send + Sync + 'static> IntoFuture for RemoveAndTags<'a, C> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Receipt, Error>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, options: chosen, tags } = self;
        Box::pin(async move {
            let node = cache.node();
            let calls = calls(cache, keys.iter(), &chosen, &[])?;
            tags.iter().try_for_each(|tag| node.check_tag(tag))?;
            let options = chosen.over(node.defaults.clone());
            options.validate(&node.place(None))?;
            for call in &calls {
                call.options.validate(&node.place(Some(&call.key)))?;
            }
            let span = match &calls[..] {
                [call] => spans::remove(&node.telemetry, &call.key),
                _ => spans::remove_many(&node.telemetry, calls.len()),
            };
            let remove = Box::pin(remove_all(node, calls));
            let remove = write::remove_and_tags(node, remove, &tags, &options);
            let remove = Box::pin(remove);
            join(spans::call(span, remove), ensure_runtime_runs(node)).await.0
        })
    }
}

impl<C> fmt::Debug for RemoveAndTags<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoveAndTags")
            .field("keys", &self.keys.len())
            .field("tags", &self.tags)
            .finish_non_exhaustive()
    }
}
