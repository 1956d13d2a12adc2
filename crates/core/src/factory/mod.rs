//! Runs user factories: under no lock, in a task of their own, bounded by a deadline.
//!
//! `context` is what a factory receives, and what it chooses for the new entry. `batch` splits a
//! factory for many keys.

mod batch;
mod context;

pub(crate) use batch::{Loader, failed, loader, split};
pub(crate) use context::{Adaptive, Choices};
pub use context::{FactoryContext, NotModified, ok};

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::Instrument;

use crate::entry::Value;
use crate::error::{BoxError, Error, ErrorKind, Subject};
use crate::telemetry::spans;

/// A factory after the hit path: boxed once, so that the pipeline compiles once per value type.
pub(crate) type Factory<T> =
    Box<dyn FnOnce(FactoryContext<T>) -> BoxFuture<'static, Result<T, BoxError>> + Send>;

/// Boxes a factory. The future also calls its closure, so that a panic there is caught.
pub(crate) fn boxed<T, F, Fut, E>(factory: F) -> Factory<T>
where
    T: Value,
    F: FnOnce(FactoryContext<T>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    Box::new(move |context| {
        let made = async move { factory(context).await.map_err(Into::into) };
        Box::pin(made.instrument(spans::factory()))
    })
}

/// The result of a factory.
pub(crate) enum Made<T> {
    /// A new value.
    Value(T),
    /// The stale value is still current.
    Confirmed,
}

/// Runs a factory to its end and converts its error or panic into an [`Error`].
pub(crate) async fn run<T: Value>(
    factory: Factory<T>,
    context: FactoryContext<T>,
    place: &Subject,
) -> Result<Made<T>, Error> {
    match AssertUnwindSafe(factory(context.clone())).catch_unwind().await {
        Ok(Ok(value)) => Ok(Made::Value(value)),
        Ok(Err(_)) if context.is_confirmed() => Ok(Made::Confirmed),
        Ok(Err(error)) => Err(match error.downcast::<batch::SharedFailure>() {
            Ok(failure) => failure.0,
            Err(error) => Error::with_source(ErrorKind::Factory, place.clone(), "", error),
        }),
        Err(panic) => Err(panicked(&*panic, place)),
    }
}

fn panicked(panic: &(dyn Any + Send), place: &Subject) -> Error {
    let said = panic
        .downcast_ref::<&str>()
        .map(|said| (*said).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Error::new(ErrorKind::FactoryPanicked, place.clone(), said)
}
