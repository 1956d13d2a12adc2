use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::join;
use futures_util::stream::{self, StreamExt};

use super::Cache;
use super::requests::{
    entry_options, load_options, read_options, remove_options, set_options, setters, store_options,
    tags_option,
};
use crate::background::ensure_runtime_runs;
use crate::entry::Cached;
use crate::error::{BoxError, Error};
use crate::factory::loader;
use crate::l2::Codec;
use crate::node::Node;
use crate::options::Choices;
use crate::protocol::KeyHash;
use crate::protocol::ledger::Strength;
use crate::read::{self, Call};
use crate::receipt::Receipt;
use crate::telemetry::spans;
use crate::write;

/// The number of concurrent writes of one batch.
const CONCURRENCY: usize = 256;

type Boxed<'a, R> = Pin<Box<dyn Future<Output = Result<R, Error>> + Send + 'a>>;

/// Defines a batch request: its keys, its options, and further fields.
macro_rules! batch {
    ($(#[$doc:meta])* $name:ident<$($param:ident),*> { $($field:ident: $ty:ty),* }) => {
        $(#[$doc])*
        #[must_use = "a request does nothing until awaited"]
        pub struct $name<'a, $($param,)* C> {
            cache: &'a Cache<C>,
            keys: Keys,
            options: Choices,
            $($field: $ty,)*
        }

        impl<$($param,)* C> fmt::Debug for $name<'_, $($param,)* C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("keys", &self.keys.len()).finish_non_exhaustive()
            }
        }
    };
}

batch! {
    /// The request of [`Cache::get_many`], which runs when awaited.
    GetMany<T> { value: PhantomData<fn() -> T> }
}

batch! {
    /// The request of [`Cache::get_or_set_many`], which runs when awaited.
    GetOrSetMany<T, F> { factory: F, tags: Vec<String>, value: PhantomData<fn() -> T> }
}

batch! {
    /// The request of [`Cache::set_many`], which runs when awaited.
    SetMany<T> { values: Vec<T>, tags: Vec<String> }
}

batch! {
    /// The request of [`Cache::remove_many`] and [`Cache::expire_many`], which runs when awaited.
    RemoveMany<> { strength: Strength }
}

/// The keys of a batch, concatenated in one string to save allocations.
#[derive(Default)]
pub(super) struct Keys {
    text: String,
    ends: Vec<usize>,
}

impl Keys {
    fn push(&mut self, key: &str) {
        self.text.push_str(key);
        self.ends.push(self.text.len());
    }

    pub(super) fn of<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        owned(keys)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    fn at(&self, place: usize) -> &str {
        let begin = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[begin..self.ends[place]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|place| self.at(place))
    }
}

/// The expected length of a key.
const KEY_LEN: usize = 24;

fn owned(keys: impl IntoIterator<Item: AsRef<str>>) -> Keys {
    let keys = keys.into_iter();
    let count = keys.size_hint().0;
    let (text, ends) = (String::with_capacity(count * KEY_LEN), Vec::with_capacity(count));
    let mut owned = Keys { text, ends };
    keys.for_each(|key| owned.push(key.as_ref()));
    owned
}

pub(super) fn calls<'k, C: Send + Sync + 'static>(
    cache: &Cache<C>,
    keys: impl IntoIterator<Item = &'k str>,
    options: &Choices,
    tags: &[String],
) -> Result<Vec<Call>, Error> {
    let node = cache.node();
    node.check_runtime(None)?;
    keys.into_iter()
        .map(|key| {
            node.check_key(key)?;
            let options = options.over(node.options_for(key));
            Ok(Call::new(key, KeyHash::of(key), options, tags.to_vec()))
        })
        .collect()
}

impl<'a, T, C> GetMany<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    pub(super) fn new(cache: &'a Cache<C>, keys: impl IntoIterator<Item: AsRef<str>>) -> Self {
        Self { cache, keys: owned(keys), options: Choices::default(), value: PhantomData }
    }

    entry_options!();
    read_options!();
    setters! {
        /// Whether to return stale values.
        allow_stale(bool);
    }
}

impl<'a, T, C> IntoFuture for GetMany<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Vec<Option<Cached<T>>>, Error>;
    type IntoFuture = Boxed<'a, Vec<Option<Cached<T>>>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, options, .. } = self;
        Box::pin(async move {
            let node = cache.node();
            keys.iter().try_for_each(|key| node.check_key(key))?;
            let mut answers: Vec<_> = hits(node, &keys, &options).collect();
            if answers.iter().all(Option::is_some) {
                return Ok(answers);
            }
            let absent: Vec<_> = (0..keys.len()).filter(|at| answers[*at].is_none()).collect();
            let calls = calls(cache, absent.iter().map(|at| keys.at(*at)), &options, &[])?;
            let span = spans::get_many(&node.telemetry, calls.len());
            let found = spans::call(span, read::get_many(&cache.coded(), &calls)).await?;
            for (at, found) in absent.into_iter().zip(found) {
                answers[at] = found;
            }
            Ok(answers)
        })
    }
}

/// Returns the fresh values from L1 that the options allow, all at the same moment.
fn hits<T>(node: &Node, keys: &Keys, options: &Choices) -> impl Iterator<Item = Option<Cached<T>>>
where
    T: Send + Sync + 'static,
{
    let now = node.recent();
    keys.iter().map(move |key| match node.passes_l1(options, key) {
        false => read::hit_at(node, KeyHash::of(key), key, || now),
        true => None,
    })
}

