//! Nodes with Redis behind them: Crinkle's, and what a raw client does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, EntryOptions};
use futures_util::future::LocalBoxFuture;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use crate::hits::{LIFE, tags};
use crate::measure::Side;
use crate::workload::Product;

/// How often a factory ran.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// A factory runs.
pub(crate) fn loaded() {
    LOADS.fetch_add(1, Ordering::Relaxed);
}

/// How many factories have run since this was asked last.
pub(crate) fn loads() -> u64 {
    LOADS.swap(0, Ordering::Relaxed)
}

/// Something that keeps values in Redis.
pub(crate) trait Remote {
    fn name(&self) -> &'static str;

    fn side(&self) -> Side;

    /// A node whose memory is empty.
    fn node(&self) -> LocalBoxFuture<'_, Result<Box<dyn Node>>>;
}

/// One node of it.
pub(crate) trait Node {
    /// The id of the product under this key; a product of this id is loaded if there is none.
    fn load<'a>(&'a self, key: &'a str, id: usize) -> LocalBoxFuture<'a, Result<u64>>;

    /// Ends it.
    fn close(self: Box<Self>) -> LocalBoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Crinkle with Redis as L2 and as backplane.
pub(crate) struct Crinkle {
    pub(crate) url: String,
}

impl Crinkle {
    /// A node that is up.
    pub(crate) async fn cache(&self, capacity: u64) -> Result<Cache> {
        let client = RedisClient::connect(&self.url).await?;
        let cache = Cache::builder("bench")
            .capacity(capacity)
            .default_options(EntryOptions::new(LIFE))
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

/// A client alone: `GET`, and for what is not there `SET` and `PUBLISH` in one pipeline. Nothing is
/// decoded.
pub(crate) struct Raw {
    pub(crate) url: String,
    pub(crate) name: &'static str,
}

/// A connection of a bare client. A script over a million keys takes longer than the half second that
/// it would wait by itself.
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
            both.cmd("SET").arg(&key).arg(value).arg("PX").arg(LIFE.as_millis() as u64).ignore();
            both.cmd("PUBLISH").arg("raw").arg(&key).ignore();
            both.query_async::<()>(&mut connection).await?;
            Ok(id as u64)
        })
    }
}
