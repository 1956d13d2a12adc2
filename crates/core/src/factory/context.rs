use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::entry::Cached;
use crate::error::BoxError;
use crate::options::EntryOptions;

/// What a factory may see and decide. Cheap to clone.
///
/// ```
/// use crinkle_core::Cache;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").build()?;
/// let price = cache
///     .get_or_set("price:42", |ctx| async move {
///         let price = 1_999_u32;
///         ctx.add_tag("prices");
///         ctx.set_duration(Duration::from_secs(if price > 1_000 { 5 } else { 60 }));
///         crinkle_core::ok(price)
///     })
///     .await?;
/// assert_eq!(price.tags().collect::<Vec<_>>(), ["prices"]);
/// # Ok(())
/// # }
/// ```
pub struct FactoryContext<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    key: Box<str>,
    stale: Option<Cached<T>>,
    adaptive: Adaptive,
}

/// What the factory decided, shared with the flight.
#[derive(Clone, Debug)]
pub(crate) struct Adaptive(Arc<Mutex<Choices>>);

/// Options, tags and fate of the entry being made.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(crate) options: EntryOptions,
    pub(crate) tags: Vec<String>,
    pub(crate) skip_store: bool,
}

impl Adaptive {
    pub(crate) fn new(options: EntryOptions, tags: Vec<String>) -> Self {
        Self(Arc::new(Mutex::new(Choices { options, tags, skip_store: false })))
    }

    pub(crate) fn choices(&self) -> Choices {
        self.0.lock().clone()
    }
}

impl<T> FactoryContext<T> {
    pub(crate) fn new(key: &str, stale: Option<Cached<T>>, adaptive: Adaptive) -> Self {
        Self { inner: Arc::new(Inner { key: key.into(), stale, adaptive }) }
    }

    /// The key being loaded.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.inner.key
    }

    /// The stale value that would stand in if the factory failed, if there is one.
    #[must_use]
    pub fn stale(&self) -> Option<&Cached<T>> {
        self.inner.stale.as_ref()
    }

    /// Replaces the entry's tags, those given at the call included.
    pub fn set_tags<S: Into<String>>(&self, tags: impl IntoIterator<Item = S>) {
        let tags = tags.into_iter().map(Into::into).collect();
        self.inner.adaptive.0.lock().tags = tags;
    }

    /// Adds a tag to the entry.
    pub fn add_tag(&self, tag: impl Into<String>) {
        let tag = tag.into();
        self.inner.adaptive.0.lock().tags.push(tag);
    }

    /// Replaces the options of the entry: life, fail-safe, weight.
    pub fn set_options(&self, options: EntryOptions) {
        self.inner.adaptive.0.lock().options = options;
    }

    /// Sets how long the entry is fresh.
    pub fn set_duration(&self, duration: Duration) {
        self.inner.adaptive.0.lock().options.duration = duration;
    }

    /// Answers this call, and those that share it, and keeps nothing.
    pub fn skip_store(&self) {
        self.inner.adaptive.0.lock().skip_store = true;
    }
}

impl<T> Clone for FactoryContext<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> fmt::Debug for FactoryContext<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FactoryContext").field("key", &self.inner.key).finish()
    }
}

/// `Ok(value)` for factories that use `?` on errors of several types: any error converts.
///
/// An async block has no place to write its error type, so one that uses `?` needs a hint; this is
/// the shortest. Factories that return another function's `Result` need nothing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// # let cache = crinkle_core::Cache::builder("shop").build()?;
/// let sum = cache
///     .get_or_set("sum", |_| async {
///         let one: i32 = "1".parse()?;
///         let two = i32::from(str::from_utf8(b"2")?.len() as u8);
///         crinkle_core::ok(one + two)
///     })
///     .await?;
/// assert_eq!(*sum, 2);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Never: the type says what `?` before it may return.
pub fn ok<T>(value: T) -> Result<T, BoxError> {
    Ok(value)
}
