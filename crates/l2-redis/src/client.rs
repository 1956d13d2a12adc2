use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::l2::{BusId, L2Error};
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, PubSubStream};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, RedisFuture, RedisResult, Value,
};
use tokio::sync::OnceCell;

use crate::error::l2_error;

/// How long one attempt to connect may take, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// When the client itself gives a command up. The cache bounds each of its calls far tighter; the
/// default of the redis crate, 500 ms, would cut a large record off.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// When the kernel gives a silent peer up. Nobody else would: the cache drops the calls that the
/// peer does not answer, so the client never sees them fail.
const SILENCE: Duration = Duration::from_secs(10);

/// How many commands may wait for the socket before callers do.
const QUEUE: usize = 1024;

/// One Redis server, for as many stores and backplanes as like to share it: one multiplexed
/// connection for commands, and one connection per subscription.
///
/// Connecting happens in the background, and again whenever the connection is lost; a command meets
/// an error at once while the server cannot be reached. Clones share the connection.
///
/// ```no_run
/// use crinkle_l2_redis::{RedisClient, RedisL2};
///
/// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
/// let client = RedisClient::connect("redis://localhost").await?;
/// let store = RedisL2::new(client.clone());
/// // RedisBackplane::new(client) announces on the same connection.
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisClient {
    shared: Arc<Shared>,
}

struct Shared {
    client: redis::Client,
    commands: OnceCell<ConnectionManager>,
}

impl RedisClient {
    /// A client for the server at this URL (`redis://user:password@host:port/db`, `unix:///path`).
    /// The server may be down: it is connected to in the background. The protocol is RESP3; for
    /// something in between that knows only the older one, add `?protocol=resp2`.
    ///
    /// # Errors
    ///
    /// If the URL makes no sense; never because of the server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn connect(url: &str) -> Result<Self, L2Error> {
        let this = Self::open(url).map_err(|error| l2_error(&error))?;
        let mut warm = this.commands().await.map_err(|error| l2_error(&error))?;
        tokio::spawn(async move {
            // What the server answers does not matter: asking is what connects.
            drop(warm.send_packed_command(&redis::cmd("PING")).await);
        });
        Ok(this)
    }

    /// A client as you have set it up. It connects with the first command. What `connect` chooses is up
    /// to you then: RESP3, which notices a lost connection at once, and TCP keep-alive.
    #[must_use]
    pub fn from_redis(client: redis::Client) -> Self {
        Self { shared: Arc::new(Shared { client, commands: OnceCell::new() }) }
    }

    fn open(url: &str) -> RedisResult<Self> {
        let mut info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
        // Over RESP3 a lost connection is noticed at once, not by the next command.
        let chosen = redis::parse_redis_url(url)
            .is_some_and(|url| url.query_pairs().any(|(name, _)| name == "protocol"));
        if !chosen {
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            info = info.set_redis_settings(settings);
        }
        Ok(Self::from_redis(redis::Client::open(info)?))
    }

    /// The message bus of this server.
    #[must_use]
    pub fn bus(&self) -> BusId {
        BusId::new(format!("redis:{}", self.shared.client.get_connection_info().addr()))
    }

    /// Subscribes on a connection of its own; returns when every channel is confirmed. The stream
    /// ends with the connection.
    ///
    /// # Errors
    ///
    /// If the server does not confirm within a second or refuses the user.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    pub async fn subscribe(&self, channels: &[String]) -> RedisResult<PubSubStream> {
        let attempt = async {
            let mut pubsub = self.shared.client.get_async_pubsub().await?;
            pubsub.subscribe(channels).await?;
            Ok(pubsub.into_on_message())
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(subscribed) => subscribed,
            Err(_) => Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    /// The shared connection. Needs a runtime, therefore created by the first who asks.
    async fn commands(&self) -> RedisResult<ConnectionManager> {
        let create = || async {
            // No retries in there: they would let commands wait instead of fail, and each command
            // that fails begins another attempt.
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT))
                .set_number_of_retries(0)
                .set_pipeline_buffer_size(QUEUE);
            ConnectionManager::new_lazy_with_config(self.shared.client.clone(), config)
        };
        self.shared.commands.get_or_try_init(create).await.cloned()
    }
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 5);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let settings = settings.set_user_timeout(SILENCE);
    settings
}

/// Commands go over the shared connection.
impl ConnectionLike for RedisClient {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut commands = self.commands().await?;
            match commands.send_packed_command(cmd).await {
                // A refusal can be an old one, met by the last attempt to connect; it was never
                // sent. Now there is a new attempt, whose outcome is the present one.
                Err(error) if error.is_connection_refusal() => {
                    commands.send_packed_command(cmd).await
                }
                answer => answer,
            }
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(
            async move { self.commands().await?.send_packed_commands(cmd, offset, count).await },
        )
    }

    fn get_db(&self) -> i64 {
        self.shared.client.get_connection_info().redis_settings().db()
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection info holds the password.
        f.debug_struct("RedisClient").field("bus", &self.bus()).finish_non_exhaustive()
    }
}
