use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};

use super::{Backplane, BackplaneError, Incoming, Subscription};
use crate::server::BusId;

/// How many messages a slow subscriber may fall behind before it loses some.
const BACKLOG: usize = 65_536;

/// A backplane in this process. Clones share the same channels.
///
/// ```
/// use crinkle_core::backplane::{Backplane, Incoming, MemoryBackplane};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = MemoryBackplane::new();
/// let mut subscription = bus.subscribe(&["news".to_owned()]).await?;
/// bus.publish("news", "hello".into()).await?;
/// assert_eq!(subscription.next().await, Some(Incoming::Message("hello".into())));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryBackplane {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: u64,
    backlog: usize,
    /// Ordered, so that subscriptions end in the same order in every run.
    channels: Mutex<BTreeMap<String, Vec<Sender<Bytes>>>>,
}

impl Default for MemoryBackplane {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBackplane {
    /// Creates a bus that shares nothing with others.
    #[must_use]
    pub fn new() -> Self {
        Self::with_backlog(BACKLOG)
    }

    /// Creates a bus whose subscribers may fall `backlog` messages behind. One that falls further
    /// behind loses messages and receives [`Incoming::Lagged`]. Default: 65,536.
    #[must_use]
    pub fn with_backlog(backlog: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::new(Shared { id, backlog, channels: Mutex::default() }) }
    }

    /// Ends every subscription, as a broken connection does.
    pub fn disconnect_all(&self) {
        self.shared.channels.lock().clear();
    }

    /// Publishes at once.
    pub(crate) fn send(&self, channel: &str, message: &Bytes) {
        if let Some(senders) = self.shared.channels.lock().get_mut(channel) {
            senders.retain(|sender| sender.send(message.clone()).is_ok());
        }
    }
}

#[async_trait]
impl Backplane for MemoryBackplane {
    fn bus(&self) -> Option<BusId> {
        Some(BusId::new(format!("memory:{}", self.shared.id)))
    }

    async fn publish(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError> {
        self.send(channel, &message);
        Ok(())
    }

    async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<Box<dyn Subscription>, BackplaneError> {
        let (sender, receiver) = broadcast::channel(self.shared.backlog);
        let mut all = self.shared.channels.lock();
        for channel in channels {
            all.entry(channel.clone()).or_default().push(sender.clone());
        }
        Ok(Box::new(Listener(receiver)))
    }
}

#[derive(Debug)]
struct Listener(Receiver<Bytes>);

#[async_trait]
impl Subscription for Listener {
    async fn next(&mut self) -> Option<Incoming> {
        match self.0.recv().await {
            Ok(message) => Some(Incoming::Message(message)),
            Err(RecvError::Lagged(_)) => Some(Incoming::Lagged),
            Err(RecvError::Closed) => None,
        }
    }
}
