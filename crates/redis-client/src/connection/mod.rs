//! The connection for the commands of one server.
//!
//! `endpoint` finds the server and opens connections, `silence` detects a server that does not
//! answer, `call` is for calls that need more than a command.

pub(crate) mod call;
pub(crate) mod endpoint;
pub(crate) mod silence;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crinkle_core::runtime::{Home, Place};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use self::call::{Attachments, Call, Hop};
use self::endpoint::{Endpoint, Target};
use self::silence::Silence;
use crate::error::{failed, is_demoted, server_errors};

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

/// One attempt to connect, shared by the commands that need it. `None` if its runtime has shut
/// down.
type Attempt = Shared<BoxFuture<'static, Option<RedisResult<Connected>>>>;

/// An open connection to a server that was the right one at that time.
#[derive(Clone)]
struct Connected {
    client: Client,
    commands: MultiplexedConnection,
    attached: Attachments,
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

    /// Sends a call.
    pub(crate) async fn call<C: Call>(&self, call: &C, hop: Hop) -> RedisResult<C::Reply> {
        let (attempt, mut connected) = self.connected().await?;
        connected.silence.asked();
        let answer = call.send(&mut connected.commands, &connected.attached, hop).await;
        self.note_answer(attempt, &connected, answer.as_ref().map(|_| &[][..]));
        answer
    }

    /// Visits the connection if it is open.
    pub(crate) fn visit(&self, visitor: impl FnOnce(&MultiplexedConnection, &Attachments)) {
        let current = self.current.lock();
        let made =
            current.as_ref().and_then(|(_, attempt)| attempt.peek()?.as_ref()?.as_ref().ok());
        if let Some(connected) = made.filter(|connected| !connected.is_lost()) {
            visitor(&connected.commands, &connected.attached);
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
        self.endpoint.replica().await
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
                    let connected = Connected::open(&endpoint, home).await?;
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
    async fn open(endpoint: &Endpoint, place: Place) -> RedisResult<Self> {
        let (client, commands, lost) = endpoint.connect_to_any().await?;
        let (attached, silence) = (Attachments::default(), Arc::default());
        Ok(Self { client, commands, attached, lost, silence, place })
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) || self.place.is_left()
    }
}
