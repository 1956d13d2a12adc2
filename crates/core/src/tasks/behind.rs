//! Write-behind work on a current-thread runtime: its callers already have their results.
//!
//! If nothing drives that runtime any more, its tasks neither end nor are dropped. A write queues
//! itself when it is dropped, and that would never happen. So this module owns the work, and drops
//! it when the cache leaves the runtime.

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
    /// `None` while the work is polled.
    works: HashMap<u64, Option<Work>>,
}

impl WriteBehind {
    /// Returns a future that does the work in a task. After [`leave`](Self::leave), the work is
    /// dropped at once.
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

    /// Drops all work, now and from now on.
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
    /// Polls the work under no lock.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let work = self.behind.0.lock().works.get_mut(&self.id).and_then(Option::take);
        let Some(mut work) = work else { return Poll::Ready(()) };
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut works = self.behind.0.lock();
        match works.works.get_mut(&self.id) {
            Some(place) => *place = Some(work),
            // The cache left the runtime meanwhile.
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
