//! Work whose callers have been answered, on a runtime that only its owner drives.
//!
//! If nobody drives that any more, its tasks neither end nor are dropped: what a write queues when it is dropped would
//! wait for ever. So the work itself is kept here, and is dropped when its runtime is left.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::mem::take;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone, Default)]
pub(super) struct WriteBehind(Arc<Mutex<Works>>);

#[derive(Default)]
struct Works {
    left: bool,
    last: u64,
    /// `None` while it is polled.
    works: HashMap<u64, Option<Work>>,
}

impl WriteBehind {
    /// What does the work in a task. If the runtime has been left, it is dropped at once.
    pub(super) fn task(&self, work: Work) -> impl Future<Output = ()> + Send + 'static {
        let mut works = self.0.lock();
        works.last += 1;
        let id = works.last;
        let refused =
            if works.left { Some(work) } else { works.works.insert(id, Some(work)).flatten() };
        drop(works);
        drop(refused);
        let task = Task { behind: self.clone(), id };
        poll_fn(move |cx| task.poll(cx))
    }

    /// Drops everything, now and from now on.
    pub(super) fn leave(&self) {
        let works = {
            let mut works = self.0.lock();
            works.left = true;
            take(&mut works.works)
        };
        drop(works);
    }
}

struct Task {
    behind: WriteBehind,
    id: u64,
}

impl Task {
    /// The work runs under no lock.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let work = self.behind.0.lock().works.get_mut(&self.id).and_then(Option::take);
        let Some(mut work) = work else { return Poll::Ready(()) };
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut works = self.behind.0.lock();
        match works.works.get_mut(&self.id) {
            Some(place) => *place = Some(work),
            // Left meanwhile.
            None => {
                drop(works);
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let work = self.behind.0.lock().works.remove(&self.id);
        drop(work);
    }
}

impl fmt::Debug for WriteBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBehind")
            .field("works", &self.0.lock().works.len())
            .finish_non_exhaustive()
    }
}
