//! Where to connect: finds the server, logs in and opens connections.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelServerType as Kind};
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisConnectionInfo, RedisResult};
use tokio::time::timeout;

use crate::credentials::{AskCredentials, Credentials};
use crate::error::failed;
use crate::refusal;
use crate::sentinels::Sentinels;
use crate::settings::CONNECT_TIMEOUT;

/// Limit of one command. Each call of the cache has a far tighter limit; the redis crate's default
/// of 500 ms would cut off a large record.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Commands that may wait for the socket; beyond this, callers wait.
const QUEUE: usize = 1024;

/// Limit for the sentinels to name a confirmed primary, and for the application to give
/// credentials.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Where to connect, and with which credentials.
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    /// Name of the connection in `CLIENT LIST`.
    pub(crate) name: Option<String>,
    /// Called for credentials before each connection.
    pub(crate) credentials: Option<AskCredentials>,
    /// The replicas that the application has named.
    pub(crate) replicas: Vec<Client>,
}

pub(crate) enum Target {
    Server(Client),
    Primary {
        /// Configured by the application. Used only if `named` is `None`.
        sentinels: tokio::sync::Mutex<SentinelClient>,
        /// Settings to ask each sentinel separately, and to ask for a replica.
        named: Option<Box<Sentinels>>,
    },
}

impl Target {
    /// The primary that these sentinels name.
    pub(crate) fn primary(named: Sentinels) -> RedisResult<Self> {
        let sentinels = tokio::sync::Mutex::new(named.client(None, Kind::Master)?);
        Ok(Self::Primary { sentinels, named: Some(Box::new(named)) })
    }
}

impl Endpoint {
    /// An endpoint without a connection name, with the user of the URL.
    pub(crate) fn plain(target: Target) -> Self {
        Self { target, name: None, credentials: None, replicas: Vec::new() }
    }

    /// Opens a separate connection.
    pub(crate) async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        Ok(self.connect_to_any().await?.1)
    }

    /// Opens a connection to any one of the server's replicas.
    pub(super) async fn replica(&self) -> RedisResult<(Arc<str>, MultiplexedConnection)> {
        let client = match &self.target {
            Target::Server(_) => {
                let replicas = &self.replicas;
                let named = replicas.get(any_number() % replicas.len().max(1));
                self.logged_in(named.ok_or_else(|| failed("no replica was named"))?).await?
            }
            Target::Primary { named, .. } => {
                let named = named.as_ref().ok_or_else(|| failed("no sentinels to ask"))?;
                let mut sentinels = named.client(self.ask().await?, Kind::Replica)?;
                let named = timeout(ASK_TIMEOUT, sentinels.async_get_client()).await;
                named.map_err(|_| failed("no sentinel has named a replica in time"))??
            }
        };
        let name = client.get_connection_info().addr().to_string();
        Ok((name.into(), self.open(&client).await?.0))
    }

    pub(super) async fn connect_to_any(
        &self,
    ) -> RedisResult<(Client, MultiplexedConnection, Arc<AtomicBool>)> {
        let client = self.find().await?;
        match self.open(&client).await {
            Ok((commands, lost)) => Ok((client, commands, lost)),
            Err(error) => Err(refusal::explained(error, client.get_connection_info())),
        }
    }

    pub(super) async fn find(&self) -> RedisResult<Client> {
        refusal::choose_cryptography();
        let user = match &self.target {
            Target::Server(client) => return self.logged_in(client).await,
            Target::Primary { named, .. } => named.as_ref().map(|named| named.servers.clone()),
        };
        let user = user.unwrap_or_default();
        match self.ask().await? {
            Some(credentials) => self.named(credentials.into_settings(user)).await,
            None => self.named(user).await,
        }
    }

    /// The server, or the primary that the sentinels name and that confirms its role, for this
    /// user.
    pub(super) async fn named(&self, user: RedisConnectionInfo) -> RedisResult<Client> {
        let naming = async {
            match &self.target {
                Target::Server(client) => Ok(client.clone()),
                Target::Primary { named: Some(named), .. } => named.agreed(&user).await,
                Target::Primary { sentinels, .. } => {
                    sentinels.lock().await.async_get_client().await
                }
            }
        };
        match timeout(ASK_TIMEOUT, naming).await {
            Ok(client) => client.map_err(refusal::explained_behind_sentinels),
            Err(_) => Err(failed("no sentinel has named a primary in time")),
        }
    }

    async fn open(&self, client: &Client) -> RedisResult<(MultiplexedConnection, Arc<AtomicBool>)> {
        let lost = Arc::new(AtomicBool::new(false));
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(QUEUE);
        if client.get_connection_info().redis_settings().protocol().supports_resp3() {
            let lost_flag = Arc::clone(&lost);
            config = config.set_push_sender(move |push: PushInfo| {
                lost_flag.fetch_or(push.kind == PushKind::Disconnection, Ordering::Relaxed);
                Ok::<_, std::convert::Infallible>(())
            });
        }
        let mut commands = client.get_multiplexed_async_connection_with_config(&config).await?;
        if let Some(name) = &self.name {
            let mut named = redis::cmd("CLIENT");
            // The name is optional: without the right to set it, the connection has none.
            drop(commands.send_packed_command(named.arg("SETNAME").arg(name)).await);
        }
        Ok((commands, lost))
    }

    /// The same server with the current credentials.
    pub(super) async fn logged_in(&self, client: &Client) -> RedisResult<Client> {
        let Some(credentials) = self.ask().await? else { return Ok(client.clone()) };
        let info = client.get_connection_info().clone();
        let settings = credentials.into_settings(info.redis_settings().clone());
        Client::open(info.set_redis_settings(settings))
    }

    async fn ask(&self) -> RedisResult<Option<Credentials>> {
        let Some(ask) = &self.credentials else { return Ok(None) };
        match timeout(ASK_TIMEOUT, ask()).await {
            Ok(Ok(credentials)) => Ok(Some(credentials)),
            Ok(Err(error)) => Err(refusal::no_credentials(&error.to_string())),
            Err(_) => Err(refusal::no_credentials("it did not answer in time")),
        }
    }
}

/// A number to spread load by; not a secure random number.
pub(crate) fn any_number() -> usize {
    usize::try_from(RandomState::new().hash_one(0) % 1024).unwrap_or_default()
}
