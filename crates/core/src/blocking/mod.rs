//! The cache for code that is not async: the same cache, and a thread that waits.
//!
//! [`Cache`] has the methods of [`crate::Cache`], each of which runs the async one to its end.
//! Requests with options go through [`Cache::wait`]. What needs no waiting is answered at once, a
//! fresh value of L1 without entering a runtime.
//!
//! # Where it may be called
//!
//! | the calling thread | what happens |
//! |---|---|
//! | has nothing to do with tokio | it waits; the loads run on a runtime of their own |
//! | a worker of a multi-thread runtime, or its `block_on` | its other tasks move to another thread, then it waits |
//! | within `spawn_blocking`, of any runtime | it waits |
//! | drives a current-thread runtime, or a `LocalSet` | a fresh value of L1 is answered; anything else is [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock) |
//!
//! The last refuses because a call may wait for a load that another task of that thread has begun:
//! whoever blocks the thread would wait for ever.

mod cache;
mod factory;
mod wait;

use std::io;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

pub use cache::Cache;
pub use factory::{Loading, factory};

/// More than there are threads: a load whose factory asks for another key holds a thread while it
/// waits, and must never wait for a thread.
const MAX_THREADS: usize = 1 << 20;

/// The runtime of every blocking cache that was given none: one worker, started when it is first
/// needed, for the life of the process. Factories run on further threads of it, as many as loads.
///
/// Build a cache with an L2 in it if the program has no runtime of its own:
///
/// ```
/// use crinkle_core::{Cache, blocking, l2::MemoryL2};
///
/// let cache = blocking::runtime()?.block_on(async {
///     Cache::builder("shop").l2(MemoryL2::new()).build()
/// })?;
/// let cache = cache.blocking();
/// let answer = cache.get_or_set("answer", |_| crinkle_core::ok(42))?;
/// assert_eq!(*answer, 42);
/// # Ok::<(), crinkle_core::BoxError>(())
/// ```
///
/// # Errors
///
/// The operating system's, if it has no thread to give.
pub fn runtime() -> io::Result<Handle> {
    static SHARED: Mutex<Option<Runtime>> = Mutex::new(None);
    let mut shared = SHARED.lock();
    if let Some(runtime) = &*shared {
        return Ok(runtime.handle().clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(MAX_THREADS)
        .thread_name("crinkle-blocking")
        .enable_all()
        .build()?;
    Ok(shared.insert(runtime).handle().clone())
}
