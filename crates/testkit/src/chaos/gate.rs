//! Stops calls at a point that the test chooses, until it opens the gate.

use std::sync::Arc;

use tokio::sync::watch;

/// A point where calls wait until the test opens it. Clones share the gate.
#[derive(Clone, Debug)]
pub struct Gate {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    reached: usize,
    open: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// Creates a closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Waits until a call has reached the gate.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until this many calls have reached the gate.
    ///
    /// # Panics
    ///
    /// Never: the gate outlives its waiters.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn reached_by(&self, calls: usize) {
        let mut state = self.state.subscribe();
        state.wait_for(|state| state.reached >= calls).await.expect("the gate holds its sender");
    }

    /// The number of calls that have reached the gate.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.borrow().reached
    }

    /// Opens the gate for all calls, now and later.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Reaches the gate and waits until it is open. Factories of tests call it too.
    ///
    /// # Panics
    ///
    /// Never: the gate outlives its waiters.
    ///
    /// # Cancel safety
    ///
    /// A dropped call still counts as having reached the gate.
    pub async fn pass(&self) {
        self.state.send_modify(|state| state.reached += 1);
        let mut state = self.state.subscribe();
        state.wait_for(|state| state.open).await.expect("the gate holds its sender");
    }
}
