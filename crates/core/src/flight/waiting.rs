//! Counts the callers of a load, and decides whether its factory continues after the last one.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Flight;
use crate::options::EntryOptions;

/// Counts the callers of a flight.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// A caller left whose options let the factory finish in the background.
    finish: bool,
    /// A caller left whose options stop the factory.
    unwanted: bool,
    /// A caller timed out.
    timed_out: bool,
}

impl Callers {
    /// Lets the factory finish even if no caller waits for it.
    pub(crate) fn let_finish(&self) {
        self.0.lock().finish = true;
    }

    /// Whether more than one caller waits.
    pub(crate) fn are_many(&self) -> bool {
        self.0.lock().waiting > 1
    }

    /// Whether all callers left before a timeout, which stops the factory.
    pub(crate) fn have_abandoned(&self) -> bool {
        !self.0.lock().timed_out
    }

    /// Removes a caller; true if the factory must stop.
    fn leave(&self, finish: Option<bool>) -> bool {
        let mut state = self.0.lock();
        state.waiting -= 1;
        state.finish |= finish == Some(true);
        state.unwanted |= finish == Some(false);
        state.waiting == 0 && state.unwanted && !state.finish
    }
}

/// One caller that waits for a flight. It leaves when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    flight: Arc<Flight>,
    /// Whether the factory may finish if this is dropped; `None` if the caller does not decide
    /// that.
    dropped: Option<bool>,
    has_left: bool,
}

impl Waiting {
    /// Adds the leader. The load survives it, unless its options set `cancel_when_abandoned`.
    pub(crate) fn leading(flight: &Arc<Flight>, options: &EntryOptions) -> Self {
        Self::new(flight, Some(!options.cancel_when_abandoned))
    }

    /// Adds a joined caller.
    pub(crate) fn joined(flight: &Arc<Flight>) -> Self {
        Self::new(flight, None)
    }

    fn new(flight: &Arc<Flight>, dropped: Option<bool>) -> Self {
        flight.callers.0.lock().waiting += 1;
        Self { flight: Arc::clone(flight), dropped, has_left: false }
    }

    /// Leaves after a timeout; `finish` says whether the factory may finish.
    ///
    /// The factory stops when the last caller leaves, unless one of them let it finish.
    pub(crate) fn give_up(&mut self, finish: bool) {
        self.flight.callers.0.lock().timed_out = true;
        self.leave(Some(finish));
    }

    fn leave(&mut self, finish: Option<bool>) {
        self.has_left = true;
        if self.flight.callers.leave(finish) {
            self.flight.stop.notify_one();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.has_left {
            self.leave(self.dropped);
        }
    }
}
