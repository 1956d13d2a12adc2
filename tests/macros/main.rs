//! The attributes on real caches.

#![expect(clippy::unused_async, reason = "the functions need no source that waits")]

mod functions;
mod invalidates;
mod options;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crinkle::Cache;
use crinkle_testkit::clock::TokioClock;
use thiserror::Error;

/// The error of the functions: its own, or that of the cache.
#[derive(Clone, Debug, Error)]
enum ShopError {
    #[error("no product {0}")]
    NoSuchProduct(u32),
    #[error(transparent)]
    Cache(crinkle::Error),
}

impl From<crinkle::Error> for ShopError {
    fn from(error: crinkle::Error) -> Self {
        error.factory_error::<Self>().cloned().unwrap_or(Self::Cache(error))
    }
}

/// A cache in virtual time.
fn cache() -> Cache {
    Cache::builder("shop").clock(TokioClock::new()).build().expect("sound settings")
}

/// Counts what happens.
#[derive(Clone, Debug, Default)]
struct Count(Arc<AtomicU32>);

impl Count {
    /// Adds one; returns how many there are.
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}
