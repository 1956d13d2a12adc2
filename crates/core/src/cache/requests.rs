use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::mem::replace;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::Cache;
use crate::entry::{Cached, Source};
use crate::error::Error;
use crate::l2::Codec;
use crate::options::{Choice, Choices};
use crate::protocol::KeyHash;
use crate::read::{self, Call};
use crate::telemetry::spans;

/// The future of a [`Get`]: a hit is answered in its first poll, without allocating; only a miss is
/// boxed.
pub struct GetFuture<'a, T, C> {
    state: GetState<'a, T, C>,
}

type Found<T> = Result<Option<Cached<T>>, Error>;

enum GetState<'a, T, C> {
    New(Get<'a, T, C>),
    Slow(Pin<Box<dyn Future<Output = Found<T>> + Send + 'a>>),
    Done,
}

/// Nothing in it is pinned: the request is moved out before anything polls it.
impl<T, C> Unpin for GetFuture<'_, T, C> {}

impl<T, C> Future for GetFuture<'_, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Found<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Found<T>> {
        let state = &mut self.get_mut().state;
        if let GetState::New(request) = state {
            if let Some(cached) = request.hit() {
                *state = GetState::Done;
                return Poll::Ready(Ok(Some(cached)));
            }
            if let GetState::New(request) = replace(state, GetState::Done) {
                *state = GetState::Slow(boxed(request));
            }
        }
        let GetState::Slow(running) = state else { return Poll::Pending };
        let found = ready!(running.as_mut().poll(cx));
        *state = GetState::Done;
        Poll::Ready(found)
    }
}

/// Out of the way of a hit: what is boxed is built on the stack first.
#[cold]
#[inline(never)]
fn boxed<'a, T, C>(request: Get<'a, T, C>) -> Pin<Box<dyn Future<Output = Found<T>> + Send + 'a>>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    Box::pin(request.run())
}

impl<T, C> fmt::Debug for GetFuture<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GetFuture")
    }
}

/// Setters of a request, each for this call only.
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

/// What every request can choose.
macro_rules! entry_options {
    () => {
        /// Replaces all options for this call.
        pub fn options(mut self, options: crate::EntryOptions) -> Self {
            self.options.add(crate::options::Choice::all(Box::new(options)));
            self
        }

        crate::cache::requests::setters! {
            /// How long an L2 operation may keep this call waiting.
            l2_hard_timeout(std::time::Duration);
        }
    };
}

/// What requests that read can choose.
macro_rules! read_options {
    () => {
        /// Has a hit in L1 checked against L2 and the ledger first.
        ///
        /// See [`EntryOptions::strict`](crate::EntryOptions::strict).
        pub fn strict(mut self) -> Self {
            self.options.add(crate::options::Choice::strict(true));
            self
        }

        crate::cache::requests::setters! {
            /// How long an L2 read may keep a caller waiting who has a fallback.
            l2_soft_timeout(std::time::Duration);
            /// How long a copy from L2 is fresh here.
            l1_duration(std::time::Duration);
            /// Whether to leave out L1.
            skip_l1_read(bool);
            /// Whether a copy from L2 is kept out of L1.
            skip_l1_write(bool);
            /// Whether to leave out L2.
            skip_l2_read(bool);
            /// Whether it is an error if L2 is needed and does not answer.
            require_l2(bool);
            /// Whether to leave out L2 if L1 has a stale entry.
            skip_l2_read_when_stale(bool);
        }
    };
}

/// What requests that store can choose.
macro_rules! store_options {
    () => {
        crate::cache::requests::setters! {
            /// How long the entry is fresh.
            duration(std::time::Duration);
            /// How long it is fresh in L2.
            l2_duration(std::time::Duration);
            /// A random time that is added to its life.
            jitter(std::time::Duration);
            /// Whether hits prolong its life.
            sliding(bool);
            /// Keeps the entry as a fallback, and allows this call to use one.
            fail_safe(crate::FailSafe);
            /// When the entry is loaded anew before its life is over.
            eager_refresh(crate::EagerRefresh);
            /// Whether L1 keeps it however full it is.
            pinned(bool);
            /// What the entry counts for in L1's capacity.
            weight(u32);
            /// Whether not to wait for L2.
            background_l2(bool);
            /// Whether not to wait for the confirmation to other nodes.
            background_backplane(bool);
            /// Whether to leave L2 as it is.
            skip_l2_write(bool);
            /// Whether to emit the other nodes nothing.
            skip_backplane(bool);
        }
    };
}

/// What requests that load can choose.
macro_rules! load_options {
    () => {
        crate::cache::requests::setters! {
            /// Answer with a fallback after this long.
            factory_soft_timeout(std::time::Duration);
            /// Give up on the factory after this long.
            factory_hard_timeout(std::time::Duration);
            /// The factory's end in any case.
            factory_deadline(std::time::Duration);
            /// Whether a factory that timed out may finish.
            background_completion(bool);
            /// Whether the factory is stopped when nobody waits for it any more.
            cancel_when_abandoned(bool);
            /// How long to wait for another caller's load.
            wait_timeout(std::time::Duration);
            /// Whether other nodes wait for this load, and this load for theirs.
            load_lock(bool);
            /// How long to wait for another node's load.
            load_lock_wait(std::time::Duration);
        }
    };
}

/// What requests that change something can choose.
macro_rules! write_options {
    () => {
        /// Makes it an error if L2 and the notification are not confirmed.
        pub fn require_propagation(mut self) -> Self {
            self.options.add(crate::options::Choice::require_propagation(true));
            self
        }
    };
}

pub(super) use {entry_options, load_options, read_options, setters, store_options, write_options};

/// A `get` that runs when awaited.
#[must_use = "a request does nothing until awaited"]
pub struct Get<'a, T, C> {
    cache: &'a Cache<C>,
    key: &'a str,
    options: Choices,
    value: PhantomData<fn() -> T>,
}

impl<'a, T, C> Get<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    pub(super) fn new(cache: &'a Cache<C>, key: &'a str) -> Self {
        Self { cache, key, options: Choices::default(), value: PhantomData }
    }

    entry_options!();
    read_options!();

    /// Allows a stale answer; see [`EntryOptions::allow_stale`](crate::EntryOptions::allow_stale).
    pub fn allow_stale(mut self) -> Self {
        self.options.add(Choice::allow_stale(true));
        self
    }

    /// A fresh value of L1, if this call may have one.
    pub(crate) fn hit(&self) -> Option<Cached<T>> {
        let inner = self.cache.inner();
        let pass = self.options.pass_l1(inner, self.key);
        (!pass).then(|| read::hit(inner, KeyHash::of(self.key), self.key))?
    }

    async fn run(self) -> Result<Option<Cached<T>>, Error> {
        let inner = Arc::clone(self.cache.inner());
        inner.check_key(self.key)?;
        inner.check_runtime(Some(self.key))?;
        let hash = KeyHash::of(self.key);
        let options = self.options.over(inner.options_for(self.key));
        let call = Call::new(self.key, hash, options, Vec::new());
        spans::call(spans::get(&inner.telemetry, self.key), read::get(&inner, &call)).await
    }
}

impl<'a, T, C> IntoFuture for Get<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Option<Cached<T>>, Error>;
    type IntoFuture = GetFuture<'a, T, C>;

    fn into_future(self) -> GetFuture<'a, T, C> {
        GetFuture { state: GetState::New(self) }
    }
}

impl<T, C> fmt::Debug for Get<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A `get_or` that runs when awaited. For any other option, use [`Cache::get`].
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

    /// Allows a stale answer; see [`EntryOptions::allow_stale`](crate::EntryOptions::allow_stale).
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