impl<'a, T, F, C> GetOrSetMany<'a, T, F, C>
where
    C: Send + Sync + 'static,
{
    pub(super) fn new(
        cache: &'a Cache<C>,
        keys: impl IntoIterator<Item: AsRef<str>>,
        factory: F,
    ) -> Self {
        let (keys, tags, value) = (owned(keys), Vec::new(), PhantomData);
        Self { cache, keys, options: Choices::default(), factory, tags, value }
    }

    tags_option!();

    entry_options!();
    read_options!();
    store_options!();
    load_options!();
}

impl<'a, T, F, C, Fut, M, K, E> IntoFuture for GetOrSetMany<'a, T, F, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
    F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<M, E>> + Send + 'static,
    M: IntoIterator<Item = (K, T)> + 'static,
    K: Into<String>,
    E: Into<BoxError> + 'static,
{
    type Output = Result<Vec<Cached<T>>, Error>;
    type IntoFuture = Boxed<'a, Vec<Cached<T>>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, options, factory, tags, .. } = self;
        let load = loader(factory);
        Box::pin(async move {
            let calls = calls(cache, keys.iter(), &options, &tags)?;
            let node = cache.node();
            let span = spans::get_or_set_many(&node.telemetry, calls.len());
            spans::call(span, read::run_many(&cache.coded(), calls, load)).await
        })
    }
}

impl<'a, T, C> SetMany<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    pub(super) fn new(
        cache: &'a Cache<C>,
        entries: impl IntoIterator<Item = (impl AsRef<str>, T)>,
    ) -> Self {
        let (mut keys, mut values) = (Keys::default(), Vec::new());
        for (key, value) in entries {
            keys.push(key.as_ref());
            values.push(value);
        }
        Self { cache, keys, options: Choices::default(), values, tags: Vec::new() }
    }

    tags_option!();

    set_options!();
}

impl<'a, T, C> IntoFuture for SetMany<'a, T, C>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
{
    type Output = Result<Receipt, Error>;
    type IntoFuture = Boxed<'a, Receipt>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, options, values, tags } = self;
        Box::pin(async move {
            let calls = calls(cache, keys.iter(), &options, &tags)?;
            let node = cache.node();
            if !node.enabled {
                return Ok(Receipt::local());
            }
            // Validates all of them before the first write changes anything.
            for call in &calls {
                call.options.validate(&node.place(Some(&call.key)))?;
                node.check_tags(&call.key, &call.tags)?;
            }
            let span = spans::set_many(&node.telemetry, calls.len());
            let batch = write::BatchSet::begin(node, &calls, CONCURRENCY);
            let coded = &cache.coded();
            let writes = calls.into_iter().zip(values).enumerate();
            let set = run_all(writes.map(|(at, (call, value))| {
                let batch = &batch;
                async move {
                    batch.end(at);
                    write::set(coded, &call.key, value, call.options, call.tags).await
                }
            }));
            join(spans::call(span, set), ensure_runtime_runs(node)).await.0
        })
    }
}

impl<'a, C: Send + Sync + 'static> RemoveMany<'a, C> {
    pub(super) fn new(
        cache: &'a Cache<C>,
        keys: impl IntoIterator<Item: AsRef<str>>,
        strength: Strength,
    ) -> Self {
        Self { cache, keys: owned(keys), options: Choices::default(), strength }
    }

    pub(super) fn into_parts(self) -> (&'a Cache<C>, Keys, Strength, Choices) {
        (self.cache, self.keys, self.strength, self.options)
    }

    remove_options!();
}

impl<'a, C: Send + Sync + 'static> IntoFuture for RemoveMany<'a, C> {
    type Output = Result<Receipt, Error>;
    type IntoFuture = Boxed<'a, Receipt>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { cache, keys, options, strength } = self;
        Box::pin(async move {
            let calls = calls(cache, keys.iter(), &options, &[])?;
            let node = cache.node();
            for call in &calls {
                call.options.validate(&node.place(Some(&call.key)))?;
            }
            let span = match strength {
                Strength::Hard => spans::remove_many(&node.telemetry, calls.len()),
                Strength::Soft => spans::expire_many(&node.telemetry, calls.len()),
            };
            let all = spans::call(span, invalidate_all(node, strength, calls));
            join(all, ensure_runtime_runs(node)).await.0
        })
    }
}

/// Removes or expires these keys concurrently.
pub(super) async fn invalidate_all(
    node: &Arc<Node>,
    strength: Strength,
    calls: Vec<Call>,
) -> Result<Receipt, Error> {
    // Hides all of them on this node before the first removal is sent.
    let batch = write::BatchRemoval::hide(node, strength, &calls);
    let remove = calls.into_iter().map(|call| {
        let batch = &batch;
        async move {
            let _pending = batch.send(&call.key);
            write::invalidate(node, &call.key, strength, &call.options).await
        }
    });
    run_all(remove).await
}

/// Runs writes concurrently, so that they share round trips. All of them run, even if one fails.
/// Returns the weakest receipt, or the first error.
async fn run_all<W>(writes: impl Iterator<Item = W> + Send) -> Result<Receipt, Error>
where
    W: Future<Output = Result<Receipt, Error>> + Send,
{
    let results = stream::iter(writes).buffered(CONCURRENCY);
    let both =
        |all: Result<Receipt, Error>, one: Result<Receipt, Error>| async { Ok(all?.and(one?)) };
    results.fold(Ok(Receipt::local()), both).await
}
