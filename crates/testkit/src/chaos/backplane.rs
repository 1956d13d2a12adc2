use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::backplane::message::{self, Body};
use crinkle_core::backplane::{Backplane, BackplaneError, Incoming, Subscription};
use crinkle_core::l2::BusId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A backplane that is in the test's hands. Made by [`backplane()`].
#[derive(Debug)]
pub struct ChaosBackplane {
    inner: Arc<dyn Backplane>,
    shared: Arc<Shared>,
}

/// Decides what one node hears and says.
#[derive(Clone, Debug)]
pub struct BusHandle {
    shared: Arc<Shared>,
}

/// A subscription of a [`ChaosBackplane`].
#[derive(Debug)]
pub struct ChaosSubscription {
    inner: Box<dyn Subscription>,
    shared: Arc<Shared>,
    life: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    life: u64,
    refuse: bool,
    fail_publish: bool,
    deny_publish: bool,
    hang_publish: bool,
    hang_reply: bool,
    mute: bool,
    hold: bool,
    lose: usize,
    duplicate: bool,
    held: VecDeque<Bytes>,
    ready: VecDeque<Incoming>,
    subscribed: u64,
}

/// Wraps a backplane; passes everything on until told otherwise.
#[must_use]
pub fn backplane(inner: Arc<dyn Backplane>) -> (ChaosBackplane, BusHandle) {
    let shared = Arc::new(Shared::default());
    (ChaosBackplane { inner, shared: Arc::clone(&shared) }, BusHandle { shared })
}

impl BusHandle {
    /// Ends the subscription; the node may make another at once.
    pub fn disconnect(&self) {
        self.change(|state| state.life += 1);
    }

    /// Ends the subscription and refuses new ones until [`reconnect`](Self::reconnect).
    pub fn cut(&self) {
        self.change(|state| {
            state.life += 1;
            state.refuse = true;
        });
    }

    /// Accepts subscriptions again.
    pub fn reconnect(&self) {
        self.change(|state| state.refuse = false);
    }

    /// From now on, whether this node hears nothing at all, on a subscription that seems alive.
    pub fn mute(&self, on: bool) {
        self.change(|state| state.mute = on);
    }

    /// From now on, whether notifications are kept back; heartbeats pass.
    pub fn hold(&self, on: bool) {
        self.change(|state| state.hold = on);
    }

    /// Loses the next notifications.
    pub fn lose(&self, count: usize) {
        self.change(|state| state.lose += count);
    }

    /// From now on, whether every notification comes twice.
    pub fn duplicate(&self, on: bool) {
        self.change(|state| state.duplicate = on);
    }

    /// The notifications kept back, oldest first; they are the test's now.
    #[must_use]
    pub fn take_held(&self) -> Vec<Bytes> {
        self.shared.state.lock().held.drain(..).collect()
    }

    /// How many notifications are kept back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.state.lock().held.len()
    }

    /// Lets this node hear any bytes.
    pub fn deliver(&self, bytes: impl Into<Bytes>) {
        let message = Incoming::Message(bytes.into());
        self.change(|state| state.ready.push_back(message));
    }

    /// Tells this node that it was too slow and lost messages.
    pub fn lag(&self) {
        self.change(|state| state.ready.push_back(Incoming::Lagged));
    }

    /// From now on, whether what this node publishes fails.
    pub fn fail_publish(&self, on: bool) {
        self.change(|state| state.fail_publish = on);
    }

    /// From now on, whether this node may not publish.
    pub fn deny_publish(&self, on: bool) {
        self.change(|state| state.deny_publish = on);
    }

    /// From now on, whether what this node publishes hangs.
    pub fn hang_publish(&self, on: bool) {
        self.change(|state| state.hang_publish = on);
    }

    /// From now on, whether what this node publishes arrives, and nobody says so.
    pub fn hang_reply(&self, on: bool) {
        self.change(|state| state.hang_reply = on);
    }

    /// How many subscriptions were made.
    #[must_use]
    pub fn subscriptions(&self) -> u64 {
        self.shared.state.lock().subscribed
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock());
        self.shared.moved.notify_one();
    }
}

impl State {
    /// Decides about what came in.
    fn take(&mut self, incoming: Incoming) {
        let Incoming::Message(bytes) = incoming else {
            self.ready.push_back(incoming);
            return;
        };
        let heartbeat = message::decode(&bytes)
            .is_some_and(|message| matches!(message.body, Body::Heartbeat { .. }));
        if self.mute {
            return;
        }
        if heartbeat {
            self.ready.push_back(Incoming::Message(bytes));
            return;
        }
        if self.lose > 0 {
            self.lose -= 1;
            return;
        }
        let copies = if self.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            if self.hold {
                self.held.push_back(bytes.clone());
            } else {
                self.ready.push_back(Incoming::Message(bytes.clone()));
            }
        }
    }
}

#[async_trait]
impl Backplane for ChaosBackplane {
    fn bus(&self) -> Option<BusId> {
        self.inner.bus()
    }

    async fn publish(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError> {
        let (fail, deny, hang) = {
            let state = self.shared.state.lock();
            (state.fail_publish, state.deny_publish, state.hang_publish)
        };
        if hang {
            std::future::pending::<()>().await;
        }
        if deny {
            return Err(BackplaneError::refused("the test says so"));
        }
        if fail {
            return Err(BackplaneError::new("the test says so"));
        }
        let result = self.inner.publish(channel, message).await;
        if self.shared.state.lock().hang_reply {
            std::future::pending::<()>().await;
        }
        result
    }

    async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<Box<dyn Subscription>, BackplaneError> {
        if self.shared.state.lock().refuse {
            return Err(BackplaneError::new("the test says so"));
        }
        let inner = self.inner.subscribe(channels).await?;
        let life = {
            let mut state = self.shared.state.lock();
            state.subscribed += 1;
            state.ready.clear();
            state.life
        };
        Ok(Box::new(ChaosSubscription { inner, shared: Arc::clone(&self.shared), life }))
    }
}

#[async_trait]
impl Subscription for ChaosSubscription {
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            {
                let mut state = self.shared.state.lock();
                if state.life != self.life {
                    return None;
                }
                if let Some(incoming) = state.ready.pop_front() {
                    return Some(incoming);
                }
            }
            tokio::select! {
                biased;
                () = self.shared.moved.notified() => {}
                incoming = self.inner.next() => self.shared.state.lock().take(incoming?),
            }
        }
    }
}
