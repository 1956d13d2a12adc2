use std::panic::resume_unwind;
use std::pin::Pin;

use tokio::task::spawn_blocking;

use crate::error::BoxError;
use crate::factory::FactoryContext;
use crate::flight::nesting::carried;

/// The future that a factory created by [`factory`] returns.
pub type Loading<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Creates a factory for [`crate::Cache`] from a function that blocks. It runs on a thread of its
/// own, never on a worker of the runtime.
///
/// A thread cannot be stopped: a factory that exceeds `factory_deadline` continues, and its result
/// is dropped.
///
/// ```
/// use crinkle_core::{Cache, blocking};
///
/// let cache = Cache::builder("shop").build()?.blocking();
/// let load = blocking::factory(|_| std::fs::read_to_string("Cargo.toml"));
/// let request = cache.inner().get_or_set("manifest", load).tags(["files"]);
/// assert!(cache.wait(request)?.contains("crinkle"));
/// # Ok::<(), crinkle_core::Error>(())
/// ```
pub fn factory<T, E>(
    load: impl FnOnce(FactoryContext<T>) -> Result<T, E> + Send + 'static,
) -> impl FnOnce(FactoryContext<T>) -> Loading<T> + Send + 'static
where
    T: Send + Sync + 'static,
    E: Into<BoxError>,
{
    |context| {
        Box::pin(async {
            match spawn_blocking(carried(|| load(context).map_err(Into::into))).await {
                Ok(result) => result,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    Err(cancelled) => Err(cancelled.into()),
                },
            }
        })
    }
}
