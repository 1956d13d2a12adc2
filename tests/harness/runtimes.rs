//! Runtimes of the tests that have several.

use tokio::runtime::{Builder, Runtime};

/// A runtime that only the thread drives that waits in it.
///
/// # Panics
///
/// If the system refuses it.
#[must_use]
pub fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A runtime with one thread of its own.
///
/// # Panics
///
/// If the system refuses the thread.
#[must_use]
pub fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread")
}
