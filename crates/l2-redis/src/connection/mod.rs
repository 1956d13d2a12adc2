pub(crate) mod silence;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crinkle_core::runtime::{Home, Place};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelServerType as Kind};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, PushInfo, PushKind,
    RedisConnectionInfo, RedisError, RedisResult, Value,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::builder::{AskCredentials, Credentials};
use crate::connection::silence::Silence;
use crate::error::{is_demoted, server_errors};
use crate::refusal;
use crate::sentinels::Sentinels;
use crate::set::{Hop, Known, Set};

/// How long one attempt to connect may take, handshake included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Limit of one command. Each call of the cache has a far tighter limit; the redis crate's default
/// of 500 ms would cut off a large record.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Commands that may wait for the socket; beyond this, callers wait.
const QUEUE: usize = 1024;

/// Limit for the sentinels to name a confirmed primary, and for the application to give
/// credentials.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval of the check that the sentinels still name this primary. They reconfigure a demoted
/// primary only after about ten seconds, and never one that they cannot reach; until then it
/// accepts writes.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The connection for commands. A command closes it when it is lost, when the server has become a
/// replica, or when the sentinels name another server. The next command opens another.
pub(crate) struct Connection {
    endpoint: Arc<Endpoint>,
    current: Arc<Current>,
    /// The runtime that drives the connection.
    home: Home,
    attempts: AtomicU64,
    /// How many connections were closed because the server did not answer.
    silent: watch::Sender<u64>,
}

/// The last attempt, with its number.
type Current = Mutex<Option<(u64, Attempt)>>;

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

/// One attempt to connect, shared by the commands that need it. `None` if its runtime has shut
/// down.
type Attempt = Shared<BoxFuture<'static, Option<RedisResult<Connected>>>>;

/// An open connection to a server that was the right one at that time.
#[derive(Clone)]
struct Connected {
    client: Client,
    commands: MultiplexedConnection,
    /// What is known of the server's clock.
    clock: Known,
    /// The server has closed the connection; only RESP3 reports this.
    lost: Arc<AtomicBool>,
    silence: Arc<Silence>,
    /// The runtime that drives the connection.
    place: Place,
}

impl Connection {
    pub(crate) fn new(endpoint: Endpoint, home: Home) -> Self {
        Self {
            home,
            endpoint: Arc::new(endpoint),
            current: Arc::default(),
            attempts: AtomicU64::new(0),
            silent: watch::Sender::new(0),
        }
    }

    /// Connects in advance; ignores a failure.
    pub(crate) async fn warm(&self) {
        drop(self.connected().await);
    }

