//! Splits a factory for many keys into one factory per key; each waits for its own value.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tracing::Instrument;

use super::{Factory, panicked};
use crate::entry::Value;
use crate::error::{BoxError, Error, ErrorKind, Subject};
use crate::telemetry::spans;

/// A boxed batch factory. The cache may call it again, for keys that L2 did not decide in time.
pub(crate) type Loader<T> = Arc<
    dyn Fn(Vec<String>) -> BoxFuture<'static, Result<Vec<(String, T)>, BoxError>> + Send + Sync,
>;

/// Boxes a batch factory.
pub(crate) fn loader<T, F, Fut, M, K, E>(factory: F) -> Loader<T>
where
    T: Value,
    F: Fn(Vec<String>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<M, E>> + Send + 'static,
    M: IntoIterator<Item = (K, T)> + 'static,
    K: Into<String>,
    E: Into<BoxError> + 'static,
{
    let factory = Arc::new(factory);
    Arc::new(move |keys| {
        let factory = Arc::clone(&factory);
        let made = async move {
            let made = factory(keys).await.map_err(Into::into)?;
            Ok(made.into_iter().map(|(key, value)| (key.into(), value)).collect())
        };
        Box::pin(made.instrument(spans::factory()))
    })
}

/// An error that all keys of a batch share; it already names where it happened.
#[derive(Debug)]
pub(super) struct SharedFailure(pub(super) Error);

impl fmt::Display for SharedFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedFailure {}

/// A factory that fails with another load's error.
pub(crate) fn failed<T: Value>(error: Error) -> Factory<T> {
    Box::new(move |_| Box::pin(std::future::ready(Err(BoxError::from(SharedFailure(error))))))
}

/// Returns one factory per key, in order, and the single run of the batch factory that feeds them.
pub(crate) fn split<T: Value>(
    load: Loader<T>,
    keys: Vec<String>,
    place: Subject,
    redact: bool,
) -> (Vec<Factory<T>>, impl Future<Output = ()> + Send) {
    let (mut factories, mut waiting) = (Vec::new(), BTreeMap::new());
    for key in &keys {
        let (sender, receiver) = oneshot::channel::<Result<T, Error>>();
        waiting.insert(key.clone(), sender);
        let factory: Factory<T> = Box::new(move |_| {
            Box::pin(async move {
                let received = receiver.await.unwrap_or_else(|_| Err(abandoned()));
                received.map_err(|error| BoxError::from(SharedFailure(error)))
            })
        });
        factories.push(factory);
    }
    let run = async move {
        let what = describe(&keys, redact);
        let result = AssertUnwindSafe(load(keys)).catch_unwind().await;
        let made = match result {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => {
                return fail(waiting, &Error::with_source(ErrorKind::Factory, place, what, error));
            }
            Err(panic) => return fail(waiting, &panicked(&*panic, &place)),
        };
        for (key, value) in made {
            if let Some(sender) = waiting.remove(&key) {
                let _ = sender.send(Ok(value));
            }
        }
        if !waiting.is_empty() {
            let missing: Vec<_> = waiting.keys().cloned().collect();
            let what = format!("it returned no value for {}", describe(&missing, redact));
            fail(waiting, &Error::new(ErrorKind::Factory, place, what));
        }
    };
    (factories, run)
}

fn fail<T>(waiting: BTreeMap<String, oneshot::Sender<Result<T, Error>>>, error: &Error) {
    for (_, sender) in waiting {
        let _ = sender.send(Err(error.clone()));
    }
}

/// Names the keys briefly for an error message.
fn describe(keys: &[String], redact: bool) -> String {
    let some = if redact { 0 } else { 5 };
    let named: Vec<_> = keys.iter().take(some).map(|key| format!("{key:?}")).collect();
    match keys.len() - named.len() {
        0 => format!("the keys {}", named.join(", ")),
        rest if named.is_empty() => format!("{rest} keys"),
        rest => format!("the keys {} and {rest} more", named.join(", ")),
    }
}

fn abandoned() -> Error {
    Error::new(ErrorKind::Closed, Subject::default(), "its batch was abandoned")
}
