use std::borrow::Cow;
use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Cache;
use super::first_poll::{Request, RequestFuture, Running};
use crate::entry::{Cached, Source};
use crate::error::Error;
use crate::l2::Codec;
use crate::options::{Choice, Choices};
use crate::protocol::{KeyHash, Version};
use crate::read::{self, Call};
use crate::telemetry::spans;

/// Defines setters of a request, each for one call only.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($ty:ty);)*) => {
        $($(#[$doc])*
        #[doc = ""]
        #[doc = concat!("See [`EntryOptions::", stringify!($name), "`](crate::EntryOptions::", stringify!($name), ").")]
        pub fn $name(mut self, $name: $ty) -> Self {
            self.options.add(crate::options::Choice::$name($name));
            self
        })*
    };
}

/// Setters of every request.
macro_rules! entry_options {
    () => {
        /// Replaces all options for this call.
        pub fn options(mut self, options: crate::EntryOptions) -> Self {
            self.options.add(crate::options::Choice::all(Box::new(options)));
            self
        }

        crate::cache::requests::setters! {
            /// Limits how long this call waits for an L2 operation.
            l2_hard_timeout(std::time::Duration);
        }
    };
}

/// Setters of requests that read.
macro_rules! read_options {
    () => {
        /// Checks a hit in L1 against L2 and the ledger first.
        ///
        /// See [`EntryOptions::strict`](crate::EntryOptions::strict).
        pub fn strict(mut self) -> Self {
            self.options.add(crate::options::Choice::strict(true));
            self
        }

        crate::cache::requests::setters! {
            /// Limits how long a caller with a fallback waits for an L2 read.
            l2_soft_timeout(std::time::Duration);
            /// Sets how long a copy from L2 is fresh in L1.
            l1_duration(std::time::Duration);
            /// Whether to skip reading L1.
            skip_l1_read(bool);
            /// Whether to keep a copy from L2 out of L1.
            skip_l1_write(bool);
            /// Whether to skip reading L2.
            skip_l2_read(bool);
            /// Whether the call fails if it needs L2 and L2 does not answer.
            require_l2(bool);
            /// Whether to skip reading L2 if L1 has a stale entry.
            skip_l2_read_when_stale(bool);
        }
    };
}

/// Setters of requests that store.
macro_rules! store_options {
    () => {
        crate::cache::requests::setters! {
            /// Sets how long the entry is fresh (its TTL).
            duration(std::time::Duration);
            /// Sets how long the entry is fresh in L2.
            l2_duration(std::time::Duration);
            /// Adds a random time, up to this value, to the TTL.
            jitter(std::time::Duration);
            /// Whether hits renew the TTL.
            sliding(bool);
            /// Keeps the entry as a fallback, and allows this call to use one.
            fail_safe(crate::FailSafe);
            /// Sets when to reload the entry in the background before it expires.
            eager_refresh(crate::EagerRefresh);
            /// Whether L1 keeps the entry even when it is full.
            pinned(bool);
            /// Sets how much of the capacity of L1 the entry takes.
            weight(u32);
            /// Whether to write to L2 in the background.
            background_l2(bool);
            /// Whether to confirm the write to other nodes in the background.
            background_backplane(bool);
            /// Whether to skip the write to L2.
            skip_l2_write(bool);
            /// Whether to skip the notification of other nodes.
            skip_backplane(bool);
        }
    };
}

/// Setters of requests that load.
macro_rules! load_options {
    () => {
        crate::cache::requests::setters! {
            /// Answers with a fallback after this long.
            factory_soft_timeout(std::time::Duration);
            /// Stops waiting for the factory after this long.
            factory_hard_timeout(std::time::Duration);
            /// Stops the factory after this long in any case.
            factory_deadline(std::time::Duration);
            /// Whether a factory that timed out may finish and store its value.
            background_completion(bool);
            /// Whether to stop the factory when no caller waits for it any more.
            cancel_when_abandoned(bool);
            /// Limits how long to wait for another caller's load of the same key.
            wait_timeout(std::time::Duration);
            /// Whether other nodes wait for this load, and this load for theirs.
            load_lock(bool);
            /// Limits how long to wait for loads of other nodes.
            load_lock_wait(std::time::Duration);
        }
    };
}

/// Setters of requests that change something.
macro_rules! write_options {
    () => {
        /// Makes the call fail unless both L2 and the notification are confirmed.
        pub fn require_propagation(mut self) -> Self {
            self.options.add(crate::options::Choice::require_propagation(true));
            self
        }
    };
}

/// Setters of requests that store a value of the caller.
macro_rules! set_options {
    () => {
        crate::cache::requests::write_options!();
        crate::cache::requests::entry_options!();
        crate::cache::requests::store_options!();
        crate::cache::requests::setters! {
            /// Sets how long the entry is fresh in L1.
            l1_duration(std::time::Duration);
            /// Whether to keep the entry out of L1.
            skip_l1_write(bool);
        }
    };
}

/// Setters of requests that remove or expire keys.
macro_rules! remove_options {
    () => {
        crate::cache::requests::write_options!();
        crate::cache::requests::entry_options!();
        crate::cache::requests::setters! {
            /// Whether to write to L2 in the background.
            background_l2(bool);
            /// Whether to confirm the write to other nodes in the background.
            background_backplane(bool);
            /// Whether to apply the write on this node only, without L2.
            skip_l2_write(bool);
            /// Whether to skip the notification of other nodes.
            skip_backplane(bool);
        }
    };
}

