//! The client: one server, the primary behind sentinels, or a cluster. `servers` is what a store
//! needs of the single servers.

pub(crate) mod servers;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

use crinkle_core::l2::BusId;
use crinkle_core::runtime::Home;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use redis::aio::{ConnectionLike, PubSub};
use redis::sentinel::SentinelClient;
use redis::{Cmd, Msg, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::cluster::primary::Primary;
use crate::connection::endpoint::{Endpoint, Target};
use crate::connection::{Connection, spawn};
use crate::listening::{Listening, Subscriber};
use crate::settings::{CONNECT_TIMEOUT, bus_id};
use crate::{acl, refusal};

/// Client for one Redis server, for the primary that sentinels name, or for a cluster. Any number
/// of stores and backplanes can share it. It has one multiplexed connection for commands (in a
/// cluster one to each server), and one for the subscriptions of all its backplanes.
///
/// The client connects in the background, and reconnects after a lost connection. While the server
/// is unreachable, a command fails at once. Clones share the connection.
///
/// ```no_run
/// use crinkle_redis_client::RedisClient;
///
/// # async fn example() -> Result<(), crinkle_core::l2::L2Error> {
/// let client = RedisClient::connect("redis://localhost").await?;
/// // A store and a backplane share it: `RedisL2::new(client.clone())`,
/// // `RedisBackplane::new(client)`.
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
    /// Wraps a sentinel client that you have configured. `bus` identifies its message bus: a store
    /// and a backplane with the same name are on the same server.
    #[must_use]
    pub fn from_sentinel(sentinels: SentinelClient, bus: &str) -> Self {
        let sentinels = tokio::sync::Mutex::new(sentinels);
        let target = Target::Primary { sentinels, named: None };
        let bus = BusId::new(format!("redis-sentinel:{bus}"));
        Self::over(Endpoint::plain(target), bus, 0)
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

    /// Runs a task that outlives the call, on the runtime of the client's connections.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        spawn(&self.shared.home, task)
    }

    /// User name of this client, for messages.
    #[must_use]
    pub fn user(&self) -> String {
        match &self.shared.server {
            Server::One(connection) => connection.user(),
            Server::Many(cluster) => cluster.user(),
        }
        .unwrap_or_else(|| "default".to_owned())
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
        published.map_err(|error| acl::on_channels(error, &self.user(), "publish", &[channel]))
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
            let refused = |error| acl::on_channels(error, &self.user(), "subscribe", &channels);
            pubsub.subscribe(&channels).await.map_err(refused)?;
            Ok(pubsub.into_on_message().take_until(silent).boxed())
        };
        let timed_out = |_| Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut)));
        timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or_else(timed_out)
    }

    /// A connection that can subscribe, and a future that resolves when its server stops answering.
    async fn pubsub(&self) -> RedisResult<(PubSub, BoxFuture<'static, ()>)> {
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

    /// Subscribes on the connection that all subscribers of this client share; returns when the
    /// server has confirmed every channel. The stream ends with the connection. A subscriber that
    /// returns with the same channels gets a new connection.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the attempt.
    pub async fn listen(&self, channels: &[String]) -> RedisResult<Subscriber> {
        let names: Vec<_> = channels.iter().map(|channel| self.channel(channel)).collect();
        let client = self.clone();
        let open = async move { client.pubsub().await };
        let explain = |error| acl::on_channels(error, &self.user(), "subscribe", &names);
        let channels = names.iter().map(|name| Arc::from(&**name)).collect();
        self.shared.listening.subscribe(channels, open, explain).await
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
