use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Runs a future to completion on this thread, in the context of `runtime`. Returns `None` if it
/// would have to wait and this thread must not block; on a current-thread runtime it has not
/// started then.
pub(super) fn wait<F: Future>(runtime: &Handle, future: F) -> Option<F::Output> {
    let current = Handle::try_current().map(|current| current.runtime_flavor());
    // The context of a current-thread runtime is also that of its `spawn_blocking` threads, which
    // may block.
    if let Ok(RuntimeFlavor::CurrentThread) = current {
        blocking(|| ())?;
    }
    let mut future = pin!(future);
    {
        let _context = runtime.enter();
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
    }
    blocking(|| runtime.block_on(future))
}

/// Runs blocking code, after the tasks of this worker have moved to another one. Where that is
/// impossible, tokio panics before it runs anything; there is no way to ask it first.
fn blocking<R>(run: impl FnOnce() -> R) -> Option<R> {
    let mut run = Some(run);
    let ran = catch_unwind(AssertUnwindSafe(|| block_in_place(|| run.take().map(|run| run()))));
    match ran {
        Ok(result) => result,
        Err(_) if run.is_some() => None,
        Err(panic) => resume_unwind(panic),
    }
}
