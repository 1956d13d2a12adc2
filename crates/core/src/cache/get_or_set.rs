use std::fmt;
use std::future::IntoFuture;
use std::mem::replace;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::Cache;
use super::requests::{entry_options, load_options, read_options, store_options};
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
    key: &'a str,
    factory: F,
    tags: G,
    options: Choices,
    default: Option<T>,
}

impl<'a, T, C, F> GetOrSet<'a, T, C, F> {
    pub(super) fn new(cache: &'a Cache<C>, key: &'a str, factory: F) -> Self {
        Self { cache, key, factory, tags: [], options: Choices::default(), default: None }
    }
}

impl<'a, T, C, F, G> GetOrSet<'a, T, C, F, G>
where
    C: Send + Sync + 'static,
{
    /// Sets the tags of the entry if this call loads it. A hit does not read them. A second call
    /// replaces the first.
    pub fn tags<H>(self, tags: H) -> GetOrSet<'a, T, C, F, H>
    where
        H: IntoIterator,
        H::Item: Into<String>,
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

impl<T, C, F, G> GetOrSet<'_, T, C, F, G>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    /// Returns a fresh value from L1, if the options of this call allow it.
    pub(crate) fn hit(&self, hash: KeyHash) -> Option<Cached<T>> {
        let node = self.cache.node();
        let pass_l1 = node.passes_l1(&self.options, self.key);
        (!pass_l1).then(|| read::hit(node, hash, self.key))?
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
    G::Item: Into<String>,
{
    type Output = Result<Cached<T>, Error>;
    type IntoFuture = GetOrSetFuture<'a, T, C, F, G>;

    fn into_future(self) -> Self::IntoFuture {
        GetOrSetFuture { state: State::New(self) }
    }
}

/// The future of a [`GetOrSet`]. A hit completes in its first poll, without allocating; only a miss
/// is boxed.
pub struct GetOrSetFuture<'a, T, C, F, G> {
    state: State<'a, T, C, F, G>,
}

enum State<'a, T, C, F, G> {
    New(GetOrSet<'a, T, C, F, G>),
    Slow(Running<T>),
    Done,
}

/// Sound because nothing in it is pinned: `poll` moves the request out before anything polls it.
impl<T, C, F, G> Unpin for GetOrSetFuture<'_, T, C, F, G> {}

impl<'a, T, C, F, G, Fut, E> Future for GetOrSetFuture<'a, T, C, F, G>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
    F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
    G: IntoIterator + Send + 'a,
    G::Item: Into<String>,
{
    type Output = Result<Cached<T>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::New(request) = &this.state {
            let hash = KeyHash::of(request.key);
            if let Some(cached) = request.hit(hash) {
                match cached.take_due() {
                    // The request is large, so it is dropped in place.
                    None => this.state = State::Done,
                    Some(version) => {
                        if let State::New(request) = replace(&mut this.state, State::Done) {
                            refresh(request, hash, version);
                        }
                    }
                }
                return Poll::Ready(Ok(cached));
            }
            let State::New(request) = replace(&mut this.state, State::Done) else {
                return Poll::Pending;
            };
            match slow(request, hash) {
                Ok(running) => this.state = State::Slow(running),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let State::Slow(running) = &mut this.state else {
            return Poll::Pending;
        };
        let result = ready!(running.as_mut().poll(cx));
        this.state = State::Done;
        Poll::Ready(result)
    }
}

type Running<T> = Pin<Box<dyn Future<Output = Result<Cached<T>, Error>> + Send>>;

/// Not inlined into the hit path, because a boxed future is first built on the stack.
#[cold]
#[inline(never)]
fn slow<T, C, F, G, Fut, E>(
    request: GetOrSet<'_, T, C, F, G>,
    hash: KeyHash,
) -> Result<Running<T>, Error>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
    F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
    G: IntoIterator,
    G::Item: Into<String>,
{
    let (node, coded) = (request.cache.node(), request.cache.coded());
    node.check_key(request.key)?;
    node.check_runtime(Some(request.key))?;
    let (call, factory, default) = into_call(request, hash);
    let span = spans::get_or_set(&node.telemetry, &call.key);
    let run = read::run(coded, call, boxed(factory), default);
    Ok(if span.is_disabled() { Box::pin(run) } else { Box::pin(spans::call(span, run)) })
}

/// Reloads in the background the value that was just returned (eager refresh).
#[cold]
pub(crate) fn refresh<T, C, F, G, Fut, E>(
    request: GetOrSet<'_, T, C, F, G>,
    hash: KeyHash,
    version: Version,
) where
    T: Send + Sync + 'static,
    C: Codec<T>,
    F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
    G: IntoIterator,
    G::Item: Into<String>,
{
    let coded = request.cache.coded();
    let (call, factory, _) = into_call(request, hash);
    read::refresh(&coded, call.refreshing(version), boxed(factory));
}

fn into_call<T, C, F, G>(request: GetOrSet<'_, T, C, F, G>, hash: KeyHash) -> (Call, F, Option<T>)
where
    C: Send + Sync + 'static,
    G: IntoIterator,
    G::Item: Into<String>,
{
    let GetOrSet { cache, key, factory, tags, options, default } = request;
    let options = options.over(cache.node().options_for(key));
    let tags = tags.into_iter().map(Into::into).collect();
    (Call::new(key, hash, options, tags), factory, default)
}

impl<T, C, F, G> fmt::Debug for GetOrSet<'_, T, C, F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetOrSet").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<T, C, F, G> fmt::Debug for GetOrSetFuture<'_, T, C, F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::New(_) => "New",
            State::Slow(_) => "Slow",
            State::Done => "Done",
        };
        f.debug_struct("GetOrSetFuture").field("state", &state).finish()
    }
}
