//! Nodes of a cache over real Redis servers, in real time.

use std::time::Duration;

use ::redis::FromRedisValue;
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, CacheBuilder, EntryOptions};
use tokio::time::{Instant, sleep, timeout};

/// Nothing over a real server may take this long; a failover takes a few seconds.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A cache named `shop`, whose entries live for ten minutes, not built yet.
pub fn over(client: &RedisClient) -> CacheBuilder {
    named("shop", client)
}

/// The same under another name.
pub fn named(name: &str, client: &RedisClient) -> CacheBuilder {
    Cache::builder(name)
        .default_options(EntryOptions::new(Duration::from_secs(600)))
        .l2(RedisL2::new(client.clone()))
        .backplane(RedisBackplane::new(client.clone()))
}

/// A client for a server.
///
/// # Panics
///
/// If the URL makes no sense.
pub async fn client(url: &str) -> RedisClient {
    RedisClient::connect(url).await.expect("a sound URL")
}

/// Builds a cache and waits until it is ready.
///
/// # Panics
///
/// If the settings are refused, or it is not ready in time.
pub async fn ready(builder: CacheBuilder) -> Cache {
    let cache = builder.build().expect("sound settings");
    is_ready(&cache).await;
    cache
}

/// Waits until a cache is ready.
///
/// # Panics
///
/// If it is not in time.
pub async fn is_ready(cache: &Cache) {
    timeout(DEADLINE, cache.ready()).await.expect("ready in time").expect("not closed");
}

/// Waits for something that happens on real servers.
///
/// # Panics
///
/// If it does not in time.
pub async fn comes_true(what: &str, condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < DEADLINE, "waited too long until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Asks a server; `None` if it does not answer, or says no.
pub async fn ask<T: FromRedisValue>(url: &str, words: &[&str]) -> Option<T> {
    let client = ::redis::Client::open(url).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    ::redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.ok()
}
