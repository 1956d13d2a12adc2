use std::sync::Arc;
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

/// The primary behind a name. Whoever answers as it must not loses the connection, and the next command
/// asks the sentinels again.
pub(crate) struct Sentinel {
    sentinels: Arc<tokio::sync::Mutex<SentinelClient>>,
    primary: Mutex<Option<Attempt>>,
}

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
        Self { sentinels, primary: Mutex::new(None) }
    }

    pub(crate) async fn command(&self, cmd: &Cmd) -> RedisResult<Value> {
        let (attempt, mut primary) = self.primary().await?;
        let answer = primary.connection.send_packed_command(cmd).await;
        self.noted(&attempt, answer)
    }

    pub(crate) async fn commands(
        &self,
        cmd: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let (attempt, mut primary) = self.primary().await?;
        let answer = primary.connection.send_packed_commands(cmd, offset, count).await;
        self.noted(&attempt, answer)
    }

    /// The server that commands go to.
    pub(crate) async fn client(&self) -> RedisResult<Client> {
        Ok(self.primary().await?.1.client)
    }

    async fn primary(&self) -> RedisResult<(Attempt, Primary)> {
        let attempt = self.primary.lock().get_or_insert_with(|| self.attempt()).clone();
        match attempt.clone().await {
            Ok(primary) => Ok((attempt, primary)),
            Err(error) => {
                self.leave(&attempt);
                Err(error)
            }
        }
    }

    /// Goes on when the command that began it is given up.
    fn attempt(&self) -> Attempt {
        let sentinels = Arc::clone(&self.sentinels);
        let running = tokio::spawn(async move {
            let mut sentinels = sentinels.lock().await;
            let client = match tokio::time::timeout(ASK_TIMEOUT, sentinels.async_get_client()).await
            {
                Ok(client) => client?,
                Err(_) => return Err(failed("no sentinel has named a primary in time")),
            };
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(RESPONSE_TIMEOUT))
                .set_pipeline_buffer_size(QUEUE);
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            Ok(Primary { client, connection })
        });
        let reached = async { running.await.map_err(|_| failed("the runtime is shutting down"))? };
        reached.boxed().shared()
    }

    /// Lets go of a connection that is broken or leads to what is no primary any more.
    fn noted<T>(&self, attempt: &Attempt, answer: RedisResult<T>) -> RedisResult<T> {
        let ended = |error: &RedisError| error.is_unrecoverable_error() || is_demoted(error);
        if answer.as_ref().err().is_some_and(ended) {
            self.leave(attempt);
        }
        answer
    }

    fn leave(&self, attempt: &Attempt) {
        let mut primary = self.primary.lock();
        if primary.as_ref().is_some_and(|current| current.ptr_eq(attempt)) {
            *primary = None;
        }
    }
}

fn failed(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, why))
}
