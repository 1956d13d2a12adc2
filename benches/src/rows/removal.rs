//! Removal by tag, with more and more entries that carry the tag.

use std::time::Duration;

use anyhow::{Result, ensure};
use crinkle::Cache;
use futures_util::future::try_join_all;
use redis::Script;
use redis::aio::MultiplexedConnection;

use crate::board::Board;
use crate::env::Env;
use crate::measure::{Contender, Effort, Score, Side, race, wall};
use crate::remote::{Crinkle, raw};
use crate::row::Row;

const SIZES: [(&str, u64); 3] =
    [("remove_by_tag/1k", 1_000), ("remove_by_tag/100k", 100_000), ("remove_by_tag/1M", 1_000_000)];

/// Every entry has one tag per round, so that each removal is the first of its tag.
const ROUNDS: usize = 8;

/// Removes, on the server, the keys in an index in Redis.
const INDEX: &str = r"
local members = redis.call('SMEMBERS', KEYS[1])
for from = 1, #members, 5000 do
    redis.call('UNLINK', unpack(members, from, math.min(from + 4999, #members)))
end
redis.call('UNLINK', KEYS[1])
return #members";

pub(super) fn rows(env: &Env, board: &mut Board) -> Result<()> {
    for (name, entries) in SIZES {
        if board.wants(name) && !(env.quick() && entries > 100_000) {
            board.push(removal(env, name, entries)?);
        }
    }
    Ok(())
}

fn removal(env: &Env, name: &str, entries: u64) -> Result<Row> {
    let crinkle = Crinkle { url: env.redis() };
    let cache = env.runtime.block_on(crinkle.cache(entries * 2))?;
    env.runtime.block_on(store(&cache, entries))?;
    let mut connection = env.runtime.block_on(raw(&crinkle.url))?;
    let mut round = 0;
    let remove = |ops: u64| {
        let begun = wall();
        env.runtime.block_on(async {
            for _ in 0..ops {
                cache.remove_by_tag(format!("round:{}", round % ROUNDS)).await?;
                round += 1;
            }
            anyhow::Ok(())
        })?;
        Ok(begun.elapsed())
    };
    let ping = |ops: u64| {
        let begun = wall();
        env.runtime.block_on(async {
            for _ in 0..ops {
                redis::cmd("PING").exec_async(&mut connection).await?;
            }
            anyhow::Ok(())
        })?;
        Ok(begun.elapsed())
    };
    let mut contenders = [
        Contender::new("crinkle", Side::Crinkle, remove),
        Contender::new("redis_roundtrip", Side::Floor, ping),
    ];
    let effort = Effort { rounds: ROUNDS - 1, ..env.counted(1, 1) };
    let mut scores = race(&mut contenders, effort)?;
    drop(contenders);
    ensure_removed(env, &cache, entries)?;
    scores.push(env.runtime.block_on(index(&crinkle.url, entries))?);
    let row = Row::of(name, "us", &scores, |ns| ns / 1e3);
    Ok(row.against(1.2, "redis_roundtrip"))
}

/// Stores entries in L1 and in Redis, each with the tag of every round.
async fn store(cache: &Cache, entries: u64) -> Result<()> {
    let writers = 256;
    let writer = |first: u64| async move {
        for id in (first..entries).step_by(writers as usize) {
            let tags = (0..ROUNDS).map(|round| format!("round:{round}"));
            cache.set(format!("tagged:{id}"), id).tags(tags).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..writers).map(writer)).await?;
    Ok(())
}

fn ensure_removed(env: &Env, cache: &Cache, entries: u64) -> Result<()> {
    let found =
        env.runtime.block_on(cache.get::<u64>(format!("tagged:{}", entries / 2)).into_future())?;
    ensure!(found.is_none(), "a removed entry was found");
    Ok(())
}

/// The same with an index: a set of keys per tag, deleted by a script. Runs as many rounds as 20 s
/// allow.
async fn index(url: &str, entries: u64) -> Result<Score> {
    let mut connection = raw(url).await?;
    let script = Script::new(INDEX);
    let (mut rounds, begun) = (Vec::new(), wall());
    while rounds.len() < ROUNDS - 1 && begun.elapsed() < Duration::from_secs(20) {
        fill_index(&mut connection, entries).await?;
        let asked = wall();
        let removed: u64 = script.key("index:tag").invoke_async(&mut connection).await?;
        rounds.push(crate::measure::nanos(asked.elapsed()));
        ensure!(removed == entries, "the index removed {removed} of {entries}");
    }
    let note = format!("{} of {} rounds within 20 s, filling included", rounds.len(), ROUNDS - 1);
    let note = (rounds.len() < ROUNDS - 1).then_some(note);
    let ns = crate::measure::median(rounds);
    Ok(Score { name: "tag_index", side: Side::Peer, ns, note })
}

async fn fill_index(connection: &mut MultiplexedConnection, entries: u64) -> Result<()> {
    for from in (0..entries).step_by(10_000) {
        let mut pipe = redis::pipe();
        for id in from..entries.min(from + 10_000) {
            pipe.cmd("SET").arg(format!("index:{id}")).arg(id).ignore();
            pipe.cmd("SADD").arg("index:tag").arg(format!("index:{id}")).ignore();
        }
        pipe.query_async::<()>(connection).await?;
    }
    Ok(())
}
