//! Who drives the leader of a flight.
//!
//! The caller that leads does, while it asks L2: a hit there needs no task. A future is only polled as
//! long as its owner likes, so as soon as somebody else depends on the flight, or the caller goes, a task
//! of the cache takes over.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use tracing::{Instrument, Span};

use crate::runtime::Place as Runtime;
use crate::sync::Mutex;

/// Where a leader is.
#[derive(Debug)]
pub(crate) struct Driver<L = Leader>(Mutex<Place<L>>);

#[derive(Debug)]
enum Place<L> {
    /// With its caller, between two polls. What the leader wakes when it goes on in a task is no longer
    /// its caller, so somebody must emit it.
    Here { leader: L, caller: Waker },
    /// In its caller's hands; whether somebody depends on it by now.
    Away { wanted: bool },
    /// With a task, or at its end.
    Gone,
}

impl<L> Default for Driver<L> {
    fn default() -> Self {
        Self(Mutex::new(Place::Away { wanted: false }))
    }
}

impl<L> Driver<L> {
    /// The caller is about to poll. `None` if a task drives.
    pub(crate) fn take(&self) -> Option<L> {
        let mut place = self.0.lock();
        match std::mem::replace(&mut *place, Place::Away { wanted: false }) {
            Place::Here { leader, .. } => Some(leader),
            other => {
                *place = other;
                None
            }
        }
    }

    /// The caller has polled in vain. If somebody depends on the leader by now, it is for a task.
    pub(crate) fn put_back(&self, leader: L, caller: &Waker) -> Option<L> {
        let mut place = self.0.lock();
        if matches!(*place, Place::Away { wanted: true }) && !misordered!(PutBackBlindly) {
            *place = Place::Gone;
            return Some(leader);
        }
        *place = Place::Here { leader, caller: caller.clone() };
        None
    }

    /// Somebody depends on the leader: what is answered is for a task. Its caller looks again.
    pub(crate) fn hand_over(&self) -> Option<L> {
        let mut place = self.0.lock();
        match std::mem::replace(&mut *place, Place::Gone) {
            Place::Here { leader, caller } => {
                drop(place);
                caller.wake();
                Some(leader)
            }
            Place::Away { .. } => {
                *place = Place::Away { wanted: true };
                None
            }
            Place::Gone => None,
        }
    }

    fn end(&self) {
        *self.0.lock() = Place::Gone;
    }
}

/// The work of a leader, and where it goes on if its caller does not.
pub(crate) struct Leader {
    pub(crate) work: BoxFuture<'static, ()>,
    pub(crate) tasks: crate::cache::Tasks,
    pub(crate) runtime: Runtime,
    pub(crate) span: Span,
}

impl Leader {
    /// Lets a task go on.
    pub(crate) fn spawn(self) {
        self.tasks.spawn_on(self.work.instrument(self.span), &self.runtime);
    }
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").finish_non_exhaustive()
    }
}

/// Drives a leader until it ends or a task takes over. Dropped before, it lets a task go on.
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
            // Its timers ended with their runtime.
            self.driver.end();
            return Poll::Ready(());
        }
        // A task of that runtime may go on with it.
        let Leader { work, runtime, .. } = &mut leader;
        let poll = || runtime.within(|| work.as_mut().poll(cx));
        // As in a task, a panic ends the leader and not its caller.
        let polled = catch_unwind(AssertUnwindSafe(poll));
        if polled.unwrap_or(Poll::Ready(())).is_ready() {
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
