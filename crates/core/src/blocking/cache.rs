use std::fmt;

use tokio::runtime::Handle;

use super::{factory, runtime, wait::wait};
use crate::cache::{DefaultCodec, IntoKey, IntoTags, Request};
use crate::entry::Cached;
use crate::error::{BoxError, Error, ErrorKind};
use crate::factory::FactoryContext;
use crate::l2::Codec;
use crate::receipt::Receipt;
use crate::runtime::Home;

/// A handle of a [`crate::Cache`] whose calls block the thread. Cheap to clone; see [the
/// module](super) for the threads on which they may block.
///
/// ```
/// use crinkle_core::Cache;
///
/// let cache = Cache::builder("shop").build()?.blocking();
/// let product = cache.get_or_set("product:42", |_| std::io::Result::Ok("tea".to_owned()))?;
/// assert_eq!(*product, "tea");
/// let _ = cache.remove("product:42")?;
/// assert!(cache.peek::<String>("product:42").is_none());
/// # Ok::<(), crinkle_core::Error>(())
/// ```
pub struct Cache<C = DefaultCodec> {
    cache: crate::Cache<C>,
    runtime: Option<Home>,
}

impl<C: Send + Sync + 'static> Cache<C> {
    /// Creates a blocking handle whose loads run on the shared [`runtime`].
    #[must_use]
    pub fn new(cache: crate::Cache<C>) -> Self {
        Self { cache, runtime: None }
    }

    /// Creates a blocking handle whose loads run on this runtime. The runtime must outlive the
    /// handle, and threads other than the callers must drive it. It must allow as many blocking
    /// threads as there may be loads.
    #[must_use]
    pub fn on(cache: crate::Cache<C>, runtime: Handle) -> Self {
        Self { cache, runtime: Some(Home::on(&runtime)) }
    }

    /// Returns the async handle of the same cache, to create requests, and for methods that do not
    /// wait (`stats`, `health`).
    #[must_use]
    pub fn inner(&self) -> &crate::Cache<C> {
        &self.cache
    }

    /// Runs a request of [`inner`](Cache::inner), with its options, to completion. Create its
    /// factory with [`factory`].
    ///
    /// ```
    /// # use crinkle_core::{Cache, blocking};
    /// # use std::time::Duration;
    /// # let cache = Cache::builder("shop").build()?.blocking();
    /// let request = cache.inner().set("price:42", 1_999_u32).tags(["prices"]);
    /// let _ = cache.wait(request.duration(Duration::from_secs(5)))?;
    /// # Ok::<(), crinkle_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The errors of the request. [`ErrorKind::WouldBlock`] if it would have to wait and this
    /// thread must not block. (Within a `LocalSet` of a multi-thread runtime, the request has
    /// started by then, and is dropped.) [`ErrorKind::NoRuntime`] if the system has no thread for
    /// the shared runtime.
    pub fn wait<T, R>(&self, request: R) -> Result<T, Error>
    where
        R: IntoFuture<Output = Result<T, Error>>,
    {
        wait(&self.runtime()?, request.into_future()).unwrap_or_else(|| {
            let what = "it drives a current-thread runtime, whose tasks the call may need; call \
                from spawn_blocking, or use the async cache";
            Err(Error::new(ErrorKind::WouldBlock, self.cache.node().place(None), what))
        })
    }

    fn runtime(&self) -> Result<Handle, Error> {
        let place = || self.cache.node().place(None);
        let none = |error| Error::with_source(ErrorKind::NoRuntime, place(), "", error);
        match &self.runtime {
            Some(home) => home.place().map(|place| place.handle().clone()),
            None => runtime(),
        }
        .map_err(none)
    }

    /// Returns the cached value, or loads it with the factory, stores it and returns it. The
    /// factory runs on another thread.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::get_or_set`], and as [`wait`](Cache::wait).
    pub fn get_or_set<'a, 'k: 'a, T, E>(
        &'a self,
        key: impl IntoKey<'k>,
        load: impl FnOnce(FactoryContext<T>) -> Result<T, E> + Send + 'static,
    ) -> Result<Cached<T>, Error>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
        E: Into<BoxError>,
    {
        self.call(self.cache.get_or_set(key, factory(load)))
    }

    /// Runs a read: a hit in L1 needs no runtime, except for an eager refresh.
    fn call<'a, T, R>(&self, request: R) -> Result<T, Error>
    where
        R: Request<'a, Output = Result<T, Error>> + IntoFuture<Output = Result<T, Error>>,
    {
        let Some((answer, due)) = request.hit() else { return self.wait(request) };
        if let Some(version) = due {
            let _context = self.runtime()?.enter();
            request.refresh(version);
        }
        answer
    }

    /// Returns the value from L1 or L2; never runs a factory.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::get`], and as [`wait`](Cache::wait).
    pub fn get<'a, 'k: 'a, T>(&'a self, key: impl IntoKey<'k>) -> Result<Option<Cached<T>>, Error>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        self.call(self.cache.get(key))
    }

    /// Returns the value from L1 or L2, else `default`, which is not stored.
    ///
    /// # Errors
    ///
    /// As [`get`](Cache::get).
    pub fn get_or<'a, 'k: 'a, T>(
        &'a self,
        key: impl IntoKey<'k>,
        default: T,
    ) -> Result<Cached<T>, Error>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        self.call(self.cache.get_or(key, default))
    }

    /// Whether L1 or L2 has a fresh value of the key, of any type.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::contains`], and as [`wait`](Cache::wait).
    pub fn contains<'a, 'k: 'a>(&'a self, key: impl IntoKey<'k>) -> Result<bool, Error> {
        self.wait(self.cache.contains(key))
    }

    /// Returns a fresh value from L1; never waits.
    #[must_use]
    pub fn peek<'k, T>(&self, key: impl IntoKey<'k>) -> Option<Cached<T>>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        self.cache.peek(key)
    }

    /// Stores a value in L1 and L2, and notifies the other nodes, which drop their copies.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::set`], and as [`wait`](Cache::wait).
    pub fn set<'a, 'k: 'a, T>(&'a self, key: impl IntoKey<'k>, value: T) -> Result<Receipt, Error>
    where
        T: Send + Sync + 'static,
        C: Codec<T>,
    {
        self.wait(self.cache.set(key, value))
    }

    /// Removes a key on every node and in L2; fail-safe cannot use the old value either.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::remove`], and as [`wait`](Cache::wait).
    pub fn remove<'a, 'k: 'a>(&'a self, key: impl IntoKey<'k>) -> Result<Receipt, Error> {
        self.wait(self.cache.remove(key))
    }

    /// Removes a key and every entry that carries one of the tags, in one round trip.
    ///
    /// # Errors
    ///
    /// As [`crate::Remove::and_tags`], and as [`wait`](Cache::wait).
    pub fn remove_and_tags<'a, 'k: 'a>(
        &'a self,
        key: impl IntoKey<'k>,
        tags: impl IntoIterator<Item: IntoTags>,
    ) -> Result<Receipt, Error> {
        self.wait(self.cache.remove(key).and_tags(tags))
    }

    /// Makes a key stale on every node and in L2; fail-safe may still use the value.
    ///
    /// # Errors
    ///
    /// As [`remove`](Cache::remove).
    pub fn expire<'a, 'k: 'a>(&'a self, key: impl IntoKey<'k>) -> Result<Receipt, Error> {
        self.wait(self.cache.expire(key))
    }

    /// Removes every entry that carries the tag; fail-safe cannot use the old values either.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::remove_by_tag`], and as [`wait`](Cache::wait).
    pub fn remove_by_tag(&self, tag: impl Into<String>) -> Result<Receipt, Error> {
        self.wait(self.cache.remove_by_tag(tag))
    }

    /// Removes by several tags, as [`remove_by_tag`](Cache::remove_by_tag) does, in one round trip.
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    pub fn remove_by_tags(
        &self,
        tags: impl IntoIterator<Item: IntoTags>,
    ) -> Result<Receipt, Error> {
        self.wait(self.cache.remove_by_tags(tags))
    }

    /// Makes every entry that carries the tag stale; fail-safe may still use the values.
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    pub fn expire_by_tag(&self, tag: impl Into<String>) -> Result<Receipt, Error> {
        self.wait(self.cache.expire_by_tag(tag))
    }

    /// Expires by several tags, as [`expire_by_tag`](Cache::expire_by_tag) does, in one round trip.
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    pub fn expire_by_tags(
        &self,
        tags: impl IntoIterator<Item: IntoTags>,
    ) -> Result<Receipt, Error> {
        self.wait(self.cache.expire_by_tags(tags))
    }

    /// Makes every entry of this cache stale, on every node; fail-safe may still use the values.
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    #[doc(alias = "clear")]
    pub fn expire_all(&self) -> Result<Receipt, Error> {
        self.wait(self.cache.expire_all())
    }

    /// Removes every entry of this cache, on every node; fail-safe cannot use the old values
    /// either.
    ///
    /// # Errors
    ///
    /// As [`remove_by_tag`](Cache::remove_by_tag).
    #[doc(alias = "clear")]
    pub fn remove_all(&self) -> Result<Receipt, Error> {
        self.wait(self.cache.remove_all())
    }

    /// Closes the cache: sends what is pending for L2, stops the background tasks and waits for
    /// running loads.
    ///
    /// # Errors
    ///
    /// As [`crate::Cache::close`], and as [`wait`](Cache::wait).
    pub fn close(&self) -> Result<(), Error> {
        self.wait(self.cache.close())
    }
}

impl<C: Send + Sync + 'static> crate::Cache<C> {
    /// Returns a handle of this cache for code that is not async; see
    /// [`blocking`](crate::blocking).
    #[must_use]
    pub fn blocking(&self) -> Cache<C> {
        Cache::new(self.clone())
    }
}

impl<C> Clone for Cache<C> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), runtime: self.runtime.clone() }
    }
}

impl<C> fmt::Debug for Cache<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blocking").field(&self.cache).finish()
    }
}
