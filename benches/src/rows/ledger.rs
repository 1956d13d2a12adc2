//! What the ledger costs the server: polls without news, and removals by tag, with an empty ledger
//! and with a full one.

use std::time::Duration;

use anyhow::{Result, ensure};
use crinkle::redis::{RedisBackplane, RedisClient, RedisL2};
use crinkle::{Cache, EntryOptions, Settings};
use futures_util::future::try_join_all;
use tokio::time::sleep;

use crate::board::Board;
use crate::env::Env;
use crate::hits::TTL;
use crate::measure::wall;
use crate::remote::raw;
use crate::row::Row;
use crate::server::Work;

const IDLE: [&str; 2] = ["sync/idle", "sync/idle/calls"];
const REMOVALS: [&str; 3] = [
    "remove_by_tag/full_ledger",
    "remove_by_tag/full_ledger/calls",
    "remove_by_tag/full_ledger/c=64",
];
const EMPTY: &str = "empty_ledger";

/// Nodes that poll, so that the server's own timer does not count.
const NODES: usize = 16;

/// How many barriers a ledger keeps exactly by default.
const KEPT: u64 = 200_000;

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    if board.wants_any(&IDLE) {
        env.runtime.block_on(idle(env))?.into_iter().for_each(|row| board.push(row));
    }
    if board.wants_any(&REMOVALS) {
        env.runtime.block_on(removals(env))?.into_iter().for_each(|row| board.push(row));
    }
    Ok(())
}

/// A node whose ledger has this prefix.
async fn node(env: &Env, prefix: &str, poll: Duration) -> Result<Cache> {
    let client = RedisClient::connect(&env.redis()).await?;
    let cache = Cache::builder("ledger")
        .key_prefix(prefix)
        .settings(Settings::default().poll(poll))
        .default_options(EntryOptions::new(TTL))
        .l2(RedisL2::new(client.clone()))
        .backplane(RedisBackplane::new(client))
        .build()?;
    cache.ready().await?;
    Ok(cache)
}

async fn idle(env: &Env) -> Result<[Row; 2]> {
    let prefix = format!("idle:{}:", std::process::id());
    let poll = Duration::from_millis(10);
    let caches = try_join_all((0..NODES).map(|_| node(env, &prefix, poll))).await?;
    caches[0].remove_by_tag("a ledger that is in use").await?;
    // Until every node knows of the removal, and nothing of the start is left to do.
    sleep(Duration::from_millis(env.pick(3_000, 500))).await;
    let mut connection = raw(&env.redis()).await?;
    let polls = || caches.iter().map(|cache| cache.stats().syncs).sum::<u64>();
    let (before, first) = (Work::of(&mut connection).await?, polls());
    sleep(Duration::from_millis(env.pick(10_000, 2_000))).await;
    let (done, polls) = (Work::of(&mut connection).await? - &before, (polls() - first) as f64);
    ensure!(polls > 100.0, "only {polls} polls");
    let [time, calls] = IDLE;
    let script = done.script_us / polls;
    let note = format!("{:.1} us of them in scripts; {NODES} nodes, {polls} polls", script);
    Ok([
        Row::new(time, "us of the server", done.cpu_us / polls).note(note),
        Row::new(calls, "calls", done.calls() / polls).note(done.calls_per(polls)),
    ])
}

/// What removals cost, each of one tag.
struct Removals {
    count: f64,
    work: Work,
    took: Duration,
}

async fn removals(env: &Env) -> Result<[Row; 3]> {
    let count = env.pick(100_000, 20_000);
    let empty = removed(env, "empty", 0, count).await?;
    let full = removed(env, "full", KEPT, count).await?;
    let [time, calls, rate] = REMOVALS;
    let us = |removals: &Removals| removals.work.cpu_us / removals.count;
    let script = |removals: &Removals| removals.work.script_us / removals.count;
    let scripts = format!(
        "in scripts {:.1} us, with an empty ledger {:.1} us; {count} removals after {KEPT}, polls included",
        script(&full),
        script(&empty)
    );
    let per_call = |removals: &Removals| removals.work.calls() / removals.count;
    let per_second = |removals: &Removals| removals.count / removals.took.as_secs_f64();
    let rate_is = per_second(&full);
    Ok([
        Row::new(time, "us of the server", us(&full))
            .floor(EMPTY, us(&empty))
            .note(scripts)
            .against(1.3, EMPTY),
        Row::new(calls, "calls", per_call(&full))
            .floor(EMPTY, per_call(&empty))
            .note(format!("full: {}", full.work.calls_per(full.count)))
            .note(format!("empty: {}", empty.work.calls_per(empty.count))),
        Row::new(rate, "op/s", rate_is).upwards().floor(EMPTY, per_second(&empty)).goal(
            ">= 25,000 op/s".to_owned(),
            rate_is,
            rate_is >= 25_000.0,
        ),
    ])
}

/// Removes so many tags, each for the first time, from a ledger with so many barriers.
async fn removed(env: &Env, name: &str, kept: u64, count: u64) -> Result<Removals> {
    let prefix = format!("{name}:{}:", std::process::id());
    let cache = node(env, &prefix, Duration::from_secs(1)).await?;
    for first in (0..kept).step_by(10_000) {
        let tags = (first..kept.min(first + 10_000)).map(|tag| format!("kept:{tag}"));
        cache.remove_by_tags(tags).await?;
    }
    let mut connection = raw(&env.redis()).await?;
    let before = Work::of(&mut connection).await?;
    let begun = wall();
    let callers = 64;
    let caller = |first: u64| {
        let cache = &cache;
        async move {
            for tag in (first..count).step_by(callers as usize) {
                let receipt = cache.remove_by_tag(format!("tag:{tag}")).await?;
                ensure!(receipt.token().is_some(), "a removal got no number");
            }
            anyhow::Ok(())
        }
    };
    try_join_all((0..callers).map(caller)).await?;
    let took = begun.elapsed();
    let work = Work::of(&mut connection).await? - &before;
    cache.close().await?;
    Ok(Removals { count: count as f64, work, took })
}
