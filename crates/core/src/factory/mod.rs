//! Running user code: under no lock, on a task of its own, bounded by a deadline.

mod context;

pub(crate) use context::{Adaptive, Choices};
pub use context::{FactoryContext, ok};

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::error::{BoxError, Error, ErrorKind, Place};

/// Runs a factory to its end; its error or panic becomes ours.
pub(crate) async fn run<T, F, Fut, E>(
    factory: F,
    context: FactoryContext<T>,
    place: &Place,
) -> Result<T, Error>
where
    F: FnOnce(FactoryContext<T>) -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
    T: Send + Sync,
    E: Into<BoxError>,
{
    let running = AssertUnwindSafe(async move { factory(context).await });
    match running.catch_unwind().await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            Err(Error::with_source(ErrorKind::Factory, place.clone(), "", error.into()))
        }
        Err(panic) => {
            let said = panic
                .downcast_ref::<&str>()
                .map(|said| (*said).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(Error::new(ErrorKind::FactoryPanicked, place.clone(), said))
        }
    }
}
