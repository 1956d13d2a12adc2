use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crinkle_core::l2::{BusId, L2Error};
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, PubSubStream};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError,
    RedisFuture, RedisResult, Value,
};
use tokio::sync::OnceCell;

use crate::error::l2_error;
use crate::sentinel::Sentinel;

/// How long one attempt to connect may take, handshake included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// When the client itself gives a command up. The cache bounds each of its calls far tighter; the
/// default of the redis crate, 500 ms, would cut a large record off.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// When the kernel gives a silent peer up. Nobody else would: the cache drops the calls that the
/// peer does not answer, so the client never sees them fail.
const SILENCE: Duration = Duration::from_secs(10);

/// How many commands may wait for the socket before callers do.
pub(crate) const QUEUE: usize = 1024;

/// One Redis server, or the primary that sentinels name, for as many stores and backplanes as like to share it: one multiplexed
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
    server: Server,
    bus: BusId,
}

enum Server {
    Fixed { client: redis::Client, commands: OnceCell<ConnectionManager> },
    Named(Sentinel),
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
    #[expect(clippy::unused_async, reason = "needs a runtime: it connects in the background")]
    pub async fn connect(url: &str) -> Result<Self, L2Error> {
        Ok(Self::open(url).map_err(|error| l2_error(&error))?.warmed())
    }

    /// A client for the primary that these sentinels (`redis://host:26379`) know by this name. Whenever
    /// the connection is lost, or the server says that it is a replica now, they are asked again. The
    /// servers are the default user's, database 0, RESP3; for anything else there is
    /// [`from_sentinel`](Self::from_sentinel).
    ///
    /// # Errors
    ///
    /// If a URL makes no sense, or there is none; never because of a server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
    /// use crinkle_l2_redis::RedisClient;
    ///
    /// let sentinels = ["redis://one:26379", "redis://two:26379", "redis://three:26379"];
    /// let client = RedisClient::sentinel(sentinels, "mymaster").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[expect(clippy::unused_async, reason = "needs a runtime: it connects in the background")]
    pub async fn sentinel(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> Result<Self, L2Error> {
        let build = || {
            let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
            let servers = SentinelNodeConnectionInfo::default()
                .set_redis_connection_info(settings)
                .set_tcp_settings(tcp_settings());
            let sentinels = urls.into_iter().map(|url| url.as_ref().into_connection_info());
            let sentinels = sentinels.collect::<RedisResult<Vec<_>>>()?;
            let mut addresses: Vec<_> = sentinels.iter().map(|at| at.addr().to_string()).collect();
            addresses.sort_unstable();
            let (owned, primary) = (name.to_owned(), SentinelServerType::Master);
            let client = SentinelClient::build(sentinels, owned, Some(servers), primary)?;
            Ok(Self::from_sentinel(client, &format!("{name}@{}", addresses.join(","))))
        };
        Ok(build().map_err(|error: RedisError| l2_error(&error))?.warmed())
    }

    /// A client for a primary behind sentinels as you have set it up. `bus` tells its bus from others: one
    /// name for a store and a backplane says that they are the same server.
    #[must_use]
    pub fn from_sentinel(sentinels: SentinelClient, bus: &str) -> Self {
        let bus = BusId::new(format!("redis-sentinel:{bus}"));
        Self::over(Server::Named(Sentinel::new(sentinels)), bus)
    }

    fn over(server: Server, bus: BusId) -> Self {
        Self { shared: Arc::new(Shared { server, bus }) }
    }

    /// Connects in the background.
    fn warmed(self) -> Self {
        let mut warm = self.clone();
        tokio::spawn(async move {
            // What the server answers does not matter: asking is what connects.
            drop(warm.req_packed_command(&redis::cmd("PING")).await);
        });
        self
    }

    /// A client as you have set it up. It connects with the first command. What `connect` chooses is up
    /// to you then: RESP3, which notices a lost connection at once, and TCP keep-alive.
    #[must_use]
    pub fn from_redis(client: redis::Client) -> Self {
        let bus = BusId::new(format!("redis:{}", client.get_connection_info().addr()));
        Self::over(Server::Fixed { client, commands: OnceCell::new() }, bus)
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
        self.shared.bus.clone()
    }

    /// The server itself, for connections beside the shared one.
    pub(crate) async fn server(&self) -> RedisResult<redis::Client> {
        match &self.shared.server {
            Server::Fixed { client, .. } => Ok(client.clone()),
            Server::Named(primary) => primary.client().await,
        }
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
            let mut pubsub = self.server().await?.get_async_pubsub().await?;
            pubsub.subscribe(channels).await?;
            Ok(pubsub.into_on_message())
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(subscribed) => subscribed,
            Err(_) => Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

/// The shared connection. Needs a runtime, therefore created by the first who asks.
async fn shared(
    client: &redis::Client,
    commands: &OnceCell<ConnectionManager>,
) -> RedisResult<ConnectionManager> {
    let create = || async {
        // No retries in there: they would let commands wait instead of fail, and each command
        // that fails begins another attempt.
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(0)
            .set_pipeline_buffer_size(QUEUE);
        ConnectionManager::new_lazy_with_config(client.clone(), config)
    };
    commands.get_or_try_init(create).await.cloned()
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
            let mut connection = match &self.shared.server {
                Server::Fixed { client, commands } => shared(client, commands).await?,
                Server::Named(primary) => return primary.command(cmd).await,
            };
            match connection.send_packed_command(cmd).await {
                // A refusal can be an old one, met by the last attempt to connect; it was never
                // sent. Now there is a new attempt, whose outcome is the present one.
                Err(error) if error.is_connection_refusal() => {
                    connection.send_packed_command(cmd).await
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
        Box::pin(async move {
            match &self.shared.server {
                Server::Fixed { client, commands } => {
                    shared(client, commands).await?.send_packed_commands(cmd, offset, count).await
                }
                Server::Named(primary) => primary.commands(cmd, offset, count).await,
            }
        })
    }

    fn get_db(&self) -> i64 {
        match &self.shared.server {
            Server::Fixed { client, .. } => client.get_connection_info().redis_settings().db(),
            Server::Named(_) => 0,
        }
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection info holds the password.
        f.debug_struct("RedisClient").field("bus", &self.bus()).finish_non_exhaustive()
    }
}
