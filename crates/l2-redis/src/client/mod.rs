use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use crinkle_core::l2::{BusId, L2Error};
use crinkle_core::runtime::Home;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::sentinel::SentinelClient;
use redis::{Cmd, Msg, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::builder::{RedisClientBuilder, bus_id};
use crate::cluster::Cluster;
use crate::cluster::primary::Primary;
use crate::cluster::slots::Address;
use crate::connection::{CONNECT_TIMEOUT, Connection, Endpoint, Target, spawn};
use crate::doctor::Part;
use crate::listening::Listening;
use crate::set::{Hop, Set, is_unknown_script};
use crate::{refusal, rights};

/// Client for one Redis server, for the primary that sentinels name, or for a cluster. Any number
/// of stores and backplanes can share it. It has one multiplexed connection for commands (in a
/// cluster one to each server), and one for the subscriptions of all its backplanes.
///
/// The client connects in the background, and reconnects after a lost connection. While the server
/// is unreachable, a command fails at once. Clones share the connection.
///
/// ```no_run
/// use crinkle_l2_redis::{RedisClient, RedisL2};
///
/// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
/// let client = RedisClient::connect("redis://localhost").await?;
/// let store = RedisL2::new(client.clone());
/// // RedisBackplane::new(client) publishes on the same connection.
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisClient {
    shared: Arc<Shared>,
}

struct Shared {
    server: Server,
    home: Home,
    bus: BusId,
    database: i64,
    listening: Listening,
}

enum Server {
    One(Connection),
    Many(Cluster),
}

impl RedisClient {
    /// Creates a client for the server at this URL: `redis://user:password@host:port/db`,
    /// `rediss://` for TLS (feature `tls`), `redis+unix:///path?db=1&user=name&pass=word`. The
    /// client connects in the background, so the server may be down. The protocol is RESP3; for a
    /// proxy that knows only the older protocol, add `?protocol=resp2`.
    ///
    /// # Errors
    ///
    /// If the URL is invalid; never because of the server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn connect(url: &str) -> Result<Self, L2Error> {
        Self::builder(url).connect().await
    }

    /// Starts a client for the server at this URL, with settings that a URL cannot express: TLS,
    /// the client's name, credentials that change.
    pub fn builder(url: impl Into<String>) -> RedisClientBuilder {
        RedisClientBuilder::server(url.into())
    }

    /// Creates a client for the primary that these sentinels (`redis://host:26379`) know by this
    /// name. The client asks the sentinels again when the connection is lost, or when the server
    /// reports that it is now a replica. It uses the default user, database 0 and RESP3; for other
    /// settings see [`sentinel_builder`](Self::sentinel_builder).
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or there is none; never because of a server.
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
    pub async fn sentinel(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> Result<Self, L2Error> {
        Self::sentinel_builder(urls, name).connect().await
    }

    /// Starts a client for the primary that these sentinels know by this name, with more settings.
    /// User and password in the first URL are for the sentinels. URLs that begin with `rediss://`
    /// mean that the servers use TLS as well.
    pub fn sentinel_builder(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> RedisClientBuilder {
        let urls = urls.into_iter().map(|url| url.as_ref().to_owned()).collect();
        RedisClientBuilder::sentinels(urls, name.to_owned())
    }

    /// Wraps a sentinel client that you have configured. `bus` identifies its message bus: a store
    /// and a backplane with the same name are on the same server.
    #[must_use]
    pub fn from_sentinel(sentinels: SentinelClient, bus: &str) -> Self {
        let sentinels = tokio::sync::Mutex::new(sentinels);
        let target = Target::Primary { sentinels, named: None };
        let bus = BusId::new(format!("redis-sentinel:{bus}"));
        Self::over(Endpoint::plain(target), bus, 0)
    }

    /// Creates a client for the cluster that these servers belong to; one that answers is enough to
    /// find the others. All servers use the user, password and protocol of the first URL. Commands
    /// follow a moved slot; the client never repeats a command that may have run.
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or there is none; never because of a server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
    /// use crinkle_l2_redis::RedisClient;
    ///
    /// let client = RedisClient::cluster(["redis://one:6379", "redis://two:6379"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cluster(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, L2Error> {
        Self::cluster_builder(urls).connect().await
    }

    /// Starts a client for the cluster that these servers belong to, with settings that URLs cannot
    /// express. A cluster has database 0 only.
    pub fn cluster_builder(urls: impl IntoIterator<Item = impl AsRef<str>>) -> RedisClientBuilder {
        RedisClientBuilder::cluster(urls.into_iter().map(|url| url.as_ref().to_owned()).collect())
    }

    pub(crate) fn over(endpoint: Endpoint, bus: BusId, database: i64) -> Self {
        let home = Home::here();
        Self::shared(Server::One(Connection::new(endpoint, home.clone())), home, bus, database)
    }

    pub(crate) fn many(cluster: Cluster, bus: BusId) -> Self {
        Self::shared(Server::Many(cluster), Home::here(), bus, 0)
    }

    fn shared(server: Server, home: Home, bus: BusId, database: i64) -> Self {
        let shared = Shared { server, home, bus, database, listening: Listening::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Connects in the background.
    pub(crate) fn warmed(self) -> Self {
        let warm = self.clone();
        drop(self.spawn(async move {
            match &warm.shared.server {
                Server::One(connection) => connection.warm().await,
                Server::Many(cluster) => cluster.warm().await,
            }
        }));
        self
    }

    /// Runs a task that outlives the call.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        spawn(&self.shared.home, task)
    }

    /// Wraps a client that you have configured. It connects with the first command. The settings of
    /// `connect` are then up to you: RESP3, which reports a lost connection at once, and TCP
    /// keep-alive.
    #[must_use]
    pub fn from_redis(client: redis::Client) -> Self {
        let info = client.get_connection_info();
        let database = info.redis_settings().db();
        let bus = bus_id(&info.addr().to_string(), database);
        Self::over(Endpoint::plain(Target::Server(client)), bus, database)
    }

    /// Identity of this server's message bus.
    #[must_use]
    pub fn bus(&self) -> BusId {
        self.shared.bus.clone()
    }

    /// Client for further connections to the server; in a cluster to one server, a different one
    /// each time.
    pub(crate) async fn server(&self) -> RedisResult<redis::Client> {
        match &self.shared.server {
            Server::One(connection) => connection.client().await,
            Server::Many(cluster) => cluster.any().await?.client().await,
        }
    }

    /// Whether this client is for a cluster: several servers take writes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.shared.server, Server::Many(_))
    }

    /// The primaries of a cluster; each can publish messages. Empty if this is no cluster. The call
    /// also refreshes the topology in the background, for the next call.
    ///
    /// # Errors
    ///
    /// If no server of the cluster answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn primaries(&self) -> RedisResult<Vec<Primary>> {
        match &self.shared.server {
            Server::Many(cluster) => Primary::all(cluster).await,
            Server::One(_) => Ok(Vec::new()),
        }
    }

    /// Placeholder address of the only primary, where there is no cluster.
    pub(crate) fn only() -> Address {
        (Arc::from(""), 0)
    }

    /// Primary of a key, if it is known.
    pub(crate) fn primary_of(&self, key: &str) -> Option<Address> {
        match &self.shared.server {
            Server::One(_) => Some(Self::only()),
            Server::Many(cluster) => cluster.primary_of(key.as_bytes()),
        }
    }

    /// Known primaries of a cluster; empty if this is no cluster.
    pub(crate) fn known_primaries(&self) -> Vec<Address> {
        match &self.shared.server {
            Server::One(_) => Vec::new(),
            Server::Many(cluster) => cluster.known_primaries(),
        }
    }

    /// Every server of a cluster, each with a client for it alone.
    pub(crate) async fn members(&self) -> RedisResult<Vec<(Address, Part, Self)>> {
        let Server::Many(cluster) = &self.shared.server else { return Ok(Vec::new()) };
        let alone = |(at, part, endpoint)| (at, part, Self::over(endpoint, self.bus(), 0));
        Ok(cluster.members().await?.into_iter().map(alone).collect())
    }

    /// All primaries.
    pub(crate) async fn places(&self) -> RedisResult<Vec<Address>> {
        let Server::Many(_) = &self.shared.server else { return Ok(vec![Self::only()]) };
        Ok(self.primaries().await?.into_iter().map(Primary::into_address).collect())
    }

    /// Sends a command to one primary.
    pub(crate) async fn ask_at(&self, primary: &Address, cmd: &Cmd) -> RedisResult<Value> {
        match &self.shared.server {
            Server::One(connection) => connection.command(cmd).await?.extract_error(),
            Server::Many(cluster) => cluster.send(primary, cmd, false).await,
        }
    }

    /// Sends `count` commands to one primary, without other commands in between.
    pub(crate) async fn pipe_at(
        &self,
        primary: &Address,
        pipe: &Pipeline,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        match &self.shared.server {
            Server::One(connection) => connection.pipeline(pipe, 0, count).await,
            Server::Many(cluster) => cluster.node(primary)?.pipeline(pipe, 0, count).await,
        }
    }

    /// Sends a `SET` to the primary of its key; false if the command missed its deadline.
    pub(crate) async fn set(&self, set: &Set<'_>) -> RedisResult<bool> {
        let connection = match &self.shared.server {
            Server::One(connection) => connection,
            Server::Many(cluster) => return cluster.set(set).await,
        };
        match connection.set(set, Hop::default()).await {
            Err(error) if is_unknown_script(&error) => {
                crate::scripts::SET.prepare_invoke().load_async(&mut self.clone()).await?;
                connection.set(set, Hop::default()).await
            }
            answer => answer,
        }
    }

    /// Refreshes what is known of the servers' clocks.
    pub(crate) fn refresh_clocks(&self) {
        match &self.shared.server {
            Server::One(connection) => connection.refresh_clock(),
            Server::Many(cluster) => cluster.refresh_clocks(),
        }
    }

    /// Opens a connection to a replica of one primary.
    pub(crate) async fn replica_of(
        &self,
        primary: &Address,
    ) -> RedisResult<(Arc<str>, MultiplexedConnection)> {
        match &self.shared.server {
            Server::One(connection) => connection.replica().await,
            Server::Many(cluster) => cluster.replica_of(primary).await,
        }
    }

    /// Name of a channel on the server. All databases share one set of channels, so a database
    /// other than 0 appends `@` and its number.
    #[must_use]
    pub fn channel<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match self.shared.database {
            0 => Cow::Borrowed(name),
            number => Cow::Owned(format!("{name}@{number}")),
        }
    }

    /// Publishes a message on the connection for commands.
    ///
    /// # Errors
    ///
    /// If there is no connection, or the user lacks the right.
    ///
    /// # Cancel safety
    ///
    /// The message may have been published or not.
    pub async fn publish(&self, channel: &str, message: &[u8]) -> RedisResult<()> {
        let (channel, mut command) = (self.channel(channel), redis::cmd("PUBLISH"));
        command.arg(&*channel).arg(message);
        let published = command.query_async(&mut self.clone()).await;
        published.map_err(|error| rights::on_channels(error, self, "publish", &[channel]))
    }

    /// Subscribes on a separate connection; returns when the server has confirmed every channel.
    /// The stream ends with the connection. It also ends when the server stops answering commands,
    /// since a subscription to a frozen server only goes silent.
    ///
    /// # Errors
    ///
    /// If the server does not confirm within a second or refuses the user.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the attempt.
    pub async fn subscribe(&self, channels: &[String]) -> RedisResult<BoxStream<'static, Msg>> {
        let channels: Vec<_> = channels.iter().map(|channel| self.channel(channel)).collect();
        let attempt = async {
            let (mut pubsub, silent) = self.pubsub().await?;
            let refused = |error| rights::on_channels(error, self, "subscribe", &channels);
            pubsub.subscribe(&channels).await.map_err(refused)?;
            Ok(pubsub.into_on_message().take_until(silent).boxed())
        };
        let timed_out = |_| Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut)));
        timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or_else(timed_out)
    }

    /// A connection that can subscribe, and a future that resolves when its server stops answering.
    pub(crate) async fn pubsub(&self) -> RedisResult<(PubSub, BoxFuture<'static, ()>)> {
        let (client, silent) = match &self.shared.server {
            Server::One(connection) => (connection.client().await?, connection.fell_silent()),
            Server::Many(cluster) => {
                let node = cluster.any().await?;
                (node.client().await?, node.fell_silent())
            }
        };
        let pubsub = client.get_async_pubsub().await;
        Ok((pubsub.map_err(|e| refusal::explained(e, client.get_connection_info()))?, silent))
    }

    pub(crate) fn listening(&self) -> &Listening {
        &self.shared.listening
    }

    /// User name of this client, for messages.
    pub(crate) fn user(&self) -> String {
        match &self.shared.server {
            Server::One(connection) => connection.user(),
            Server::Many(cluster) => cluster.user(),
        }
        .unwrap_or_else(|| "default".to_owned())
    }
}

/// Commands go over the shared connection.
impl ConnectionLike for RedisClient {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match &self.shared.server {
            Server::One(connection) => Box::pin(connection.command(cmd)),
            Server::Many(cluster) => Box::pin(cluster.command(cmd)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &self.shared.server {
            Server::One(connection) => Box::pin(connection.pipeline(cmd, offset, count)),
            Server::Many(cluster) => Box::pin(cluster.pipeline(cmd, offset, count)),
        }
    }

    fn get_db(&self) -> i64 {
        self.shared.database
    }
}

impl fmt::Debug for RedisClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection info holds the password.
        f.debug_struct("RedisClient").field("bus", &self.bus()).finish_non_exhaustive()
    }
}
