use std::time::Duration;

use crinkle_core::l2::L2Error;
use crinkle_l2_redis::redis::{
    Cmd, FromRedisValue, IntoConnectionInfo, RedisError, Value, cmd, from_redis_value,
};
use crinkle_l2_redis::{LedgerState, LedgerView, RedisClient, RedisClientBuilder};
use tokio::time::timeout;

use crate::args::Global;
use crate::failure::Failure;

/// The server for all commands except `completions`.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) client: RedisClient,
    /// Without user and password.
    pub(crate) address: String,
    pub(crate) limit: Duration,
}

impl Server {
    pub(crate) async fn connect(global: &Global) -> Result<Self, Failure> {
        let Some(first) = global.url.first() else {
            return Err(Failure::usage("--url is missing, and CRINKLE_REDIS_URL is not set"));
        };
        // Not the URL itself: it may hold a password.
        let invalid_url = |what: String| {
            Failure::usage(format!(
                "the URL of the server is invalid: {what}. An example: \
                 redis://user:password@host:6379/0"
            ))
        };
        if cfg!(not(feature = "tls")) && global.url.iter().any(|url| url.starts_with("rediss://")) {
            return Err(Failure::usage(
                "this crinkle was built without TLS, which `rediss://` needs: \
                 `cargo install crinkle-cli --features tls`, or write `redis://` for a connection without TLS",
            ));
        }
        let (builder, address) = match &global.sentinel {
            Some(name) => {
                let urls: Vec<_> = global.url.iter().flat_map(|urls| urls.split(',')).collect();
                let address = format!("{name} of {} sentinels", urls.len());
                (RedisClient::sentinel_builder(urls, name), address)
            }
            None if global.url.len() > 1 => {
                return Err(Failure::usage("several URLs are given, but no --sentinel"));
            }
            None => {
                let Ok(info) = first.as_str().into_connection_info() else {
                    return Err(invalid_url(explain_url(first).await));
                };
                (RedisClient::builder(first), info.addr().to_string())
            }
        };
        let connect = async |builder| {
            let client = prepared(builder, global)?.connect().await;
            client.map_err(|error| invalid_url(detail(&error)))
        };
        let server = Self { client: connect(builder).await?, address, limit: global.timeout() };
        if global.sentinel.is_none() && server.is_of_a_cluster().await? {
            let client = connect(RedisClient::cluster_builder([first])).await?;
            return Ok(Self { client, ..server });
        }
        Ok(server)
    }

    /// Whether the server belongs to a cluster. If it refuses the question, the command itself
    /// reports the error.
    async fn is_of_a_cluster(&self) -> Result<bool, Failure> {
        let mut ask = cmd("CLUSTER");
        ask.arg("SLOTS");
        let mut client = self.client.clone();
        let asked = ask.query_async::<Vec<Value>>(&mut client);
        let slots = timeout(self.limit, asked).await;
        Ok(slots.map_err(|_| Failure::silent(&self.address, self.limit))?.is_ok())
    }

    /// Waits for an answer, and explains a failure to the operator.
    pub(crate) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<T, L2Error>>,
    ) -> Result<T, Failure> {
        self.answer_within(self.limit, call).await
    }

    /// The same with another limit, for calls with several requests.
    pub(crate) async fn answer_within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, L2Error>>,
    ) -> Result<T, Failure> {
        match timeout(limit, call).await {
            Ok(answer) => answer.map_err(|error| Failure::of_server(&self.address, &error)),
            Err(_) => Err(Failure::silent(&self.address, limit)),
        }
    }

    pub(crate) async fn ledger(&self, prefix: &str) -> Result<LedgerView, Failure> {
        self.answer(LedgerView::read(&self.client, prefix)).await
    }

    /// The ledger, or an error that explains why there is none.
    pub(crate) async fn ledger_needed(&self, prefix: &str) -> Result<LedgerState, Failure> {
        let at = &self.address;
        Err(Failure::found(match self.ledger(prefix).await? {
            LedgerView::Present(state) => return Ok(state),
            LedgerView::Absent => format!(
                "there is no ledger under the prefix {prefix:?} at {at}, so no cache uses it. Check that it \
                 is the cache's key_prefix (by default its name and a colon), and that the cache uses this \
                 server and database."
            ),
            LedgerView::OtherVersion(begins) => format!(
                "the ledger under the prefix {prefix:?} is of another version of Crinkle ({begins:?}); \
                 use the crinkle command of that version"
            ),
            _ => format!(
                "the ledger's key under the prefix {prefix:?} at {at} is not a ledger; see `crinkle doctor`"
            ),
        }))
    }

    /// How many nodes are subscribed; `None` if the user may not ask.
    pub(crate) async fn subscribers(&self, prefix: &str) -> Option<u64> {
        let mut ask = cmd("PUBSUB");
        ask.arg("NUMSUB").arg(format!("{prefix}v1:ch"));
        if !self.client.is_cluster() {
            let (_, nodes): (String, u64) = self.optional(&ask).await?;
            return Some(nodes);
        }
        // Each node subscribes at one of the servers.
        let mut all = 0;
        for primary in timeout(self.limit, self.client.primaries()).await.ok()?.ok()? {
            let answer = timeout(self.limit, primary.command(&ask)).await.ok()?.ok()?;
            let (_, nodes): (String, u64) = from_redis_value(answer).ok()?;
            all += nodes;
        }
        Some(all)
    }

    /// Runs a command that the user may lack the right for; `None` if it fails.
    pub(crate) async fn optional<T: FromRedisValue>(&self, ask: &Cmd) -> Option<T> {
        timeout(self.limit, ask.query_async(&mut self.client.clone())).await.ok()?.ok()
    }
}

/// Explains a URL that cannot be parsed.
async fn explain_url(url: &str) -> String {
    let client = RedisClient::connect(url).await;
    client.err().map_or_else(|| "it cannot be parsed".to_owned(), |error| detail(&error))
}

/// The client's error, without the part that the failure's message repeats.
fn detail(error: &L2Error) -> String {
    let said = error.cause().downcast_ref::<RedisError>().and_then(RedisError::detail);
    said.map_or_else(|| error.cause().to_string(), ToOwned::to_owned)
}

/// Adds the connection name, and the certificates of the command line.
fn prepared(builder: RedisClientBuilder, global: &Global) -> Result<RedisClientBuilder, Failure> {
    let builder = builder.client_name("crinkle-cli");
    #[cfg(feature = "tls")]
    return certified(builder, global);
    #[cfg(not(feature = "tls"))]
    {
        let _ = global;
        Ok(builder)
    }
}

#[cfg(feature = "tls")]
fn certified(
    mut builder: RedisClientBuilder,
    global: &Global,
) -> Result<RedisClientBuilder, Failure> {
    let read = |path: &std::path::Path| {
        let unreadable =
            |error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
        std::fs::read(path).map_err(unreadable)
    };
    if let Some(path) = &global.cacert {
        builder = builder.ca_certificates(read(path)?);
    }
    match (&global.cert, &global.key_file) {
        (None, None) => Ok(builder),
        (Some(cert), Some(key)) => Ok(builder.client_certificate(read(cert)?, read(key)?)),
        _ => Err(Failure::usage("--cert and --key-file need each other")),
    }
}
