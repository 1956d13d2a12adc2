//! What a worker writes down, and how it reads the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crinkle_core::{Clock, SystemClock};
use parking_lot::Mutex;

use super::event::{Event, Ns};

/// The clock that all processes of the machine share.
pub(super) fn now() -> Ns {
    SystemClock.now().as_nanos()
}

/// The events of a round, in one process. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Diary(Arc<Pages>);

#[derive(Debug, Default)]
struct Pages {
    events: Mutex<Vec<Event>>,
    last: AtomicU64,
    ids: AtomicUsize,
}

impl Diary {
    /// A diary whose ids begin here.
    pub(super) fn new(ids: usize) -> Self {
        let pages = Pages { ids: AtomicUsize::new(ids), ..Pages::default() };
        Self(Arc::new(pages))
    }

    /// The next moment: no two of a process are the same.
    pub(super) fn at(&self) -> Ns {
        let now = now();
        let last = self.0.last.load(Ordering::Relaxed);
        let at = now.max(last + 1);
        self.0.last.store(at, Ordering::Relaxed);
        at
    }

    /// A number that nothing else of the round has.
    pub(super) fn id(&self) -> usize {
        self.0.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn note(&self, event: Event) {
        self.0.events.lock().push(event);
    }

    /// A violation that is seen as it happens.
    pub(super) fn seen(&self, rule: &str, what: String) {
        let at = self.at();
        self.note(Event::Seen { at, rule: rule.to_owned(), what });
    }

    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.events.lock())
    }
}
