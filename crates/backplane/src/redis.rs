use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use crinkle_core::backplane::{Backplane, BackplaneError, Incoming, Subscription};
use crinkle_core::l2::BusId;
use crinkle_l2_redis::RedisClient;
use crinkle_l2_redis::redis::aio::PubSubStream;
use futures_util::StreamExt;

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
}

impl RedisBackplane {
    /// A backplane on the server at this URL, with a command connection of its own. See
    /// [`RedisClient::connect`].
    ///
    /// # Errors
    ///
    /// If the URL makes no sense; never because of the server, which may be down.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn connect(url: &str) -> Result<Self, BackplaneError> {
        Ok(Self::new(RedisClient::connect(url).await.map_err(BackplaneError::new)?))
    }

    /// A backplane on the primary that these sentinels know by this name, with a command connection of its
    /// own. See [`RedisClient::sentinel`].
    ///
    /// # Errors
    ///
    /// If a URL makes no sense, or there is none; never because of a server.
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

    /// A backplane on a client that others may share.
    #[must_use]
    pub fn new(client: RedisClient) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Backplane for RedisBackplane {
    fn bus(&self) -> Option<BusId> {
        Some(self.client.bus())
    }

    async fn publish(&self, channel: &str, message: Bytes) -> Result<(), BackplaneError> {
        self.client.publish(channel, &message).await.map_err(BackplaneError::new)
    }

    async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<Box<dyn Subscription>, BackplaneError> {
        let messages = self.client.subscribe(channels).await.map_err(BackplaneError::new)?;
        Ok(Box::new(Listener(messages)))
    }
}

/// Ends when the connection does.
struct Listener(PubSubStream);

#[async_trait]
impl Subscription for Listener {
    async fn next(&mut self) -> Option<Incoming> {
        let message = self.0.next().await?;
        Some(Incoming::Message(Bytes::copy_from_slice(message.get_payload_bytes())))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
