//! Three processes share one Redis. A writer changes the source of truth and invalidates; two
//! readers read through their caches in a loop. How long does each reader take to serve the new
//! value?
//!
//! ```text
//! cargo run --release --example three_nodes        (needs redis-server on the PATH)
//! ```
//!
//! The program starts a private `redis-server` and three more processes of itself. Entries have a
//! TTL of ten minutes, so within a run only an invalidation can update a reader. Half way, the
//! server drops every subscription just before a removal. Exit code 1 if a reader serves an older
//! value as fresh more than 5 s after the change was acknowledged, or an older value after a newer
//! one.

#[path = "three_nodes/coordinator.rs"]
mod coordinator;
#[path = "three_nodes/reader.rs"]
mod reader;
#[path = "three_nodes/writer.rs"]
mod writer;

use std::time::Duration;

use anyhow::{Context, Result};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, EntryOptions};

/// A read that starts this long after a change must not return an older value as fresh.
const BOUND: Duration = Duration::from_secs(5);

/// The number of prices; all carry one tag.
const PRICES: usize = 8;

const TAG: &str = "prices";

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    match (args.next(), args.next()) {
        (None, _) => coordinator::run().await,
        (Some(role), Some(url)) if role == "writer" => writer::run(&url).await,
        (Some(role), Some(url)) if role == "reader" => reader::run(&url).await,
        (Some(role), _) => {
            anyhow::bail!("unknown role {role:?}; start the example without arguments")
        }
    }
}

/// A node of the cluster.
#[derive(Debug)]
struct Node {
    cache: Cache,
    /// The source of truth is in the same server, in keys that the cache does not use.
    source: RedisClient,
}

impl Node {
    async fn join(url: &str) -> Result<Self> {
        let client = RedisClient::connect(url).await?;
        let cache = Cache::builder("shop")
            .default_options(EntryOptions::new(Duration::from_secs(600)))
            .l2(RedisL2::new(client.clone()))
            .backplane(RedisBackplane::new(client))
            .build()?;
        cache.ready().await?;
        Ok(Self { cache, source: RedisClient::connect(url).await? })
    }
}

/// The factory: reads the version of a price from the source of truth, and takes 2 ms longer.
async fn load(mut source: RedisClient, price: usize) -> Result<u64> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    let mut get = crinkle::redis::redis::cmd("GET");
    get.arg(source_key(price)).query_async(&mut source).await.context("the source of truth")
}

fn source_key(price: usize) -> String {
    format!("source:{price}")
}

fn cache_key(price: usize) -> String {
    format!("price:{price}")
}
