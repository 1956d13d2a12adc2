//! What a cache runs beside its calls, and what `close` waits for.

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::runtime::{Home, Place};

/// The tasks of a cache, by the runtime that they run on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    /// On the first one.
    first: TaskTracker,
    /// On the one that a cache moves to.
    lasting: TaskTracker,
}

impl Tasks {
    pub(crate) fn spawn_on<F>(&self, task: F, place: &Place)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on(place).spawn_on(task, place.handle());
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