    pub(crate) async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        let (attempt, mut connected) = self.connected().await?;
        connected.silence.asked();
        let answer = connected.commands.send_packed_command(cmd).await;
        self.note_answer(attempt, &connected, answer.as_ref().map(std::slice::from_ref));
        answer
    }

    pub(crate) async fn pipeline(
        &self,
        cmd: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let (attempt, mut connected) = self.connected().await?;
        connected.silence.asked();
        let answer = connected.commands.send_packed_commands(cmd, offset, count).await;
        self.note_answer(attempt, &connected, answer.as_ref().map(Vec::as_slice));
        answer
    }

    /// Resolves when a connection is closed because the server stopped answering. Every other
    /// connection to that server is then silent as well.
    pub(crate) fn fell_silent(&self) -> BoxFuture<'static, ()> {
        let mut silent = self.silent.subscribe();
        async move {
            if silent.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .boxed()
    }

    /// Sends a `SET`; false if it missed its deadline.
    pub(crate) async fn set(&self, set: &Set<'_>, hop: Hop) -> RedisResult<bool> {
        let (attempt, mut connected) = self.connected().await?;
        connected.silence.asked();
        let answer = connected.clock.set(&mut connected.commands, set, hop).await;
        self.note_answer(attempt, &connected, answer.as_ref().map(|_| &[][..]));
        answer
    }

    /// Refreshes what is known of the server's clock, in the background. Does nothing without a
    /// connection, or if the clock is not needed.
    pub(crate) fn refresh_clock(&self) {
        let current = self.current.lock();
        let made =
            current.as_ref().and_then(|(_, attempt)| attempt.peek()?.as_ref()?.as_ref().ok());
        if let Some(connected) = made.filter(|connected| !connected.is_lost()) {
            connected.clock.refresh(&connected.commands);
        }
    }

    /// Client for a further connection to the server that gets the commands.
    pub(crate) async fn client(&self) -> RedisResult<Client> {
        match &self.endpoint.target {
            Target::Server(client) => self.endpoint.logged_in(client).await,
            Target::Primary { .. } => {
                self.endpoint.logged_in(&self.connected().await?.1.client).await
            }
        }
    }

    /// Opens a connection to any one of the server's replicas.
    pub(crate) async fn replica(&self) -> RedisResult<(Arc<str>, MultiplexedConnection)> {
        let endpoint = &*self.endpoint;
        let client = match &endpoint.target {
            Target::Server(_) => {
                let replicas = &endpoint.replicas;
                let named = replicas.get(any_number() % replicas.len().max(1));
                endpoint.logged_in(named.ok_or_else(|| failed("no replica was named"))?).await?
            }
            Target::Primary { named, .. } => {
                let named = named.as_ref().ok_or_else(|| failed("no sentinels to ask"))?;
                let mut sentinels = named.client(endpoint.ask().await?, Kind::Replica)?;
                let named = timeout(ASK_TIMEOUT, sentinels.async_get_client()).await;
                named.map_err(|_| failed("no sentinel has named a replica in time"))??
            }
        };
        let name = client.get_connection_info().addr().to_string();
        Ok((name.into(), endpoint.open(&client).await?.0))
    }

    /// User of the current connection, or else of the next; `None` for the default user.
    pub(crate) fn user(&self) -> Option<String> {
        let current = self.current.lock();
        let made =
            current.as_ref().and_then(|(_, attempt)| attempt.peek()?.as_ref()?.as_ref().ok());
        let client = match (made, &self.endpoint.target) {
            (Some(connected), _) => &connected.client,
            (None, Target::Server(client)) => client,
            (None, Target::Primary { .. }) => return None,
        };
        client.get_connection_info().redis_settings().username().map(ToOwned::to_owned)
    }

    async fn connected(&self) -> RedisResult<(u64, Connected)> {
        // Retry once: the runtime of the first attempt may have shut down.
        for _ in 0..2 {
            let (number, attempt) = self.attempt();
            let made = attempt.await;
            if !matches!(made, Some(Ok(_))) {
                leave(&self.current, number);
            }
            if let Some(made) = made {
                return made.map(|connected| (number, connected));
            }
        }
        Err(failed("the runtime is shutting down"))
    }

    /// The current attempt, or a new one. An attempt continues when the command that started it is
    /// dropped.
    fn attempt(&self) -> (u64, Attempt) {
        let mut current = self.current.lock();
        let made = current.as_ref().and_then(|(_, attempt)| attempt.peek()?.as_ref());
        let connected = made.and_then(|made| made.as_ref().ok());
        let silent = connected.filter(|connected| connected.silence.is_over_limit());
        if let Some(silent) = silent {
            let server = silent.client.get_connection_info().addr();
            tracing::warn!(
                %server,
                limit_ms = Silence::LIMIT.as_millis(),
                "Redis accepts commands but answers none; reconnecting"
            );
            self.silent.send_modify(|times| *times += 1);
        }
        if silent.is_some() || connected.is_some_and(Connected::is_lost) {
            *current = None;
        }
        let begin = || {
            let number = self.attempts.fetch_add(1, Ordering::Relaxed);
            let (endpoint, place) = (Arc::clone(&self.endpoint), Arc::downgrade(&self.current));
            let home = self.home.place();
            let running = home.map(|home| {
                home.handle().clone().spawn(async move {
                    let connected = endpoint.connect(home).await?;
                    if let Target::Primary { .. } = &endpoint.target {
                        tokio::spawn(watch(endpoint, connected.client.clone(), place, number));
                    }
                    Ok(connected)
                })
            });
            let attempt = async move {
                match running {
                    Ok(running) => running.await.ok(),
                    Err(error) => Some(Err(error.into())),
                }
            };
            (number, attempt.boxed().shared())
        };
        current.get_or_insert_with(begin).clone()
    }

    /// Closes a connection that is broken, or whose server is no longer a primary, so that the next
    /// command resolves the address again. The client library returns a server error inside `Ok`.
    fn note_answer(
        &self,
        attempt: u64,
        connected: &Connected,
        answer: Result<&[Value], &RedisError>,
    ) {
        let is_over = match answer {
            Err(error) if error.is_timeout() => return,
            Err(error) => error.is_unrecoverable_error() || is_demoted(error),
            Ok(values) => server_errors(values).any(|error| is_demoted(&error)),
        };
        connected.silence.answered();
        if is_over {
            leave(&self.current, attempt);
        }
    }
}

/// Runs a task that outlives the call.
pub(crate) fn spawn<T: Send + 'static>(
    home: &Home,
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    match home.place() {
        Ok(place) => place.handle().spawn(task),
        // The system could not start a thread for the permanent runtime.
        Err(_) => tokio::spawn(task),
    }
}

fn leave(current: &Current, attempt: u64) {
    current.lock().take_if(|current| current.0 == attempt);
}

/// Closes an attempt's connection when the sentinels name another server.
async fn watch(endpoint: Arc<Endpoint>, server: Client, current: Weak<Current>, attempt: u64) {
    let is_current = |current: &Current| current.lock().as_ref().is_some_and(|c| c.0 == attempt);
    loop {
        sleep(CHECK_EVERY).await;
        if !current.upgrade().is_some_and(|current| is_current(&current)) {
            return;
        }
        let user = server.get_connection_info().redis_settings().clone();
        let named = match endpoint.named(user).await {
            // The primary may require another password by now.
            Err(_) => endpoint.find().await,
            named => named,
        };
        // No named primary is no evidence against this server.
        let Ok(named) = named else { continue };
        if named.get_connection_info().addr() != server.get_connection_info().addr()
            && let Some(current) = current.upgrade()
        {
            return leave(&current, attempt);
        }
    }
}

impl Connected {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) || self.place.is_left()
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

    async fn connect(&self, place: Place) -> RedisResult<Connected> {
        let (client, commands, lost) = self.connect_to_any().await?;
        let (clock, silence) = (Known::default(), Arc::default());
        Ok(Connected { client, commands, clock, lost, silence, place })
    }

    async fn connect_to_any(
        &self,
    ) -> RedisResult<(Client, MultiplexedConnection, Arc<AtomicBool>)> {
        let client = self.find().await?;
        match self.open(&client).await {
            Ok((commands, lost)) => Ok((client, commands, lost)),
            Err(error) => Err(refusal::explained(error, client.get_connection_info())),
        }
    }

    async fn find(&self) -> RedisResult<Client> {
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
    async fn named(&self, user: RedisConnectionInfo) -> RedisResult<Client> {
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
    async fn logged_in(&self, client: &Client) -> RedisResult<Client> {
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

fn failed(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, why))
}
