//! Factories of the tests, which count their loads, fail, or wait at a gate, and usual options.

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crinkle_core::l2::{Codec, MessagePack};
use crinkle_core::{
    BoxError, Cache, Cached, EntryOptions, Error, ErrorKind, FactoryContext, FailSafe,
};
use crinkle_testkit::chaos::Gate;
use tokio::task::JoinHandle;

/// The error of the tests' failing sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestError;

impl TestError {
    /// Returns the error.
    pub const fn new() -> Self {
        Self
    }
}

impl fmt::Display for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the source is down")
    }
}

impl std::error::Error for TestError {}

/// Counts the loads of a source.
#[derive(Clone, Debug, Default)]
pub struct Loads(Arc<AtomicUsize>);

impl Loads {
    /// Creates a counter at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many loads there were.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns a factory that counts and answers.
    pub fn value<X, T: Send + 'static>(
        &self,
        value: T,
    ) -> impl FnOnce(X) -> Ready<Result<T, BoxError>> + Send + use<X, T> {
        let count = Arc::clone(&self.0);
        move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            ready(Ok(value))
        }
    }

    /// Returns a factory that counts and fails.
    pub fn fail<X, T: Send + 'static>(
        &self,
    ) -> impl FnOnce(X) -> Ready<Result<T, TestError>> + Send + use<X, T> {
        let count = Arc::clone(&self.0);
        move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            ready(Err(TestError))
        }
    }

    /// Returns a factory that counts, waits at a gate and answers.
    pub fn gated<X, T: Send + 'static>(
        &self,
        gate: &Gate,
        value: T,
    ) -> impl FnOnce(X) -> Boxed<T> + Send + use<X, T> {
        let (count, gate) = (Arc::clone(&self.0), gate.clone());
        move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                gate.pass().await;
                Ok(value)
            })
        }
    }
}

/// The future of a gated factory.
pub type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Returns a factory that waits at a gate and answers.
pub fn gated<X, T: Send + 'static>(
    gate: &Gate,
    value: T,
) -> impl FnOnce(X) -> Boxed<T> + Send + use<X, T> {
    Loads::new().gated(gate, value)
}

/// Runs a call in a task of its own.
pub fn go<F>(call: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(call)
}

/// Returns the kind of an error; panics if there is none.
pub fn kind_of<T: fmt::Debug>(result: Result<Cached<T>, Error>) -> ErrorKind {
    result.expect_err("an error").kind()
}

/// A TTL of ten seconds, and fail-safe for an hour with a throttle of 30 s.
pub fn options() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(10))
        .fail_safe(FailSafe::for_up_to(Duration::from_secs(3600)))
}

/// A TTL of ten minutes, and no fail-safe.
#[must_use]
pub fn long() -> EntryOptions {
    EntryOptions::new(Duration::from_secs(600))
}

/// [`options`] with a TTL of ten minutes.
#[must_use]
pub fn long_fail_safe() -> EntryOptions {
    options().duration(Duration::from_secs(600))
}

/// So many milliseconds.
#[must_use]
pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs a `get_or_set` in a task of its own.
pub fn load<T, F, Fut, E>(
    cache: &Cache,
    key: &str,
    tags: &[&str],
    options: EntryOptions,
    factory: F,
) -> JoinHandle<Result<Cached<T>, Error>>
where
    MessagePack: Codec<T>,
    T: Send + Sync + 'static,
    F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    let (cache, key) = (cache.clone(), key.to_owned());
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    go(async move { cache.get_or_set(&key, factory).tags(tags).options(options).await })
}
