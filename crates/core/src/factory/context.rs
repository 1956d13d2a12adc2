use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::entry::{Cached, Meta, Validators};
use crate::error::BoxError;
use crate::options::EntryOptions;

/// The context of a factory: the key, the stale value, and the options of the new entry.
///
/// Cheap to clone.
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
/// assert_eq!(price.meta().tags().collect::<Vec<_>>(), ["prices"]);
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

/// The factory's choices, shared with the load.
#[derive(Clone, Debug)]
pub(crate) struct Adaptive(Arc<Mutex<Choices>>);

/// The options and tags of the new entry, and whether to store it.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    pub(crate) options: EntryOptions,
    pub(crate) tags: Vec<String>,
    /// The factory changed the tags.
    pub(crate) retagged: bool,
    pub(crate) skip_store: bool,
    pub(crate) validators: Validators,
    /// The factory confirmed that the stale value is still current.
    pub(crate) confirmed: bool,
}

impl Choices {
    pub(crate) fn new(options: EntryOptions, tags: Vec<String>) -> Self {
        let validators = Validators::default();
        Self { options, tags, retagged: false, skip_store: false, validators, confirmed: false }
    }

    /// Keeps an older entry's tags and validators, except those that this run has set.
    pub(crate) fn confirm(&mut self, older: &Meta) {
        if !self.retagged {
            self.tags = older.tags.iter().map(|tag| tag.name().to_owned()).collect();
        }
        let kept = older.validators.as_deref().cloned().unwrap_or_default();
        let new = std::mem::take(&mut self.validators);
        self.validators.etag = new.etag.or(kept.etag);
        self.validators.last_modified = new.last_modified.or(kept.last_modified);
    }
}

/// The error with which a factory reports that the stale value is still current.
///
/// [`FactoryContext::not_modified`] returns it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not modified, but there is no stale value to keep; check ctx.etag() or ctx.stale() first")]
#[non_exhaustive]
pub struct NotModified;

impl Adaptive {
    pub(crate) fn new(options: EntryOptions, tags: Vec<String>) -> Self {
        Self(Arc::new(Mutex::new(Choices::new(options, tags))))
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

    /// The stale value that the factory replaces, if there is one and no removal hides it.
    #[must_use]
    pub fn stale(&self) -> Option<&Cached<T>> {
        self.inner.stale.as_ref()
    }

    /// The entity tag of the stale value, for a conditional request.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.stale()?.meta().etag()
    }

    /// The stale value's time of last modification, in the source's format.
    #[must_use]
    pub fn last_modified(&self) -> Option<&str> {
        self.stale()?.meta().last_modified()
    }

    /// Stores an entity tag with the value, for the next load.
    pub fn set_etag(&self, etag: impl Into<String>) {
        let etag = etag.into().into_boxed_str();
        self.inner.adaptive.0.lock().validators.etag = Some(etag);
    }

    /// Stores a time of last modification with the value, in the source's format.
    pub fn set_last_modified(&self, at: impl Into<String>) {
        let at = at.into().into_boxed_str();
        self.inner.adaptive.0.lock().validators.last_modified = Some(at);
    }

    /// Keeps the stale value, because the source says that it is still current.
    ///
    /// Return the result from the factory. The value gets a new TTL. It keeps its tags and
    /// validators, unless this run has set others.
    ///
    /// ```
    /// # use crinkle_core::{Cache, FactoryContext};
    /// # struct Reply { status: u16, etag: String, body: String }
    /// # async fn fetch(_etag: Option<String>) -> Result<Reply, std::io::Error> {
    /// #     Ok(Reply { status: 200, etag: "v1".into(), body: "page".into() })
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), crinkle_core::Error> {
    /// # let cache = Cache::builder("shop").build()?;
    /// let page = cache
    ///     .get_or_set("page", |ctx| async move {
    ///         let reply = fetch(ctx.etag().map(str::to_owned)).await?;
    ///         if reply.status == 304 {
    ///             return ctx.not_modified();
    ///         }
    ///         ctx.set_etag(reply.etag);
    ///         crinkle_core::ok(reply.body)
    ///     })
    ///     .await?;
    /// # assert_eq!(*page, "page");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Always: the factory returns this error to confirm the stale value. Without a stale value,
    /// the factory fails with it.
    pub fn not_modified<E: From<NotModified>>(&self) -> Result<T, E> {
        self.inner.adaptive.0.lock().confirmed = self.inner.stale.is_some();
        Err(NotModified.into())
    }

    /// Whether the factory called [`not_modified`](Self::not_modified).
    pub(crate) fn is_confirmed(&self) -> bool {
        self.inner.adaptive.0.lock().confirmed
    }

    /// Replaces all tags of the entry, including those of the call.
    pub fn set_tags<S: Into<String>>(&self, tags: impl IntoIterator<Item = S>) {
        let tags = tags.into_iter().map(Into::into).collect();
        let mut choices = self.inner.adaptive.0.lock();
        choices.tags = tags;
        choices.retagged = true;
    }

    /// Adds a tag to the entry.
    pub fn add_tag(&self, tag: impl Into<String>) {
        let tag = tag.into();
        let mut choices = self.inner.adaptive.0.lock();
        choices.tags.push(tag);
        choices.retagged = true;
    }

    /// The current options of the entry, to change one of them and pass them to
    /// [`set_options`](Self::set_options).
    #[must_use]
    pub fn options(&self) -> EntryOptions {
        self.inner.adaptive.0.lock().options.clone()
    }

    /// Replaces all options of the entry: TTLs, fail-safe, weight, and the steps to skip.
    ///
    /// This includes the options of the call and the cache's defaults, and the throttle if the
    /// factory fails. To change only the TTL, use [`set_duration`](Self::set_duration).
    pub fn set_options(&self, options: EntryOptions) {
        self.inner.adaptive.0.lock().options = options;
    }

    /// Sets the TTL of the entry. Below 1 ms, as with `max-age=0` of the source, the value is for this
    /// call and those that joined it, and is not stored, as with [`skip_store`](Self::skip_store).
    pub fn set_duration(&self, duration: Duration) {
        self.inner.adaptive.0.lock().options.duration = duration;
    }

    /// Returns the value to this call and to callers that joined it, but stores it nowhere.
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

/// Returns `Ok(value)` with an error type that any error converts to.
///
/// Use it in factories that apply `?` to errors of several types. An async block cannot declare its
/// error type, so it needs a hint. Factories that return another function's `Result` need none.
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
/// Never: the error type only serves the `?` operators before it.
pub fn ok<T>(value: T) -> Result<T, BoxError> {
    Ok(value)
}
