//! The error type of the crate: what failed, for which key, what to do. It never contains a value.

mod backplane;
mod l2;

use std::fmt;
use std::sync::Arc;

pub use backplane::BackplaneError;
pub use l2::{L2Error, L2ErrorKind};

/// The error type that factories and codecs return: any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Classifies an [`Error`] by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The node did not receive a removal in time; see [`Cache::wait_for`](crate::Cache::wait_for).
    NotCaughtUp,
    /// The server of the backplane refuses this client. Only [`Cache::ready`](crate::Cache::ready)
    /// returns it: an unconfirmed notification is [`NotPropagated`](Self::NotPropagated).
    Backplane,
    /// The cache is closed.
    Closed,
    /// A value could not be encoded for L2.
    Codec,
    /// The factory returned an error; [`Error::factory_error`] returns it.
    Factory,
    /// The factory panicked. The next call runs it again.
    FactoryPanicked,
    /// The factory exceeded its timeout, and no fallback was available.
    FactoryTimeout,
    /// The key is empty or too long.
    InvalidKey,
    /// Settings or options are out of range or contradict each other; the message names them.
    InvalidOptions,
    /// A tag is empty or too long, or there are too many.
    InvalidTag,
    /// L2 failed, and the call required it; or L2 refuses this client
    /// ([`Cache::ready`](crate::Cache::ready)).
    L2,
    /// Another caller is loading the key, and `wait_timeout` elapsed.
    WaitTimeout,
    /// The call runs outside a tokio runtime, or the runtime of a load has ended; the message says
    /// what to do.
    NoRuntime,
    /// With `require_propagation`: the write is applied on this node, but not confirmed everywhere.
    NotPropagated,
    /// A factory requests a key whose load waits for that same factory; the message names the keys.
    Reentrant,
    /// The encoded value exceeds `max_value_bytes`.
    TooLarge,
    /// The key holds a value of another type.
    TypeMismatch,
    /// A blocking call would have to wait on a thread that must not block.
    WouldBlock,
}

/// The error of every operation: a kind, the cache and key, and the cause. One pointer wide,
/// `Clone`.
///
/// ```
/// use crinkle_core::{Cache, ErrorKind};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), crinkle_core::Error> {
/// let cache = Cache::builder("shop").build()?;
/// let error = cache
///     .get_or_set("answer", |_| async { "forty-two".parse::<i32>() })
///     .await
///     .expect_err("not a number");
/// assert_eq!(error.kind(), ErrorKind::Factory);
/// assert!(error.factory_error::<std::num::ParseIntError>().is_some());
/// assert_eq!(
///     error.to_string(),
///     "the factory of key \"answer\" in cache \"shop\" failed: invalid digit found in string"
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    place: Subject,
    detail: String,
    source: Option<BoxError>,
}

/// The cache and key that an error names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) cache: Arc<str>,
    pub(crate) key: Option<Box<str>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, place: Subject, detail: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, place, detail: detail.into(), source: None }))
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        place: Subject,
        detail: impl Into<String>,
        source: impl Into<BoxError>,
    ) -> Self {
        let source = Some(source.into());
        Self(Arc::new(Inner { kind, place, detail: detail.into(), source }))
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether loading failed, so that a default value may replace the result.
    pub(crate) fn is_of_a_load(&self) -> bool {
        use ErrorKind::{Factory, FactoryPanicked, FactoryTimeout, WaitTimeout};
        matches!(self.kind(), Factory | FactoryPanicked | FactoryTimeout | WaitTimeout)
    }

    /// Returns the name of the cache whose call failed.
    #[must_use]
    pub fn cache(&self) -> &str {
        &self.0.place.cache
    }

    /// Returns the key of the failed call; `None` if keys are redacted or no key was involved.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.place.key.as_deref()
    }

    /// Returns the factory's own error if this is [`ErrorKind::Factory`] and the error has type
    /// `E`.
    #[must_use]
    pub fn factory_error<E: std::error::Error + 'static>(&self) -> Option<&E> {
        let source = self.0.source.as_deref().filter(|_| self.0.kind == ErrorKind::Factory)?;
        source.downcast_ref::<E>()
    }

    /// Returns the cause if it has type `E`.
    #[must_use]
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.source.as_deref()?.downcast_ref::<E>()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        match inner.kind {
            ErrorKind::Factory => write!(f, "the factory of {} failed", inner.place)?,
            ErrorKind::FactoryPanicked => write!(f, "the factory of {} panicked", inner.place)?,
            ErrorKind::FactoryTimeout => write!(f, "the factory of {} took too long", inner.place)?,
            ErrorKind::WaitTimeout => write!(f, "another load of {} takes too long", inner.place)?,
            ErrorKind::TypeMismatch => write!(f, "{} holds another type", inner.place)?,
            ErrorKind::Codec => write!(f, "the value of {} could not be encoded", inner.place)?,
            ErrorKind::TooLarge => write!(f, "the value of {} is too large", inner.place)?,
            ErrorKind::InvalidKey => write!(f, "invalid key in {}", inner.place)?,
            ErrorKind::InvalidTag => write!(f, "invalid tag in {}", inner.place)?,
            ErrorKind::InvalidOptions => write!(f, "invalid options in {}", inner.place)?,
            ErrorKind::L2 => write!(f, "L2 failed for {}", inner.place)?,
            ErrorKind::Backplane => write!(f, "the backplane failed for {}", inner.place)?,
            ErrorKind::NotPropagated if inner.place.key.is_none() => {
                write!(f, "not everything in {} is confirmed", inner.place)?;
            }
            ErrorKind::Reentrant => {
                write!(f, "the load of {} would wait for itself", inner.place)?;
            }
            ErrorKind::NotPropagated => {
                write!(f, "the write of {} is not confirmed", inner.place)?;
            }
            ErrorKind::WouldBlock => {
                write!(f, "a blocking call of {} must not wait on this thread", inner.place)?;
            }
            ErrorKind::NotCaughtUp => write!(f, "{} does not know the removal yet", inner.place)?,
            ErrorKind::Closed => write!(f, "{} is closed", inner.place)?,
            ErrorKind::NoRuntime => write!(f, "no tokio runtime for {}", inner.place)?,
        }
        if !inner.detail.is_empty() {
            write!(f, ": {}", inner.detail)?;
        }
        match &inner.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "key {key:?} in cache {:?}", self.cache),
            None => write!(f, "cache {:?}", self.cache),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("cache", &self.0.place.cache)
            .field("key", &self.0.place.key)
            .field("detail", &self.0.detail)
            .field("source", &self.0.source)
            .finish()
    }
}

/// `Display` includes the message of the cause, so that logs contain it. `source` therefore skips
/// every cause that the message already contains. [`Error::downcast_ref`] returns the cause itself.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        unsaid(&self.to_string(), self.0.source.as_deref()?)
    }
}

/// Returns the first cause whose message `said` does not contain: `{:#}` of `anyhow` prints each
/// once.
pub(crate) fn unsaid<'a>(
    said: &str,
    cause: &'a (dyn std::error::Error + 'static),
) -> Option<&'a (dyn std::error::Error + 'static)> {
    let causes = std::iter::successors(Some(cause), |cause| cause.source());
    causes.into_iter().find(|cause| !said.contains(&cause.to_string()))
}
