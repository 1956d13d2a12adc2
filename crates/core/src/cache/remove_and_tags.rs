use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;

use futures_util::future::join;

use super::batch::{Keys, calls, invalidate_all};
use super::requests::remove_options;
use super::tags::{IntoTags, collected};
use super::{Cache, RemoveMany};
use crate::background::ensure_runtime_runs;
use crate::error::Error;
use crate::options::Choices;
use crate::protocol::ledger::Strength;
use crate::receipt::Receipt;
use crate::telemetry::spans;
use crate::write;

/// The request of [`Remove::and_tags`](super::Remove::and_tags) and [`RemoveMany::and_tags`], which runs when awaited.
///
/// Its parts have the guarantees of `remove` and `remove_by_tags`, or of `expire` and
/// `expire_by_tags`. Both are sent at the same time:
/// one round trip, and a server that does not answer costs one timeout. `skip_l2_write` and
/// `skip_backplane` concern the keys; the removal of the tags is sent in any case.
#[must_use = "a request does nothing until awaited"]
pub struct RemoveAndTags<'a, C> {
    cache: &'a Cache<C>,
    keys: Keys,
    strength: Strength,
    options: Choices,
    tags: Vec<String>,
}

impl<'a, C: Send + Sync + 'static> RemoveAndTags<'a, C> {
    pub(super) fn new(
        cache: &'a Cache<C>,
        keys: Keys,
        strength: Strength,
        options: Choices,
        tags: impl IntoIterator<Item: IntoTags>,
    ) -> Self {
        Self { cache, keys, strength, options, tags: collected(tags) }
    }

    remove_options!();
}

impl<'a, C: Send + Sync + 'static> RemoveMany<'a, C> {
    /// Also removes, or expires, every entry that carries one of the tags; see
    /// [`Remove::and_tags`](super::Remove::and_tags).
    ///
    /// # Errors
    ///
    /// As there, for the first key that fails.
    ///
    /// # Cancel safety
    ///
    /// As there.
    pub fn and_tags(self, tags: impl IntoIterator<Item: IntoTags>) -> RemoveAndTags<'a, C> {
        let (cache, keys, strength, options) = self.into_parts();
        RemoveAndTags::new(cache, keys, strength, options, tags)
    }
}

impl<'a, C: Send + Sync + 'static> IntoFuture for RemoveAndTags<'a, C> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Receipt, Error>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, strength, options: chosen, tags } = self;
        Box::pin(async move {
            let node = cache.node();
            let calls = calls(cache, keys.iter(), &chosen, &[])?;
            tags.iter().try_for_each(|tag| node.check_tag(tag))?;
            let options = chosen.over(node.defaults.clone());
            options.validate(&node.place(None))?;
            for call in &calls {
                call.options.validate(&node.place(Some(&call.key)))?;
            }
            let span = match (&calls[..], strength) {
                ([call], Strength::Hard) => spans::remove(&node.telemetry, &call.key),
                ([call], Strength::Soft) => spans::expire(&node.telemetry, &call.key),
                (_, Strength::Hard) => spans::remove_many(&node.telemetry, calls.len()),
                (_, Strength::Soft) => spans::expire_many(&node.telemetry, calls.len()),
            };
            let keys = Box::pin(invalidate_all(node, strength, calls));
            let remove = write::invalidate_and_tags(node, keys, strength, &tags, &options);
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
