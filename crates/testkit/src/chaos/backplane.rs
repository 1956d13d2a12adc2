//! Wraps a backplane; a test can lose, hold, repeat and refuse the messages of one node.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::backplane::message::{self, Body};
use crinkle_core::backplane::{Backplane, BackplaneError, Incoming, Subscription};
use crinkle_core::l2::BusId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A backplane with injected faults. Created by [`backplane()`].
#[derive(Debug)]
pub struct ChaosBackplane {
    inner: Arc<dyn Backplane>,
    shared: Arc<Shared>,
}

/// Controls what one node receives and publishes.
#[derive(Clone, Debug)]
pub struct BusHandle {
    shared: Arc<Shared>,
}

/// A subscription of a [`ChaosBackplane`].
#[derive(Debug)]
pub struct ChaosSubscription {
    inner: Box<dyn Subscription>,
    shared: Arc<Shared>,
    generation: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
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

/// Wraps a backplane. It forwards everything until a fault is injected.
#[must_use]
pub fn backplane(inner: Arc<dyn Backplane>) -> (ChaosBackplane, BusHandle) {
    let shared = Arc::new(Shared::default());
    (ChaosBackplane { inner, shared: Arc::clone(&shared) }, BusHandle { shared })
}

impl BusHandle {
    /// Ends the subscription. The node may subscribe again at once.
    pub fn disconnect(&self) {
        self.change(|state| state.generation += 1);
    }

    /// Ends the subscription and refuses new ones until [`reconnect`](Self::reconnect).
    pub fn cut(&self) {
        self.change(|state| {
            state.generation += 1;
            state.refuse = true;
        });
    }

    /// Accepts subscriptions again.
    pub fn reconnect(&self) {
        self.change(|state| state.refuse = false);
    }

    /// Sets whether the node receives nothing at all, on a subscription that stays open.
    pub fn mute(&self, on: bool) {
        self.change(|state| state.mute = on);
    }

    /// Sets whether notifications are held back; heartbeats pass.
    pub fn hold(&self, on: bool) {
        self.change(|state| state.hold = on);
    }

    /// Loses the next notifications.
    pub fn lose(&self, count: usize) {
        self.change(|state| state.lose += count);
    }

    /// Sets whether the node receives every notification twice.
    pub fn duplicate(&self, on: bool) {
        self.change(|state| state.duplicate = on);
    }

    /// Takes the notifications that were held back, oldest first.
    #[must_use]
    pub fn take_held(&self) -> Vec<Bytes> {
        self.shared.state.lock().held.drain(..).collect()
    }

    /// The number of notifications that are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.state.lock().held.len()
    }

    /// Delivers these bytes to the node.
    pub fn deliver(&self, bytes: impl Into<Bytes>) {
        let message = Incoming::Message(bytes.into());
        self.change(|state| state.ready.push_back(message));
    }

    /// Reports to the node that it was too slow and lost messages.
    pub fn lag(&self) {
        self.change(|state| state.ready.push_back(Incoming::Lagged));
    }

    /// Sets whether the node's publishes fail.
    pub fn fail_publish(&self, on: bool) {
        self.change(|state| state.fail_publish = on);
    }

    /// Sets whether the node's publishes are refused.
    pub fn deny_publish(&self, on: bool) {
        self.change(|state| state.deny_publish = on);
    }

    /// Sets whether the node's publishes hang.
    pub fn hang_publish(&self, on: bool) {
        self.change(|state| state.hang_publish = on);
    }

    /// Sets whether the node's publishes succeed but never return.
    pub fn hang_reply(&self, on: bool) {
        self.change(|state| state.hang_reply = on);
    }

    /// The number of subscriptions so far.
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
    /// Drops, holds, duplicates or forwards a message.
    fn receive(&mut self, incoming: Incoming) {
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
            return Err(BackplaneError::refused("injected by the test"));
        }
        if fail {
            return Err(BackplaneError::new("injected by the test"));
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
            return Err(BackplaneError::new("injected by the test"));
        }
        let inner = self.inner.subscribe(channels).await?;
        let generation = {
            let mut state = self.shared.state.lock();
            state.subscribed += 1;
            state.ready.clear();
            state.generation
        };
        Ok(Box::new(ChaosSubscription { inner, shared: Arc::clone(&self.shared), generation }))
    }
}

#[async_trait]
impl Subscription for ChaosSubscription {
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            {
                let mut state = self.shared.state.lock();
                if state.generation != self.generation {
                    return None;
                }
                if let Some(incoming) = state.ready.pop_front() {
                    return Some(incoming);
                }
            }
            tokio::select! {
                biased;
                () = self.shared.moved.notified() => {}
                incoming = self.inner.next() => self.shared.state.lock().receive(incoming?),
            }
        }
    }
}
