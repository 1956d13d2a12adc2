//! What a cache runs beside its calls, and what `close` waits for.

use tokio::runtime::RuntimeFlavor;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::behind::{Behind, Work};
use crate::runtime::{Home, Place};

/// The tasks of a cache, by the runtime that they run on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    /// On the first one.
    first: TaskTracker,
    /// On the one that a cache moves to.
    lasting: TaskTracker,
    /// What nobody waits for, on the first one.
    behind: Behind,
}

impl Tasks {
    pub(crate) fn spawn_on<F>(&self, task: F, place: &Place)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on(place).spawn_on(task, place.handle());
    }

    /// The same for work that nobody waits for: it is dropped when the runtime is left.
    pub(crate) fn spawn_behind(&self, work: Work, place: &Place) {
        if place.is_first() && place.handle().runtime_flavor() == RuntimeFlavor::CurrentThread {
            self.spawn_on(self.behind.task(work), place);
        } else {
            self.spawn_on(work, place);
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

    fn on(&self, place: &Place) -> &TaskTracker {
        if place.is_first() { &self.first } else { &self.lasting }
    }
}
