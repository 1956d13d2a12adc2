//! Who waits for a load, and whether its factory is to go on once nobody does.

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
    /// Somebody is gone whose options let the factory finish in the background.
    finish: bool,
    /// Somebody is gone whose options do not.
    unwanted: bool,
    /// Somebody has waited for as long as its options allow.
    timed_out: bool,
}

impl Callers {
    /// The factory is to finish whoever waits for it.
    pub(crate) fn let_finish(&self) {
        self.0.lock().finish = true;
    }

    /// Whether more than one caller waits.
    pub(crate) fn are_many(&self) -> bool {
        self.0.lock().waiting > 1
    }

    /// Whether the factory is stopped because its callers went before their time was over.
    pub(crate) fn have_abandoned(&self) -> bool {
        !self.0.lock().timed_out
    }

    /// A caller goes; true if the factory is to be stopped.
    fn leave(&self, finish: Option<bool>) -> bool {
        let mut state = self.0.lock();
        state.waiting -= 1;
        state.finish |= finish == Some(true);
        state.unwanted |= finish == Some(false);
        state.waiting == 0 && state.unwanted && !state.finish
    }
}

/// A caller that waits for a flight. Dropped, it goes.
#[derive(Debug)]
pub(crate) struct Waiting {
    flight: Arc<Flight>,
    /// If it is dropped: whether the factory may finish. `None` if it has no say.
    dropped: Option<bool>,
    gone: bool,
}

impl Waiting {
    /// A caller that leads. The load survives it, unless its options say otherwise.
    pub(crate) fn leading(flight: &Arc<Flight>, options: &EntryOptions) -> Self {
        Self::new(flight, Some(!options.cancel_when_abandoned))
    }

    /// A caller that has joined.
    pub(crate) fn joined(flight: &Arc<Flight>) -> Self {
        Self::new(flight, None)
    }

    fn new(flight: &Arc<Flight>, dropped: Option<bool>) -> Self {
        flight.callers.0.lock().waiting += 1;
        Self { flight: Arc::clone(flight), dropped, gone: false }
    }

    /// It has waited for the factory for as long as it does, and says whether that may finish. The
    /// factory is stopped when the last caller goes, unless one of them has let it finish.
    pub(crate) fn give_up(&mut self, finish: bool) {
        self.flight.callers.0.lock().timed_out = true;
        self.leave(Some(finish));
    }

    fn leave(&mut self, finish: Option<bool>) {
        self.gone = true;
        if self.flight.callers.leave(finish) {
            self.flight.stop.notify_one();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.gone {
            self.leave(self.dropped);
        }
    }
}
