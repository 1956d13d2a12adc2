//! The events that a worker records, and its clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crinkle_core::{Clock, SystemClock};
use parking_lot::Mutex;

use super::event::{Event, Ns};

/// Reads the clock that all processes of the machine share.
pub(super) fn now() -> Ns {
    SystemClock.now().as_nanos()
}

/// The events of one process in a round. Clones share the events.
#[derive(Clone, Debug, Default)]
pub(super) struct Diary(Arc<Pages>);

#[derive(Debug, Default)]
struct Pages {
    events: Mutex<Vec<Event>>,
    last: AtomicU64,
    ids: AtomicUsize,
}

impl Diary {
    /// Creates a diary whose ids begin at `ids`.
    pub(super) fn new(ids: usize) -> Self {
        let pages = Pages { ids: AtomicUsize::new(ids), ..Pages::default() };
        Self(Arc::new(pages))
    }

    /// Returns the current time; no two results of a process are equal.
    pub(super) fn at(&self) -> Ns {
        let now = now();
        let last = self.0.last.load(Ordering::Relaxed);
        let at = now.max(last + 1);
        self.0.last.store(at, Ordering::Relaxed);
        at
    }

    /// Returns an id that is unique in the round.
    pub(super) fn id(&self) -> usize {
        self.0.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn note(&self, event: Event) {
        self.0.events.lock().push(event);
    }

    /// Records a violation that is noticed as it happens.
    pub(super) fn seen(&self, rule: &str, what: String) {
        let at = self.at();
        self.note(Event::Seen { at, rule: rule.to_owned(), what });
    }

    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.events.lock())
    }
}
