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
use crate::connection::{CONNECT_TIMEOUT, Connection, Endpoint, Target, spawn};
use crate::doctor::Part;
use crate::listening::Listening;
use crate::primary::Primary;
use crate::set::{Hop, Set, is_unknown_script};
use crate::slots::Address;
use crate::{refusal, rights};

/// One Redis server, the primary that sentinels name, or a cluster, for as many stores and backplanes as like to
/// share it: one multiplexed connection for commands (in a cluster one to each server), and one for the
/// subscriptions of all its backplanes.
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
    /// A client for the server at this URL: `redis://user:password@host:port/db`, `rediss://` for TLS
    /// (feature `tls`), `redis+unix:///path?db=1&user=name&pass=word`. The server may be down: it is
    /// connected to in the background. The protocol is RESP3; for something in between that knows only
    /// the older one, add `?protocol=resp2`.
    ///
    /// # Errors
    ///
    /// If the URL makes no sense; never because of the server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the client, nothing else.
    pub async fn connect(url: &str) -> Result<Self, L2Error> {
        Self::builder(url).connect().await
    }

    /// A client for the server at this URL, with more to choose than a URL says: TLS, the client's
    /// name, credentials that change.
    pub fn builder(url: impl Into<String>) -> RedisClientBuilder {
        RedisClientBuilder::server(url.into())
    }

    /// A client for the primary that these sentinels (`redis://host:26379`) know by this name. Whenever
    /// the connection is lost, or the server says that it is a replica now, they are asked again. The
    /// servers are the default user's, database 0, RESP3; for anything else there is
    /// [`sentinel_builder`](Self::sentinel_builder).
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
    pub async fn sentinel(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> Result<Self, L2Error> {
        Self::sentinel_builder(urls, name).connect().await
    }

    /// A client for the primary that these sentinels know by this name, with more to choose. A user and
    /// password in the first of the URLs are for the sentinels. Those that begin with `rediss://` say that
    /// the servers speak TLS as well.
    pub fn sentinel_builder(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        name: &str,
    ) -> RedisClientBuilder {
        let urls = urls.into_iter().map(|url| url.as_ref().to_owned()).collect();
        RedisClientBuilder::sentinels(urls, name.to_owned())
    }

    /// A client for a primary behind sentinels as you have set it up. `bus` tells its bus from others: one
    /// name for a store and a backplane says that they are the same server.
    #[must_use]
    pub fn from_sentinel(sentinels: SentinelClient, bus: &str) -> Self {
        let sentinels = tokio::sync::Mutex::new(sentinels);
        let to = Target::Primary { sentinels, named: None };
        let bus = BusId::new(format!("redis-sentinel:{bus}"));
        Self::over(Endpoint::plain(to), bus, 0)
    }

    /// A client for the cluster that these servers belong to; one that answers is enough to find the others.
    /// User, password and protocol of the first URL are those of all servers. Where a slot has moved, commands
    /// follow; nothing that may have run is sent twice.
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
    /// let client = RedisClient::cluster(["redis://one:6379", "redis://two:6379"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cluster(urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, L2Error> {
        Self::cluster_builder(urls).connect().await
    }

    /// A client for the cluster that these servers belong to, with more to choose than URLs say. A cluster has
    /// database 0 only.
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

    /// A client as you have set it up. It connects with the first command. What `connect` chooses is up
    /// to you then: RESP3, which notices a lost connection at once, and TCP keep-alive.
    #[must_use]
    pub fn from_redis(client: redis::Client) -> Self {
        let info = client.get_connection_info();
        let database = info.redis_settings().db();
        let bus = bus_id(&info.addr().to_string(), database);
        Self::over(Endpoint::plain(Target::Server(client)), bus, database)
    }

    /// The message bus of this server.
    #[must_use]
    pub fn bus(&self) -> BusId {
        self.shared.bus.clone()
    }

    /// The server itself, for connections beside the shared one; in a cluster one of them, by turns.
    pub(crate) async fn server(&self) -> RedisResult<redis::Client> {
        match &self.shared.server {
            Server::One(connection) => connection.client().await,
            Server::Many(cluster) => cluster.any().await?.client().await,
        }
    }

    /// Whether there are several servers that take writes.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.shared.server, Server::Many(_))
    }

    /// The servers of a cluster that take writes, each a endpoint of its own that a message can take; none if it is
    /// no cluster. Who they are is looked up again meanwhile, for the next time.
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

    /// The place of a primary that is the only one.
    pub(crate) fn only() -> Address {
        (Arc::from(""), 0)
    }

    /// The primary of a key, if it is known.
    pub(crate) fn primary_of(&self, key: &str) -> Option<Address> {
        match &self.shared.server {
            Server::One(_) => Some(Self::only()),
            Server::Many(cluster) => cluster.primary_of(key.as_bytes()),
        }
    }

    /// The primaries of a cluster, as far as they are known; none if it is no cluster.
    pub(crate) fn known_primaries(&self) -> Vec<Address> {
        match &self.shared.server {
            Server::One(_) => Vec::new(),
            Server::Many(cluster) => cluster.known_primaries(),
        }
    }

    /// Every server of a cluster, with a client for it alone.
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

    /// Asks one of them.
    pub(crate) async fn ask_at(&self, primary: &Address, cmd: &Cmd) -> RedisResult<Value> {
        match &self.shared.server {
            Server::One(connection) => connection.command(cmd).await?.extract_error(),
            Server::Many(cluster) => cluster.send(primary, cmd, false).await,
        }
    }

    /// Sends one of them a few commands, with nobody else's in between.
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

    /// Sends a `SET` to where its key is; false if it came late.
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

    /// Learns what the clocks of the servers show that commands go to.
    pub(crate) fn refresh_clocks(&self) {
        match &self.shared.server {
            Server::One(connection) => connection.refresh_clock(),
            Server::Many(cluster) => cluster.refresh_clocks(),
        }
    }

    /// A connection of its own to a replica of one of them.
    pub(crate) async fn replica_of(
        &self,
        primary: &Address,
    ) -> RedisResult<(Arc<str>, MultiplexedConnection)> {
        match &self.shared.server {
            Server::One(connection) => connection.replica().await,
            Server::Many(cluster) => cluster.replica_of(primary).await,
        }
    }

    /// What a channel is called on the server, which has the same channels for all its databases: those of
    /// any other than 0 end with `@` and its number.
    #[must_use]
    pub fn channel<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match self.shared.database {
            0 => Cow::Borrowed(name),
            number => Cow::Owned(format!("{name}@{number}")),
        }
    }

    /// Publishes a message, on the connection for commands.
    ///
    /// # Errors
    ///
    /// If there is no connection, or the user may not.
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

    /// Subscribes on a connection of its own; returns when every channel is confirmed. The stream
    /// ends with the connection, and when the server answers nothing to commands any more: a subscription
    /// to such a server is silent as well, and nothing would tell.
    ///
    /// # Errors
    ///
    /// If the server does not confirm within a second or refuses the user.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
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

    /// A connection that can subscribe, and what resolves when its server answers nothing any more.
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

    /// Whom the server knows this client as, for messages.
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
