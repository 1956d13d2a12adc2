use std::sync::Arc;

use tokio::sync::watch;

/// A place where calls wait until the test lets them go on. Clones are the same gate.
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
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    /// Waits until a call stands at the gate, or has passed it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until so many calls have come to the gate.
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
        state.wait_for(|state| state.reached >= calls).await.expect("the gate is here");
    }

    /// How many calls have come to the gate.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.borrow().reached
    }

    /// Lets everybody through, from now on.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Comes to the gate and waits until it is open. Factories of tests call it too.
    ///
    /// # Panics
    ///
    /// Never: the gate outlives its waiters.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has come to the gate all the same.
    pub async fn pass(&self) {
        self.state.send_modify(|state| state.reached += 1);
        let mut state = self.state.subscribe();
        state.wait_for(|state| state.open).await.expect("the gate is here");
    }
}