/// Setter of the tags of what a request stores.
macro_rules! tags_option {
    () => {
        /// Sets the tags of every entry that this call stores. A second call replaces the first.
        /// For tags under a condition, pass an `Option`; see [`IntoTags`](crate::IntoTags).
        pub fn tags(mut self, tags: impl IntoIterator<Item: crate::IntoTags>) -> Self {
            self.tags = crate::cache::tags::collected(tags);
            self
        }
    };
}

pub(super) use {
    entry_options, load_options, read_options, remove_options, set_options, setters, store_options,
    tags_option, write_options,
};

type Found<T> = Result<Option<Cached<T>>, Error>;

/// The request of [`Cache::get`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Get<'a, T, C> {
    cache: &'a Cache<C>,
    key: Cow<'a, str>,
    options: Choices,
    value: PhantomData<fn() -> T>,
}

impl<'a, T, C> Get<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    pub(super) fn new(cache: &'a Cache<C>, key: Cow<'a, str>) -> Self {
        Self { cache, key, options: Choices::default(), value: PhantomData }
    }

    entry_options!();
    read_options!();

    /// Allows a stale value; see [`EntryOptions::allow_stale`](crate::EntryOptions::allow_stale).
    pub fn allow_stale(mut self) -> Self {
        self.options.add(Choice::allow_stale(true));
        self
    }

    /// Returns a fresh value from L1, if the options of this call allow it.
    #[inline]
    fn in_l1(&self) -> Option<Cached<T>> {
        let (node, key) = (self.cache.node(), &*self.key);
        let pass_l1 = node.passes_l1(&self.options, key);
        (!pass_l1).then(|| read::hit(node, KeyHash::of(key), key))?
    }

    async fn load(self) -> Found<T> {
        let node = Arc::clone(self.cache.node());
        let key = &*self.key;
        node.check_key(key)?;
        node.check_runtime(Some(key))?;
        let options = self.options.over(node.options_for(key));
        let call = Call::new(key, KeyHash::of(key), options, Vec::new());
        let coded = self.cache.coded();
        spans::call(spans::get(&node.telemetry, key), read::get(&coded, &call)).await
    }
}

impl<'a, T, C> Request<'a> for Get<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Found<T>;

    #[inline]
    fn hit(&self) -> Option<(Found<T>, Option<Version>)> {
        Some((Ok(Some(self.in_l1()?)), None))
    }

    #[cold]
    #[inline(never)]
    fn run(self) -> Running<'a, Found<T>> {
        Box::pin(self.load())
    }
}

impl<'a, T, C> IntoFuture for Get<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Found<T>;
    type IntoFuture = RequestFuture<'a, Self, Found<T>>;

    fn into_future(self) -> Self::IntoFuture {
        RequestFuture::new(self)
    }
}

impl<T, C> fmt::Debug for Get<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The request of [`Cache::get_or`], which runs when awaited. For any other option, use
/// [`Cache::get`].
#[must_use = "a request does nothing until awaited"]
pub struct GetOr<'a, T, C> {
    get: Get<'a, T, C>,
    default: T,
}

impl<'a, T, C> GetOr<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    pub(super) fn new(get: Get<'a, T, C>, default: T) -> Self {
        Self { get, default }
    }

    /// Allows a stale value; see [`EntryOptions::allow_stale`](crate::EntryOptions::allow_stale).
    pub fn allow_stale(mut self) -> Self {
        self.get = self.get.allow_stale();
        self
    }

    async fn load(self) -> Result<Cached<T>, Error> {
        let Self { get, default } = self;
        let (node, key) = (Arc::clone(get.cache.node()), get.key.clone());
        let found = get.load().await?;
        Ok(found.unwrap_or_else(|| Cached::detached(&key, default, node.now(), Source::Default)))
    }
}

impl<'a, T, C> Request<'a> for GetOr<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Cached<T>, Error>;

    #[inline]
    fn hit(&self) -> Option<(Self::Output, Option<Version>)> {
        Some((Ok(self.get.in_l1()?), None))
    }

    #[cold]
    #[inline(never)]
    fn run(self) -> Running<'a, Self::Output> {
        Box::pin(self.load())
    }
}

impl<'a, T, C> IntoFuture for GetOr<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Cached<T>, Error>;
    type IntoFuture = RequestFuture<'a, Self, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        RequestFuture::new(self)
    }
}

impl<T, C> fmt::Debug for GetOr<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOr").field("get", &self.get).finish_non_exhaustive()
    }
}

/// The request of [`Cache::contains`], which runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Contains<'a, C> {
    cache: &'a Cache<C>,
    key: Cow<'a, str>,
    options: Choices,
}

impl<'a, C> Contains<'a, C> {
    pub(super) fn new(cache: &'a Cache<C>, key: Cow<'a, str>) -> Self {
        Self { cache, key, options: Choices::default() }
    }

    entry_options!();
    setters! {
        /// Whether to check a hit in L1 against L2 and the ledger first.
        strict(bool);
        /// Whether to skip reading L1.
        skip_l1_read(bool);
        /// Whether to skip reading L2.
        skip_l2_read(bool);
        /// Whether the call fails if it needs L2 and L2 does not answer.
        require_l2(bool);
    }
}

impl<'a, C: Send + Sync + 'static> IntoFuture for Contains<'a, C> {
    type Output = Result<bool, Error>;
    type IntoFuture = Running<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, key, options } = self;
        Box::pin(async move {
            let (node, key) = (cache.node(), &*key);
            node.check_key(key)?;
            node.check_runtime(Some(key))?;
            let options = options.over(node.options_for(key));
            let call = Call::new(key, KeyHash::of(key), options, Vec::new());
            spans::call(spans::contains(&node.telemetry, key), read::contains(node, call)).await
        })
    }
}

impl<C> fmt::Debug for Contains<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contains").field("key", &self.key).finish_non_exhaustive()
    }
}
