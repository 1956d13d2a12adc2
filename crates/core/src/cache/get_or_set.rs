use std::borrow::Cow;
use std::fmt;
use std::future::{IntoFuture, ready};

use super::Cache;
use super::first_poll::{Request, RequestFuture, Running};
use super::requests::{entry_options, load_options, read_options, store_options};
use super::tags::{IntoTags, collected};
use crate::entry::Cached;
use crate::error::{BoxError, Error};
use crate::factory::{FactoryContext, boxed};
use crate::l2::Codec;
use crate::options::Choices;
use crate::protocol::{KeyHash, Version};
use crate::read::{self, Call};
use crate::telemetry::spans;

/// The type of the tags of a request without tags.
pub type NoTags = [&'static str; 0];

/// The request of [`Cache::get_or_set`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct GetOrSet<'a, T, C, F, G = NoTags> {
    cache: &'a Cache<C>,
    key: Cow<'a, str>,
    factory: F,
    tags: G,
    options: Choices,
    default: Option<T>,
}

impl<'a, T, C, F> GetOrSet<'a, T, C, F> {
    pub(super) fn new(cache: &'a Cache<C>, key: Cow<'a, str>, factory: F) -> Self {
        Self { cache, key, factory, tags: [], options: Choices::default(), default: None }
    }
}

impl<'a, T, C, F, G> GetOrSet<'a, T, C, F, G>
where
    C: Send + Sync + 'static,
{
    /// Sets the tags of the entry if this call loads it. A hit does not read them. A second call
    /// replaces the first. For tags under a condition, pass an `Option`; see [`IntoTags`].
    pub fn tags<H>(self, tags: H) -> GetOrSet<'a, T, C, F, H>
    where
        H: IntoIterator,
        H::Item: IntoTags,
    {
        let Self { cache, key, factory, options, default, .. } = self;
        GetOrSet { cache, key, factory, tags, options, default }
    }

    /// Sets the default value: returned, as stale, if the load fails and there is no other
    /// fallback. With fail-safe on, L1 keeps it for the throttle, during which the factory does not
    /// run.
    pub fn fail_safe_default(mut self, default: T) -> Self {
        self.default = Some(default);
        self
    }

    entry_options!();
    read_options!();
    store_options!();
    load_options!();
}

impl<'a, T, C, F, G, Fut, E> Request<'a> for GetOrSet<'a, T, C, F, G>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
    F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
    G: IntoIterator,
    G::Item: IntoTags,
{
    type Output = Result<Cached<T>, Error>;

    #[inline]
    fn hit(&self) -> Option<(Self::Output, Option<Version>)> {
        let (node, key) = (self.cache.node(), &*self.key);
        if node.passes_l1(&self.options, key) {
            return None;
        }
        let cached: Cached<T> = read::hit(node, KeyHash::of(key), key)?;
        let due = cached.take_due();
        Some((Ok(cached), due))
    }

    #[cold]
    fn refresh(self, version: Version) {
        let coded = self.cache.coded();
        let (call, factory, _) = into_call(self);
        read::refresh(&coded, call.refreshing(version), boxed(factory));
    }

    #[cold]
    #[inline(never)]
    fn run(self) -> Running<'a, Self::Output> {
        let (node, coded) = (self.cache.node(), self.cache.coded());
        let checked = node.check_key(&self.key).and_then(|()| node.check_runtime(Some(&self.key)));
        if let Err(error) = checked {
            return Box::pin(ready(Err(error)));
        }
        let (call, factory, default) = into_call(self);
        let span = spans::get_or_set(&node.telemetry, &call.key);
        let run = read::run(coded, call, boxed(factory), default);
        if span.is_disabled() { Box::pin(run) } else { Box::pin(spans::call(span, run)) }
    }
}

impl<'a, T, C, F, G, Fut, E> IntoFuture for GetOrSet<'a, T, C, F, G>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
    F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
    G: IntoIterator + Send + 'a,
    G::Item: IntoTags,
{
    type Output = Result<Cached<T>, Error>;
    type IntoFuture = RequestFuture<'a, Self, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        RequestFuture::new(self)
    }
}

fn into_call<T, C, F, G>(request: GetOrSet<'_, T, C, F, G>) -> (Call, F, Option<T>)
where
    C: Send + Sync + 'static,
    G: IntoIterator,
    G::Item: IntoTags,
{
    let GetOrSet { cache, key, factory, tags, options, default } = request;
    let options = options.over(cache.node().options_for(&key));
    let tags = collected(tags);
    (Call::new(&key, KeyHash::of(&key), options, tags), factory, default)
}

impl<T, C, F, G> fmt::Debug for GetOrSet<'_, T, C, F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOrSet").field("key", &self.key).finish_non_exhaustive()
    }
}
