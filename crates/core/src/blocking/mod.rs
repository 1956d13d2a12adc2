//! The cache for code that is not async: the same cache, with calls that block the thread.
//!
//! [`Cache`] has the methods of [`crate::Cache`], each of which runs the async method to
//! completion. Requests with options go through [`Cache::wait`]. Calls that need not wait return at
//! once; a fresh value from L1 does not enter a runtime.
//!
//! # Where it may be called
//!
//! | the calling thread | what happens |
//! |---|---|
//! | is outside tokio | it blocks; the loads run on a runtime of their own |
//! | is in a multi-thread runtime (worker, `block_on`) | its tasks change threads; it blocks |
//! | is in `spawn_blocking` of any runtime | it blocks |
//! | drives a current-thread runtime, a `LocalSet` | L1 hits return; the rest is [`WouldBlock`] |
//!
//! The last case fails because a call may wait for a load that another task of the same thread
//! started: a blocked thread would wait for ever.
//!
//! [`WouldBlock`]: crate::ErrorKind::WouldBlock

// `cache` holds the methods, `wait` blocks the thread, and `factory` runs factories that block.

mod cache;
mod factory;
mod wait;

use std::io;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

pub use cache::Cache;
pub use factory::{Loading, factory};

/// More threads than any process has. A load whose factory requests another key holds a thread
/// while it waits, so a load must never wait for a thread.
const MAX_THREADS: usize = 1 << 20;

/// Returns the runtime of every blocking cache without its own. It has one worker, starts at first
/// use and runs until the process ends. Factories run on further threads of it, as many as there
/// are loads.
///
/// Build a cache with an L2 within this runtime if the program has no runtime of its own:
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
/// The error of the operating system if it cannot start a thread.
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
