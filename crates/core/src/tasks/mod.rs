//! The tasks that a cache runs besides its calls, and that `close` waits for.
//!
//! `behind` holds write-behind work on a current-thread runtime; `background` the state of the
//! background tasks.

mod background;
mod behind;

use tokio::runtime::RuntimeFlavor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::runtime::{Home, Place};
use behind::{Work, WriteBehind};

pub(crate) use background::{Background, Sweeper};

/// The tasks of a cache, grouped by their runtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    /// Tasks on the first runtime.
    first: TaskTracker,
    /// Tasks on the permanent runtime, to which a cache moves.
    permanent: TaskTracker,
    /// Background work on the first runtime, if that is a current-thread runtime.
    behind: WriteBehind,
    /// Background work on either runtime.
    works: TaskTracker,
    /// Cancelled when the background work takes too long.
    given_up: CancellationToken,
}

impl Tasks {
    pub(crate) fn spawn_on<F>(&self, task: F, place: &Place)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.on(place).spawn_on(task, place.handle());
    }

    /// Spawns background work. It is dropped when the cache leaves the runtime, or by
    /// [`give_up`](Self::give_up).
    pub(crate) fn spawn_behind(&self, work: Work, place: &Place) {
        let given_up = self.given_up.clone().cancelled_owned();
        let work = self.on(place).track_future(async move {
            tokio::select! {
                biased;
                () = given_up => {}
                () = work => {}
            }
        });
        // `works` counts the work until it is dropped, which may be after its task has ended.
        let work = Box::pin(self.works.track_future(work));
        if place.is_first() && place.handle().runtime_flavor() == RuntimeFlavor::CurrentThread {
            drop(place.handle().spawn(self.behind.task(work)));
        } else {
            drop(place.handle().spawn(work));
        }
    }

    /// Drops the background work of the first runtime, which the cache has left.
    pub(crate) fn leave(&self) {
        self.behind.leave();
    }

    /// Returns a token that counts as a task until it is dropped.
    pub(crate) fn token(&self, place: &Place) -> TaskTrackerToken {
        self.on(place).token()
    }

    /// Waits until no task is left. Does not wait for a runtime that the cache left: it may never
    /// be driven again, and its loads lead nothing any more.
    pub(crate) async fn wait(&self, home: &Home) {
        self.first.close();
        self.permanent.close();
        if !home.has_left() {
            self.first.wait().await;
        }
        self.permanent.wait().await;
    }

    /// Drops the background work, and waits until it is dropped.
    pub(crate) async fn give_up(&self) {
        self.given_up.cancel();
        self.works.close();
        self.works.wait().await;
    }

    /// Whether no task is left.
    pub(crate) fn have_ended(&self, home: &Home) -> bool {
        (home.has_left() || self.first.is_empty()) && self.permanent.is_empty()
    }

    fn on(&self, place: &Place) -> &TaskTracker {
        if place.is_first() { &self.first } else { &self.permanent }
    }
}
