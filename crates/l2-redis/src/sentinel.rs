use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value,
};

use crate::client::{CONNECT_TIMEOUT, QUEUE, RESPONSE_TIMEOUT};
use crate::error::is_demoted;

/// How long the sentinels may take to name a primary that says that it is one.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the sentinels are asked whether the primary is still the one. They tell a demoted primary that
/// lives only after ten seconds or so, and one that they do not reach never; it takes writes meanwhile.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The primary behind a name. Whoever answers as it must not loses the connection, as does one that the
/// sentinels no longer name; the next command asks them again.
pub(crate) struct Sentinel {
    sentinels: Arc<tokio::sync::Mutex<SentinelClient>>,
    primary: Arc<Current>,
    attempts: AtomicU64,
}

/// The last attempt, with its number.
type Current = Mutex<Option<(u64, Attempt)>>;

/// One attempt to reach the primary, shared by the commands that need it.
type Attempt = Shared<BoxFuture<'static, RedisResult<Primary>>>;

/// A server that was the primary when it was connected to.
#[derive(Clone)]
pub(crate) struct Primary {
    pub(crate) client: Client,
    connection: MultiplexedConnection,
}

impl Sentinel {
    pub(crate) fn new(sentinels: SentinelClient) -> Self {
        let sentinels = Arc::new(tokio::sync::Mutex::new(sentinels));
        Self { sentinels, primary: Arc::default(), attempts: AtomicU64::new(0) }
    }

    pub(crate) async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        let (attempt, mut primary) = self.primary().await?;
        let answer = primary.connection.send_packed_command(cmd).await;
        self.noted(attempt, answer)
    }

    pub(crate) async fn commands(
        &self,
        cmd: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let (attempt, mut primary) = self.primary().await?;
        let answer = primary.connection.send_packed_commands(cmd, offset, count).await;
        self.noted(attempt, answer)
    }

    /// The server that commands go to.
    pub(crate) async fn client(&self) -> RedisResult<Client> {
        Ok(self.primary().await?.1.client)
    }

    async fn primary(&self) -> RedisResult<(u64, Primary)> {
        let (number, attempt) = self.primary.lock().get_or_insert_with(|| self.attempt()).clone();
        match attempt.await {
            Ok(primary) => Ok((number, primary)),
            Err(error) => {
                leave(&self.primary, number);
                Err(error)
            }
        }
    }

    /// Goes on when the command that began it is given up.
    fn attempt(&self) -> (u64, Attempt) {
        let number = self.attempts.fetch_add(1, Ordering::Relaxed);
        let (sentinels, current) = (Arc::clone(&self.sentinels), Arc::downgrade(&self.primary));
        let running = tokio::spawn(async move {
            let client = named(&sentinels).await?;
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT))
                .set_pipeline_buffer_size(QUEUE);
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            tokio::spawn(watch(sentinels, client.clone(), current, number));
            Ok(Primary { client, connection })
        });
        let reached = async { running.await.map_err(|_| failed("the runtime is shutting down"))? };
        (number, reached.boxed().shared())
    }

    /// Lets go of a connection that is broken or leads to what is no primary any more.
    fn noted<T>(&self, attempt: u64, answer: RedisResult<T>) -> RedisResult<T> {
        let ended = |error: &RedisError| error.is_unrecoverable_error() || is_demoted(error);
        if answer.as_ref().err().is_some_and(ended) {
            leave(&self.primary, attempt);
        }
        answer
    }
}

/// The primary that a sentinel names and that says that it is one.
async fn named(sentinels: &tokio::sync::Mutex<SentinelClient>) -> RedisResult<Client> {
    let mut sentinels = sentinels.lock().await;
    match tokio::time::timeout(ASK_TIMEOUT, sentinels.async_get_client()).await {
        Ok(client) => client,
        Err(_) => Err(failed("no sentinel has named a primary in time")),
    }
}

/// Leaves the server of an attempt as soon as the sentinels name another one.
async fn watch(
    sentinels: Arc<tokio::sync::Mutex<SentinelClient>>,
    server: Client,
    current: Weak<Current>,
    attempt: u64,
) {
    let is_current = |current: &Current| current.lock().as_ref().is_some_and(|c| c.0 == attempt);
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        if !current.upgrade().is_some_and(|current| is_current(&current)) {
            return;
        }
        // Who names nobody says nothing about the server.
        let Ok(named) = named(&sentinels).await else { continue };
        if named.get_connection_info().addr() != server.get_connection_info().addr()
            && let Some(current) = current.upgrade()
        {
            return leave(&current, attempt);
        }
    }
}

fn leave(current: &Current, attempt: u64) {
    current.lock().take_if(|current| current.0 == attempt);
}

fn failed(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, why))
}
