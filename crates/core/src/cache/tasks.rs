//! What a cache runs beside its calls, and what `close` waits for.

use tokio::runtime::RuntimeFlavor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::behind::{Work, WriteBehind};
use crate::runtime::{Home, Place};

/// The tasks of a cache, by the runtime that they run on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    /// On the first one.
    first: TaskTracker,
    /// On the one that a cache moves to.
    lasting: TaskTracker,
    /// What nobody waits for, on the first one.
    behind: WriteBehind,
    /// What nobody waits for, wherever it is.
    works: TaskTracker,
    /// Cancelled when that has taken too long.
    given_up: CancellationToken,
}

impl Tasks {
    pub(crate) fn spawn_on<F>(&self, task: F, place: &Place)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on(place).spawn_on(task, place.handle());
    }

    /// The same for work that nobody waits for: it is dropped when the runtime is left, or when it is given up.
    pub(crate) fn spawn_behind(&self, work: Work, place: &Place) {
        let given_up = self.given_up.clone().cancelled_owned();
        let work = self.on(place).track_future(async move {
            tokio::select! {
                biased;
                () = given_up => {}
                () = work => {}
            }
        });
        // Counted here for longer than there: what has been given up is no task any more.
        let work = Box::pin(self.works.track_future(work));
        if place.is_first() && place.handle().runtime_flavor() == RuntimeFlavor::CurrentThread {
            drop(place.handle().spawn(self.behind.task(work)));
        } else {
            drop(place.handle().spawn(work));
        }
    }

    /// The first runtime has been left.
    pub(super) fn leave(&self) {
        self.behind.leave();
    }

    /// Counts as a task until it is dropped.
    pub(crate) fn token(&self, place: &Place) -> TaskTrackerToken {
        self.on(place).token()
    }

    /// Waits until none is left. A runtime that was left may never be driven again, and what was left there leads
    /// nothing any more.
    pub(crate) async fn wait(&self, home: &Home) {
        self.first.close();
        self.lasting.close();
        if !home.has_left() {
            self.first.wait().await;
        }
        self.lasting.wait().await;
    }

    /// Drops the work that nobody waits for, and waits until it is dropped.
    pub(super) async fn give_up(&self) {
        self.given_up.cancel();
        self.works.close();
        self.works.wait().await;
    }

    /// Whether none is left.
    pub(super) fn have_ended(&self, home: &Home) -> bool {
        (home.has_left() || self.first.is_empty()) && self.lasting.is_empty()
    }

    fn on(&self, place: &Place) -> &TaskTracker {
        if place.is_first() { &self.first } else { &self.lasting }
    }
}
