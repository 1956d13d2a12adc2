//! Measures the cost of idle caches.

use std::time::Duration;

use crinkle_backplane::{RedisBackplane, RedisClient};
use crinkle_core::Cache;
use crinkle_l2_redis::RedisL2;
use tokio::time::sleep;

use super::measure::{count, info, processor_secs, rss_kib};
use super::{Outcome, Row};
use crate::redis::RedisServer;

/// The duration of the measurement.
const WATCHED: Duration = Duration::from_secs(30);

/// Builds this many caches on one client and measures their cost while they are idle. Each row
/// holds the total and the share of one cache.
///
/// # Errors
///
/// If a cache cannot be built.
pub async fn idle(caches: usize) -> Outcome<Vec<Row>> {
    let server = RedisServer::start();
    let url = server.url();
    let field = async |name: &str| info(&url, name).await.ok_or("the server does not answer");
    let memory = rss_kib();
    let client = RedisClient::connect(&server.app_url()).await?;
    let mut built = Vec::new();
    for number in 0..caches {
        let cache = Cache::builder(&format!("cache{number}"))
            .l2(RedisL2::new(client.clone()))
            .backplane(RedisBackplane::new(client.clone()))
            .build()?;
        cache.ready().await?;
        built.push(cache);
    }
    sleep(Duration::from_secs(5)).await;
    let memory = rss_kib() - memory;
    // The connection that asks is not counted.
    let connections = field("connected_clients").await? - 1.0;
    let tasks = count(tokio::runtime::Handle::current().metrics().num_alive_tasks());
    let (commands, processor) = (field("total_commands_processed").await?, processor_secs());
    sleep(WATCHED).await;
    let secs = WATCHED.as_secs_f64();
    let commands = (field("total_commands_processed").await? - commands) / secs;
    let processor = (processor_secs() - processor) / secs * 100.0;
    drop(built);
    let row = |what, whole: f64| Row {
        of: format!("{caches} caches"),
        what,
        before: whole,
        after: whole / count(caches),
        flat: None,
    };
    Ok(vec![
        row("connections", connections),
        row("tasks", tasks),
        row("RSS, KiB", memory),
        row("commands a second, with those in scripts", commands),
        row("% of a core", processor),
    ])
}
