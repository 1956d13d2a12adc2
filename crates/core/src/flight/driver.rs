//! Decides whether the caller or a spawned task polls the leader of a flight.
//!
//! The leading caller polls it while it asks L2, so that an L2 hit needs no task. But a caller may
//! stop polling at any time. So a task of the cache takes over as soon as another caller depends on
//! the flight, or the leading caller leaves.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use tracing::{Instrument, Span};

use crate::runtime::Place as Runtime;
use crate::sync::Mutex;
use crate::tasks::Tasks;

/// Passes a leader between its caller and a task.
#[derive(Debug)]
pub(crate) struct Driver<L = Leader>(Mutex<State<L>>);

#[derive(Debug)]
enum State<L> {
    /// Stored here, between two polls of its caller.
    ///
    /// A leader that moves to a task no longer wakes its caller, so `hand_over` wakes it once.
    Parked { leader: L, caller: Waker },
    /// The caller polls it; `wanted` if another caller depends on it by now.
    Polling { wanted: bool },
    /// A task polls it, or it has ended.
    Finished,
}

impl<L> Default for Driver<L> {
    fn default() -> Self {
        Self(Mutex::new(State::Polling { wanted: false }))
    }
}

impl<L> Driver<L> {
    /// Takes the leader for a poll by its caller. `None` if a task polls it.
    pub(crate) fn take(&self) -> Option<L> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Polling { wanted: false }) {
            State::Parked { leader, .. } => Some(leader),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Stores the leader after a pending poll. Returns it for a task if another caller depends on
    /// it.
    pub(crate) fn put_back(&self, leader: L, caller: &Waker) -> Option<L> {
        let mut state = self.0.lock();
        if matches!(*state, State::Polling { wanted: true }) && !misordered!(PutBackBlindly) {
            *state = State::Finished;
            return Some(leader);
        }
        *state = State::Parked { leader, caller: caller.clone() };
        None
    }

    /// Notes that another caller depends on the leader. Returns it for a task and wakes its caller.
    pub(crate) fn hand_over(&self) -> Option<L> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Finished) {
            State::Parked { leader, caller } => {
                drop(state);
                caller.wake();
                Some(leader)
            }
            State::Polling { .. } => {
                *state = State::Polling { wanted: true };
                None
            }
            State::Finished => None,
        }
    }

    fn end(&self) {
        *self.0.lock() = State::Finished;
    }
}

/// The work of a leader, and the runtime for its task if the caller stops polling.
pub(crate) struct Leader {
    pub(crate) work: BoxFuture<'static, ()>,
    pub(crate) tasks: Tasks,
    pub(crate) runtime: Runtime,
    pub(crate) span: Span,
}

impl Leader {
    /// Continues the work in a task.
    pub(crate) fn spawn(self) {
        self.tasks.spawn_on(self.work.instrument(self.span), &self.runtime);
    }
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").finish_non_exhaustive()
    }
}

/// Polls a leader until it ends or a task takes over. If dropped earlier, it spawns the task.
pub(crate) struct Drive<'a> {
    driver: &'a Driver,
    /// Not polled yet.
    first: Option<Leader>,
}

impl<'a> Drive<'a> {
    pub(crate) fn new(driver: &'a Driver, leader: Leader) -> Self {
        Self { driver, first: Some(leader) }
    }
}

impl Future for Drive<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut leader) = self.first.take().or_else(|| self.driver.take()) else {
            return Poll::Ready(());
        };
        if leader.runtime.is_left() {
            // The leader's timers ended with their runtime.
            self.driver.end();
            return Poll::Ready(());
        }
        // Polled within the leader's runtime, because a task there may continue it.
        let Leader { work, runtime, .. } = &mut leader;
        // A panic ends the leader and not its caller, as it would in a task.
        let polled = catch_unwind(AssertUnwindSafe(|| runtime.poll(work.as_mut(), cx)));
        if !polled.is_ok_and(|polled| polled.is_pending()) {
            self.driver.end();
            return Poll::Ready(());
        }
        match self.driver.put_back(leader, cx.waker()) {
            Some(leader) => {
                leader.spawn();
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Drive<'_> {
    fn drop(&mut self) {
        if let Some(leader) = self.first.take().or_else(|| self.driver.take()) {
            self.driver.end();
            leader.spawn();
        }
    }
}
