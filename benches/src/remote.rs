//! Nodes over Redis: Crinkle's, and a raw client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, EntryOptions};
use futures_util::future::LocalBoxFuture;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use crate::hits::{TTL, tags};
use crate::measure::Side;
use crate::workload::Product;

/// How often a factory has run.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// Counts a factory run.
pub(crate) fn loaded() {
    LOADS.fetch_add(1, Ordering::Relaxed);
}

/// Returns the factory runs since the last call.
pub(crate) fn loads() -> u64 {
    LOADS.swap(0, Ordering::Relaxed)
}

/// A library that keeps values in Redis.
pub(crate) trait Remote {
    fn name(&self) -> &'static str;

    fn side(&self) -> Side;

    /// Creates a node with empty memory.
    fn node(&self) -> LocalBoxFuture<'_, Result<Box<dyn Node>>>;
}

/// One node of a library.
pub(crate) trait Node {
    /// Returns the id of the product under this key; loads a product with this id on a miss.
    fn load<'a>(&'a self, key: &'a str, id: usize) -> LocalBoxFuture<'a, Result<u64>>;

    /// Closes the node.
    fn close(self: Box<Self>) -> LocalBoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Crinkle with Redis as L2 and as backplane.
pub(crate) struct Crinkle {
    pub(crate) url: String,
}

impl Crinkle {
    /// Creates a node and waits until it is ready.
    pub(crate) async fn cache(&self, capacity: u64) -> Result<Cache> {
        let client = RedisClient::connect(&self.url).await?;
        let cache = Cache::builder("bench")
            .capacity(capacity)
            .default_options(EntryOptions::new(TTL))
            .l2(RedisL2::new(client.clone()))
            .backplane(RedisBackplane::new(client))
            .build()?;
        cache.ready().await?;
        Ok(cache)
    }
}

impl Remote for Crinkle {
    fn name(&self) -> &'static str {
        "crinkle"
    }

    fn side(&self) -> Side {
        Side::Crinkle
    }

    fn node(&self) -> LocalBoxFuture<'_, Result<Box<dyn Node>>> {
        Box::pin(async { Ok(Box::new(CrinkleNode(self.cache(100_000).await?)) as Box<dyn Node>) })
    }
}

struct CrinkleNode(Cache);

impl Node for CrinkleNode {
    fn load<'a>(&'a self, key: &'a str, id: usize) -> LocalBoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let load = move |_| async move {
                loaded();
                crinkle::ok(Product::new(id))
            };
            Ok(self.0.get_or_set(key, load).tags(tags(3)).await?.id)
        })
    }
}

/// A raw client: `GET`, and on a miss `SET` and `PUBLISH` in one pipeline. It decodes nothing.
pub(crate) struct Raw {
    pub(crate) url: String,
    pub(crate) name: &'static str,
}

/// Connects a raw client. A script over a million keys takes longer than the client's default limit
/// of half a second.
pub(crate) async fn raw(url: &str) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    let client = redis::Client::open(url)?;
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

impl Remote for Raw {
    fn name(&self) -> &'static str {
        self.name
    }

    fn side(&self) -> Side {
        Side::Floor
    }

    fn node(&self) -> LocalBoxFuture<'_, Result<Box<dyn Node>>> {
        Box::pin(async { Ok(Box::new(RawNode(raw(&self.url).await?)) as Box<dyn Node>) })
    }
}

struct RawNode(MultiplexedConnection);

impl Node for RawNode {
    fn load<'a>(&'a self, key: &'a str, id: usize) -> LocalBoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let mut connection = self.0.clone();
            let key = format!("raw:{key}");
            let found: Option<Vec<u8>> =
                redis::cmd("GET").arg(&key).query_async(&mut connection).await?;
            if let Some(found) = found {
                ensure!(found.len() > 40, "another value");
                return Ok(id as u64);
            }
            loaded();
            let value = serde_json::to_vec(&Product::new(id))?;
            let mut both = redis::pipe();
            both.cmd("SET").arg(&key).arg(value).arg("PX").arg(TTL.as_millis() as u64).ignore();
            both.cmd("PUBLISH").arg("raw").arg(&key).ignore();
            both.query_async::<()>(&mut connection).await?;
            Ok(id as u64)
        })
    }
}
