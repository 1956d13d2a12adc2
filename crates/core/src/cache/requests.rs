use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Cache;
use crate::entry::{Cached, Source};
use crate::error::Error;
use crate::l2::Codec;
use crate::options::EntryOptions;
use crate::protocol::KeyHash;
use crate::read::{self, Call};

/// The future of a [`Get`]: a hit is ready at once, without allocating; only a miss is boxed.
pub struct GetFuture<'a, T> {
    state: GetState<'a, T>,
}

type Found<T> = Result<Option<Cached<T>>, Error>;

enum GetState<'a, T> {
    Hit(Option<Cached<T>>),
    Slow(Pin<Box<dyn Future<Output = Found<T>> + Send + 'a>>),
}

impl<T> Future for GetFuture<'_, T> {
    type Output = Found<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Found<T>> {
        match &mut self.get_mut().state {
            GetState::Hit(cached) => Poll::Ready(Ok(cached.take())),
            GetState::Slow(running) => running.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for GetFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GetFuture")
    }
}

/// Setters of a request, each for this call only.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($arg:ident: $ty:ty);)*) => {
        $($(#[$doc])*
        #[doc = ""]
        #[doc = concat!("See [`EntryOptions::", stringify!($name), "`](crate::EntryOptions::", stringify!($name), ").")]
        pub fn $name(mut self, $arg: $ty) -> Self {
            let options = self.take_options().$name($arg);
            self.options = Some(options);
            self
        })*
    };
}

/// What every request can choose.
macro_rules! entry_options {
    () => {
        /// Replaces all options for this call.
        pub fn options(mut self, options: crate::EntryOptions) -> Self {
            self.options = Some(options);
            self
        }

        fn take_options(&mut self) -> crate::EntryOptions {
            let cache = self.cache;
            self.options.take().unwrap_or_else(|| cache.inner().defaults.clone())
        }

        crate::cache::requests::setters! {
            /// How long an L2 operation may keep this call waiting.
            l2_hard_timeout(timeout: std::time::Duration);
        }
    };
}

/// What requests that load or store can choose.
macro_rules! load_options {
    () => {
        crate::cache::requests::setters! {
            /// How long the entry is fresh.
            duration(duration: std::time::Duration);
            /// Keeps the entry as a fallback, and allows this call to use one.
            fail_safe(fail_safe: crate::FailSafe);
            /// Answer with a fallback after this long.
            factory_soft_timeout(timeout: std::time::Duration);
            /// Give up on the factory after this long.
            factory_hard_timeout(timeout: std::time::Duration);
            /// The factory's end in any case.
            factory_deadline(deadline: std::time::Duration);
            /// Whether a factory that timed out may finish.
            background_completion(on: bool);
            /// How long an L2 read may keep a caller waiting who has a fallback.
            l2_soft_timeout(timeout: std::time::Duration);
            /// How long to wait for another caller's load.
            flight_timeout(timeout: std::time::Duration);
            /// Whether other nodes wait for this load, and this load for theirs.
            lease(on: bool);
            /// How long to wait for another node's load.
            lease_wait(wait: std::time::Duration);
            /// What the entry counts for in L1's capacity.
            weight(weight: u32);
        }
    };
}

pub(super) use {entry_options, load_options, setters};

/// A `get` that runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Get<'a, T, C> {
    cache: &'a Cache<C>,
    key: &'a str,
    options: Option<EntryOptions>,
    value: PhantomData<fn() -> T>,
}

impl<'a, T, C> Get<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    pub(super) fn new(cache: &'a Cache<C>, key: &'a str) -> Self {
        Self { cache, key, options: None, value: PhantomData }
    }

    entry_options!();

    /// Allows a stale answer; see [`EntryOptions::allow_stale`].
    pub fn allow_stale(mut self) -> Self {
        let options = self.take_options().allow_stale(true);
        self.options = Some(options);
        self
    }

    async fn run(self) -> Result<Option<Cached<T>>, Error> {
        let inner = Arc::clone(self.cache.inner());
        inner.check_key(self.key)?;
        let hash = KeyHash::of(self.key);
        let options = self.options.unwrap_or_else(|| inner.defaults.clone());
        let call = Call { key: self.key.into(), hash, options, tags: Vec::new() };
        read::get(&inner, call).await
    }
}

impl<'a, T, C> IntoFuture for Get<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Option<Cached<T>>, Error>;
    type IntoFuture = GetFuture<'a, T>;

    fn into_future(self) -> GetFuture<'a, T> {
        let hash = KeyHash::of(self.key);
        let state = match read::hit(self.cache.inner(), hash, self.key) {
            Some(cached) => GetState::Hit(Some(cached)),
            None => GetState::Slow(Box::pin(self.run())),
        };
        GetFuture { state }
    }
}

impl<T, C> fmt::Debug for Get<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A `get_or` that runs when awaited.
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

    /// Allows a stale answer; see [`EntryOptions::allow_stale`].
    pub fn allow_stale(mut self) -> Self {
        self.get = self.get.allow_stale();
        self
    }
}

impl<'a, T, C> IntoFuture for GetOr<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Cached<T>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { get, default } = self;
        Box::pin(async move {
            let (inner, key) = (Arc::clone(get.cache.inner()), get.key);
            let found = get.await?;
            Ok(found
                .unwrap_or_else(|| Cached::detached(key, default, inner.now(), Source::Default)))
        })
    }
}

impl<T, C> fmt::Debug for GetOr<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOr").field("get", &self.get).finish_non_exhaustive()
    }
}
