//! One node of a cluster as a separate process, driven line by line: a command in, a reply out.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, EntryOptions, Settings};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("usage: node REDIS_URL")?;
    let client = RedisClient::connect(&url).await?;
    // Far more than a loaded machine needs: a call that gives up, or no longer waits for another
    // node's load, would prove nothing.
    let (limit, load) = (Duration::from_secs(10), Duration::from_secs(60));
    let options = EntryOptions::new(Duration::from_secs(600));
    let cache = Cache::builder("cluster")
        .default_options(options.l2_hard_timeout(limit).load_lock_wait(load))
        .settings(Settings::default().load_lock_ttl(load))
        .l2(RedisL2::new(client.clone()))
        .backplane(RedisBackplane::new(client))
        .build()?;
    cache.ready().await?;
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<_> = line.split(' ').collect();
        let reply = run(&cache, &words).await?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{reply}")?;
        out.flush()?;
    }
    Ok(())
}

async fn run(cache: &Cache, words: &[&str]) -> Result<String> {
    Ok(match words {
        ["set", key, value] => {
            let receipt = cache.set(*key, value.parse::<u64>()?).tags(["all"]).await?;
            format!("{:?}", receipt.l2())
        }
        ["load", key, value] => {
            let value: u64 = value.parse()?;
            let load = move |_| async move { crinkle::ok(value) };
            cache.get_or_set(*key, load).tags(["all"]).await?.to_string()
        }
        ["remove", key] => format!("{:?}", cache.remove(*key).await?.l2()),
        ["remove_by_tag", tag] => format!("{:?}", cache.remove_by_tag(*tag).await?.l2()),
        ["get", key] => show(cache.get::<u64>(*key).await?.map(|v| *v)),
        ["peek", key] => show(cache.peek::<u64>(*key).map(|v| *v)),
        ["crowd", key, callers, id] => crowd(cache, key, callers.parse()?, id.parse()?).await?,
        ["settle"] => settle(cache).await?,
        ["stats"] => format!("{:?}", cache.stats()),
        _ => bail!("unknown command {words:?}"),
    })
}

fn show(value: Option<u64>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// Makes this many concurrent calls. Returns the number of factory calls and the values of all
/// callers.
async fn crowd(cache: &Cache, key: &str, callers: usize, id: u64) -> Result<String> {
    let calls = Arc::new(AtomicUsize::new(0));
    let mut crowd = JoinSet::new();
    for _ in 0..callers {
        let (cache, key, calls) = (cache.clone(), key.to_owned(), Arc::clone(&calls));
        crowd.spawn(async move {
            let load = move |_| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                // A source that is slow enough for all callers to join.
                sleep(Duration::from_millis(300)).await;
                crinkle::ok(id)
            };
            cache.get_or_set(&key, load).await.map(|value| *value)
        });
    }
    let mut values = HashSet::new();
    while let Some(value) = crowd.join_next().await {
        values.insert(value??);
    }
    Ok(format!("{} {values:?}", calls.load(Ordering::SeqCst)))
}

/// Waits until a heartbeat sent after now has come back. On the one connection, it follows
/// everything that was announced before.
async fn settle(cache: &Cache) -> Result<String> {
    let began = Instant::now();
    loop {
        let heard = cache.health().last_heartbeat;
        if heard.is_some_and(|ago| ago < began.elapsed()) {
            return Ok("settled".to_owned());
        }
        if began.elapsed() > Duration::from_secs(20) {
            bail!("no heartbeat came back: {:?}", cache.health());
        }
        sleep(Duration::from_millis(10)).await;
    }
}
