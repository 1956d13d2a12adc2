//! Nodes of a cache over real Redis servers, in real time.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisResult};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, CacheBuilder, EntryOptions};
use crinkle_testkit::redis::RedisServer;
use tokio::time::{Instant, sleep, timeout};

/// The limit of anything over a real server; a failover takes a few seconds.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The limit of an answer on a busy machine. Where a server does not answer, a test may prefer
/// [`HASTE`].
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A short limit of the wait for L2, for tests of calls that get no answer.
pub const HASTE: Duration = Duration::from_secs(1);

/// A builder of a cache named `shop` whose entries have a TTL of ten minutes.
pub fn over(client: &RedisClient) -> CacheBuilder {
    named("shop", client)
}

/// The same under another name.
pub fn named(name: &str, client: &RedisClient) -> CacheBuilder {
    Cache::builder(name)
        .default_options(within(PATIENCE))
        .l2(RedisL2::new(client.clone()))
        .backplane(RedisBackplane::new(client.clone()))
}

/// A TTL of ten minutes, and this limit for every L2 call.
#[must_use]
pub fn within(limit: Duration) -> EntryOptions {
    EntryOptions::new(Duration::from_secs(600)).l2_soft_timeout(limit).l2_hard_timeout(limit)
}

/// A client for a server.
///
/// # Panics
///
/// If the URL is invalid.
pub async fn client(url: &str) -> RedisClient {
    RedisClient::connect(url).await.expect("a sound URL")
}

/// Builds a cache and waits until it is ready.
///
/// # Panics
///
/// If the settings are invalid, or the cache is not ready in time.
pub async fn ready(builder: CacheBuilder) -> Cache {
    let cache = builder.build().expect("sound settings");
    is_ready(&cache).await;
    cache
}

/// Waits until a cache is ready.
///
/// # Panics
///
/// If the cache is not ready in time.
pub async fn is_ready(cache: &Cache) {
    timeout(DEADLINE, cache.ready()).await.expect("ready in time").expect("not closed");
}

/// A ready node over a server.
///
/// # Panics
///
/// If the URL is invalid, or the node is not ready in time.
pub async fn node_at(url: &str) -> Cache {
    node_over(&client(url).await).await
}

/// A ready node over a client.
///
/// # Panics
///
/// If the node is not ready in time.
pub async fn node_over(client: &RedisClient) -> Cache {
    ready(over(client)).await
}

/// A ready node that waits [`HASTE`] for a server that is gone.
///
/// # Panics
///
/// If the node is not ready in time.
pub async fn hasty_over(client: &RedisClient) -> Cache {
    ready(over(client).default_options(within(HASTE))).await
}

/// Waits for a call, at most [`DEADLINE`].
///
/// # Panics
///
/// If it does not end in time.
pub async fn in_time<R>(call: impl IntoFuture<Output = R>) -> R {
    timeout(DEADLINE, call.into_future()).await.expect("in time")
}

/// Waits until a condition holds on real servers, at most [`DEADLINE`].
///
/// # Panics
///
/// If it does not hold in time.
pub async fn comes_true(what: &str, condition: impl AsyncFn() -> bool) {
    comes_true_within(DEADLINE, what, condition).await;
}

/// The same with another limit.
///
/// # Panics
///
/// If it does not hold in time.
pub async fn comes_true_within(limit: Duration, what: &str, condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < limit, "waited too long until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Opens a connection without the cache. The client's own limit for an answer would be half a
/// second.
///
/// # Errors
///
/// If the URL is invalid, or the server does not answer.
pub async fn raw(url: &str) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

/// The same for a server that answers.
///
/// # Panics
///
/// If there is no connection.
pub async fn connection(url: &str) -> MultiplexedConnection {
    raw(url).await.expect("a connection")
}

/// Sends a command to a server as its administrator.
///
/// # Panics
///
/// If the server does not answer, or answers with an error.
pub async fn admin<T: FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    let mut command = ::redis::cmd(words[0]);
    let answer = command.arg(&words[1..]).query_async(&mut connection(&server.url()).await).await;
    answer.expect("the server does as it is told")
}

/// Sends a command to a server; `None` if it does not answer, or answers with an error.
pub async fn ask<T: FromRedisValue>(url: &str, words: &[&str]) -> Option<T> {
    let mut connection = raw(url).await.ok()?;
    ::redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.ok()
}
