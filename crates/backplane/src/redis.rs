use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::backplane::{Backplane, BackplaneError, Incoming, Subscription};
use crinkle_core::l2::BusId;
use crinkle_redis_client::acl::prefix_of;
use crinkle_redis_client::{Delivery, RedisClient, Subscriber, redis};
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::heartbeats::{self, Beats, Liveness};

/// A backplane over the pub/sub of a Redis server.
///
/// On the server of the store, the store's scripts announce in the same step as they write:
///
/// ```no_run
/// use crinkle_backplane::{RedisBackplane, RedisClient};
/// use crinkle_core::Cache;
/// use crinkle_l2_redis::RedisL2;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = RedisClient::connect("redis://localhost").await?;
/// let cache = Cache::builder("shop")
///     .l2(RedisL2::new(client.clone()))
///     .backplane(RedisBackplane::new(client))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisBackplane {
    client: RedisClient,
    beats: Arc<Beats>,
    /// Whether the server has accepted a message since the last failure.
    publishes: Arc<AtomicBool>,
}

impl RedisBackplane {
    /// Creates a backplane on the server at this URL, with its own command connection. See
    /// [`RedisClient::connect`].
    ///
    /// # Errors
    ///
    /// If the URL is invalid. A server that is down is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn connect(url: &str) -> Result<Self, BackplaneError> {
        Ok(Self::new(RedisClient::connect(url).await.map_err(BackplaneError::new)?))
    }

    /// Creates a backplane on the primary that these sentinels know by this name, with its own
    /// command connection. See [`RedisClient::sentinel`].
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or there is none. A server that is down is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn sentinel(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> Result<Self, BackplaneError> {
        Ok(Self::new(RedisClient::sentinel(urls, name).await.map_err(BackplaneError::new)?))
    }

    /// Creates a backplane in the cluster that these servers belong to, with its own connections.
    /// See [`RedisClient::cluster`].
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or there is none. A server that is down is no error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn cluster(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, BackplaneError> {
        Ok(Self::new(RedisClient::cluster(urls).await.map_err(BackplaneError::new)?))
    }

    /// Creates a backplane on a client that others may share.
    #[must_use]
    pub fn new(client: RedisClient) -> Self {
        Self { client, beats: Arc::default(), publishes: Arc::default() }
    }

    /// Tries every right that a cache with this key prefix needs of its backplane. No subscriber
    /// receives the trial message.
    ///
    /// # Errors
    ///
    /// [`BackplaneError::is_refused`] if a right is missing, or the server lacks a command; the
    /// message says what to do. Another error if the server is unreachable.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn check_rights(&self, prefix: &str) -> Result<(), BackplaneError> {
        let (all, own) = (format!("{prefix}v1:ch"), format!("{prefix}v1:hb:"));
        self.client.publish(&own, b"").await.map_err(failure)?;
        self.client.subscribe(&[all, own]).await.map(drop).map_err(failure)
    }

    /// Publishes an empty message on a channel without subscribers. A server without the command
    /// repeats its arguments in the error. Over the bytes of a message, the client library would
    /// then drop the connection, with all other commands on it.
    async fn try_publish(&self, channel: &str) -> Result<(), BackplaneError> {
        let prefix = prefix_of(channel);
        let published = self.client.publish(&format!("{prefix}v1:hb:"), b"").await;
        published.map_err(failure)
    }

    /// Publishes in a cluster. A heartbeat to this node goes through every server that takes
    /// writes. A count goes through two servers: one might lose it together with what it counts.
    async fn beat(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError> {
        let mut primaries = self.client.primaries().await.map_err(BackplaneError::new)?;
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(&message[..]);
        if heartbeats::is_beat(&message) {
            let paths = primaries.iter().map(|primary| format!("{primary:?}")).collect();
            self.beats.sent(channel, message, paths);
        } else {
            primaries.truncate(2);
        }
        let sent = primaries.iter().map(|primary| primary.command(&command));
        for answer in join_all(sent).await {
            answer.map_err(failure)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Backplane for RedisBackplane {
    fn bus(&self) -> Option<BusId> {
        Some(self.client.bus())
    }

    async fn publish(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError> {
        if !self.publishes.load(Ordering::Relaxed) {
            self.try_publish(channel).await?;
            self.publishes.store(true, Ordering::Relaxed);
        }
        let published = if self.client.is_cluster()
            && (heartbeats::is_beat(&message) || heartbeats::is_count(&message))
        {
            self.beat(channel, message).await
        } else {
            self.client.publish(channel, &message).await.map_err(failure)
        };
        if published.is_err() {
            self.publishes.store(false, Ordering::Relaxed);
        }
        published
    }

    async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<Box<dyn Subscription>, BackplaneError> {
        let messages = self.client.listen(channels).await.map_err(failure)?;
        let counted = self.client.is_cluster().then(|| {
            self.beats.listen(channels);
            Counted { beats: Arc::clone(&self.beats), channels: channels.to_vec() }
        });
        Ok(Box::new(Listener { messages, counted, next: None }))
    }
}

fn failure(error: redis::RedisError) -> BackplaneError {
    let refused = ["NOPERM", "NOAUTH", "WRONGPASS"].contains(&error.code().unwrap_or_default());
    let kinds = [redis::ErrorKind::AuthenticationFailed, redis::ErrorKind::RESP3NotSupported];
    if refused || kinds.contains(&error.kind()) {
        return BackplaneError::refused(error);
    }
    BackplaneError::new(error)
}

/// A subscription, which ends when its connection does.
struct Listener {
    messages: Subscriber,
    /// Only in a cluster.
    counted: Option<Counted>,
    next: Option<Incoming>,
}

/// Tracks the heartbeats of a subscription until it is dropped.
struct Counted {
    beats: Arc<Beats>,
    channels: Vec<String>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.beats.leave(&self.channels);
    }
}

#[async_trait]
impl Subscription for Listener {
    async fn next(&mut self) -> Option<Incoming> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        loop {
            let Delivery::Message { channel, payload: bytes, .. } = self.messages.next().await?
            else {
                return Some(Incoming::Lagged);
            };
            let liveness = match &self.counted {
                Some(counted) if heartbeats::is_beat(&bytes) => {
                    counted.beats.received(&channel, &bytes)
                }
                _ => Liveness::Whole,
            };
            match liveness {
                Liveness::Part => {}
                Liveness::Whole => return Some(Incoming::Message(bytes)),
                Liveness::AfterLoss => {
                    self.next = Some(Incoming::Message(bytes));
                    return Some(Incoming::Lagged);
                }
            }
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
